package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// Spill takes the part of a body that does not fit into memory. An *os.File serves; whoever
// opens it sees that it vanishes (unlink it at once).
type Spill interface {
	io.Writer
	io.ReaderAt
	io.Closer
}

// DataOptions bound one body; a zero field means its default.
type DataOptions struct {
	// MaxSize is the largest body in bytes, dots unstuffed; 0: no bound. What is larger is read
	// to its end and thrown away (ErrTooLarge).
	MaxSize int64
	// MaxMemory is how much memory a body takes; default 1 MiB, rounded up to a power of four KiB.
	MaxMemory int
	// OpenSpill opens the store for what is beyond MaxMemory; nil: such a body is ErrSpill.
	OpenSpill func() (Spill, error)
	// RefuseBareLF makes a bare LF an error (ErrBareLF); otherwise it becomes CRLF.
	RefuseBareLF bool
	// MaxLine is the longest line without its end (ErrBodyLine); 0: no bound.
	MaxLine int
	// MaxDiscard bounds how much of a refused body is read before the connection is given up
	// (ErrFlood); 0: no bound but Options.MaxTotal.
	MaxDiscard int64
	// Binary lets NUL, bare CR and bare LF through as they are: BDAT after BODY=BINARYMIME.
	Binary bool
	// Reserve is asked before a body takes delta more bytes of memory, and told with a negative
	// delta when they are given back; false sends the body to the spill. May be nil.
	Reserve func(delta int) bool
	// Until is when a body must be there whole, whatever progress it makes (ErrTimeout), give or take an eighth of the
	// read time-out; zero: no bound.
	Until time.Time
	// Tick, if not nil, is called by the reading goroutine at least every TickEvery (or a
	// quarter less) while a body is uploaded. Its first error ends the calls and is Body.TickErr.
	Tick      func() error
	TickEvery time.Duration
	// Arrived, if not nil, is called by the reading goroutine with the body whenever more of it came, once there are From
	// bytes, unless it is refused.
	Arrived func(*Body)
	From    int64
}

// Body is a message body: lines that end in CRLF, dots not stuffed. It belongs to whoever got it,
// who calls Release once. It may be read by several goroutines at once, and sent by one.
type Body struct {
	all      []byte // a buffer of the pool
	mem      []byte // the first bytes, in that buffer
	term     int    // length of the end of data that stands behind mem, within its capacity
	f        filler
	spill    Spill
	size     int64
	maxMem   int
	o        DataOptions
	reserved int
	dec      decoder
	err      *ProtocolError // first refusal: the rest is thrown away
	spillErr error
	dropped  int64     // bytes thrown away
	tick     tickState // while it is read
	tickErr  error
}

// NewBody makes an empty body to be filled by ReadChunk or Append and closed by Finish.
func NewBody(o *DataOptions) *Body {
	b := new(Body)
	b.init(o, false)
	return b
}

func (b *Body) init(o *DataOptions, dots bool) {
	if o != nil {
		b.o = *o
	}
	b.maxMem = b.o.MaxMemory
	if b.maxMem <= 0 {
		b.maxMem = size1M
	}
	b.dec.reset(dots, b.o.Binary)
}

// BodyFromBytes makes a body of a message of ours or of a test; the same rules hold for it as for
// a body from the network, and the errors are the same.
func BodyFromBytes(msg []byte) (*Body, error) {
	b := NewBody(&DataOptions{MaxMemory: len(msg) + headroom + minRoom})
	b.Append(msg) // its error comes again from Finish
	if err := b.Finish(); err != nil {
		b.Release()
		return nil, err
	}
	return b, nil
}

// Size gives the length in bytes, CRLF as two, without dot stuffing and the final dot.
func (b *Body) Size() int64 { return b.size }

// Bytes gives the part in memory: the whole body unless Spilled. It is valid until Release and
// must not be changed.
func (b *Body) Bytes() []byte { return b.mem }

// Spilled tells whether a part of the body is not in Bytes.
func (b *Body) Spilled() bool { return b.size > int64(len(b.mem)) }

// HeaderLen gives the length of the header with the empty line that ends it; if there is no
// empty line, that of the whole body.
func (b *Body) HeaderLen() int64 {
	if b.dec.header < 0 {
		return b.size
	}
	return b.dec.header
}

// Header gives the header with the empty line that ends it, as far as it is in memory.
func (b *Body) Header() []byte { return b.mem[:min(b.HeaderLen(), int64(len(b.mem)))] }

