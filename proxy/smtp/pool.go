package smtp

import "sync"

// Buffers come from pools by size class, as array pointers, so that neither Get nor Put allocates.
const (
	size1K   = 1 << 10
	size4K   = 4 << 10
	size8K   = 8 << 10
	size12K  = 12 << 10
	size16K  = 16 << 10
	size32K  = 32 << 10
	size64K  = 64 << 10
	size256K = 256 << 10
	size1M   = 1 << 20
	size4M   = 4 << 20
)

var (
	pool1K   = sync.Pool{New: func() any { return new([size1K]byte) }}
	pool4K   = sync.Pool{New: func() any { return new([size4K]byte) }}
	pool8K   = sync.Pool{New: func() any { return new([size8K]byte) }}
	pool12K  = sync.Pool{New: func() any { return new([size12K]byte) }}
	pool16K  = sync.Pool{New: func() any { return new([size16K]byte) }}
	pool32K  = sync.Pool{New: func() any { return new([size32K]byte) }}
	pool64K  = sync.Pool{New: func() any { return new([size64K]byte) }}
	pool256K = sync.Pool{New: func() any { return new([size256K]byte) }}
	pool1M   = sync.Pool{New: func() any { return new([size1M]byte) }}
	pool4M   = sync.Pool{New: func() any { return new([size4M]byte) }}
)

// getBuf gives a buffer of the smallest class that holds n bytes; its length is the class size.
// Its content is undefined.
func getBuf(n int) []byte {
	switch {
	case n <= size1K:
		return pool1K.Get().(*[size1K]byte)[:]
	case n <= size4K:
		return pool4K.Get().(*[size4K]byte)[:]
	case n <= size8K:
		return pool8K.Get().(*[size8K]byte)[:]
	case n <= size12K:
		return pool12K.Get().(*[size12K]byte)[:]
	case n <= size16K:
		return pool16K.Get().(*[size16K]byte)[:]
	case n <= size32K:
		return pool32K.Get().(*[size32K]byte)[:]
	case n <= size64K:
		return pool64K.Get().(*[size64K]byte)[:]
	case n <= size256K:
		return pool256K.Get().(*[size256K]byte)[:]
	case n <= size1M:
		return pool1M.Get().(*[size1M]byte)[:]
	case n <= size4M:
		return pool4M.Get().(*[size4M]byte)[:]
	}
	return make([]byte, (n+size4M-1)/size4M*size4M)
}

// putBuf returns a buffer of getBuf; anything else is left to the garbage collector.
func putBuf(b []byte) {
	switch cap(b) {
	case size1K:
		pool1K.Put((*[size1K]byte)(b[:size1K]))
	case size4K:
		pool4K.Put((*[size4K]byte)(b[:size4K]))
	case size8K:
		pool8K.Put((*[size8K]byte)(b[:size8K]))
	case size12K:
		pool12K.Put((*[size12K]byte)(b[:size12K]))
	case size16K:
		pool16K.Put((*[size16K]byte)(b[:size16K]))
	case size32K:
		pool32K.Put((*[size32K]byte)(b[:size32K]))
	case size64K:
		pool64K.Put((*[size64K]byte)(b[:size64K]))
	case size256K:
		pool256K.Put((*[size256K]byte)(b[:size256K]))
	case size1M:
		pool1M.Put((*[size1M]byte)(b[:size1M]))
	case size4M:
		pool4M.Put((*[size4M]byte)(b[:size4M]))
	}
}