// Has8Bit tells whether the body holds a byte above 127.
func (b *Body) Has8Bit() bool { return b.dec.has8 }

// Dots gives the number of lines that begin with a dot.
func (b *Body) Dots() int { return b.dec.ndots }

// spots gives where the lines begin that begin with a dot; false where that is not known of all.
func (b *Body) spots() ([]uint32, bool) {
	return b.dec.spots[:b.dec.nspots], b.dec.nspots == b.dec.ndots
}

// Lines gives the number of lines.
func (b *Body) Lines() int { return b.dec.lines }

// LongestLine gives the length of the longest line without its end.
func (b *Body) LongestLine() int64 { return b.dec.longest }

// HadBareLF tells whether bare line feeds were made CRLF.
func (b *Body) HadBareLF() bool { return b.dec.bareLF }

// Canonical tells whether the body can be sent with DATA: no NUL, no bare CR or LF.
func (b *Body) Canonical() bool { return !b.dec.binary || !(b.dec.nul || b.dec.bareCR || b.dec.bareLF) }

// CutHeader takes the lines from offset from to offset to, whole lines of the header, out of the body. False: they are not
// in memory, and nothing is changed.
func (b *Body) CutHeader(from, to int) bool {
	n := int64(to - from)
	b.dec.nspots = 0 // they may have moved
	if from < 0 || n < 0 || int64(to) > min(b.HeaderLen(), int64(len(b.mem))) {
		return false
	}
	gone := b.mem[from:to]
	b.dec.lines -= bytes.Count(gone, []byte("\n"))
	if len(gone) > 0 && gone[0] == '.' {
		b.dec.ndots--
	}
	if b.dec.header >= 0 {
		b.dec.header -= n
	}
	whole := b.mem[:len(b.mem)+b.term] // the end of data stands behind
	copy(whole[from:], whole[to:])
	b.mem = b.mem[:len(b.mem)-int(n)]
	b.size -= n
	return true
}

// TickErr gives the error of DataOptions.Tick, if it had one.
func (b *Body) TickErr() error { return b.tickErr }

// Release gives memory and spill back. The body must not be used afterwards; a second call does
// nothing.
func (b *Body) Release() {
	if b == nil {
		return
	}
	if b.all != nil {
		putBuf(b.all)
	}
	if b.f.buf != nil {
		putBuf(b.f.buf)
	}
	b.all, b.mem, b.f, b.term = nil, nil, filler{}, 0
	b.giveBack(b.reserved)
	if b.spill != nil {
		b.spill.Close()
		b.spill = nil
	}
	b.size = 0
}

// refusal gives the reason why the body was refused, with the cause if a spill failed.
func (b *Body) refusal() error {
	switch {
	case b.err == nil:
		return nil
	case b.spillErr != nil:
		return fmt.Errorf("%w: %w", b.err, b.spillErr)
	}
	return b.err
}

// ReadAt implements io.ReaderAt over memory and spill.
func (b *Body) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset in body")
	}
	n := 0
	if off < int64(len(b.mem)) {
		n = copy(p, b.mem[off:])
	}
	rest := p[n:min(int64(len(p)), max(int64(n), b.size-off))]
	if len(rest) > 0 {
		m, err := b.spill.ReadAt(rest, off+int64(n)-int64(len(b.mem)))
		n += m
		if m < len(rest) {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteText writes what follows the header with its empty line.
func (b *Body) WriteText(w io.Writer) error {
	r := b.NewReader()
	r.off = b.HeaderLen()
	_, err := r.WriteTo(w)
	return err
}

// NewReader gives a reader from the body's start.
func (b *Body) NewReader() *BodyReader { return &BodyReader{b: b} }

// BodyReader reads a body from its start.
type BodyReader struct {
	b   *Body
	off int64
}

// Read implements io.Reader.
func (r *BodyReader) Read(p []byte) (int, error) {
	n, err := r.b.ReadAt(p, r.off)
	r.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// WriteTo implements io.WriterTo; what is in memory goes in one write.
func (r *BodyReader) WriteTo(w io.Writer) (int64, error) {
	start := r.off
	if r.off < int64(len(r.b.mem)) {
		n, err := w.Write(r.b.mem[r.off:])
		r.off += int64(n)
		if err != nil {
			return r.off - start, err
		}
	}
	buf := getBuf(size64K)
	defer putBuf(buf)
	for r.off < r.b.size {
		n, err := r.Read(buf)
		if err != nil {
			return r.off - start, err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return r.off - start, err
		}
	}
	return r.off - start, nil
}
