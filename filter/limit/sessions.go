package limit

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// ErrTooMany says that a session found no place in time: the client hears 421.
var ErrTooMany = errors.New("too many concurrent sessions from this address")

// SessionOptions set up Sessions.
type SessionOptions struct {
	Wait       time.Duration // how long a session waits for its greeting; 0 means 60 s (AUT8)
	MaxWaiting int           // sessions of one source that may wait; 0 means 1,000
	OnCap      func(Capped)  // hears of a source whose sessions wait, once a minute; must not block; may be nil
}

// Capped says which source reached its cap.
type Capped struct {
	Source          netip.Addr
	Target          netip.AddrPort // the destination whose session had to wait
	Active, Waiting int            // sessions of the source
	PerPair         bool           // the cap of source and destination was reached, not the source's
}

// SessionStats are the present load and the counts since start.
type SessionStats struct {
	Active, Waiting, Sources int
	Capped                   uint64 // sessions that had to wait
	Refused                  uint64 // of these, or of those that might not even wait, the ones refused
}

// Sessions bounds the concurrent sessions of each source, and of each source towards each destination. The excess waits
// in the order it came (AUT8): a server that opens many at once defers nothing. Safe for concurrent use.
type Sessions struct {
	o               SessionOptions
	capped, refused atomic.Uint64
	shards          [shards]sessionShard
}

type sessionShard struct {
	mu      sync.Mutex
	sources map[netip.Addr]*source
}

// source is the load of one client address.
type source struct {
	active  int
	pairs   map[netip.AddrPort]int
	waiting []*waiter // in the order they came
	told    time.Time // when OnCap last heard of it
}

// tellEvery bounds how often OnCap hears of one source, which may come to wait many times a second.
const tellEvery = time.Minute

type waiter struct {
	dst                netip.AddrPort
	perSource, perPair int
	admitted           chan struct{} // closed once it holds a place
}

// NewSessions returns a gate without sessions.
func NewSessions(o SessionOptions) *Sessions {
	if o.Wait <= 0 {
		o.Wait = time.Minute
	}
	if o.MaxWaiting <= 0 {
		o.MaxWaiting = 1000
	}
	s := &Sessions{o: o}
	for i := range s.shards {
		s.shards[i].sources = map[netip.Addr]*source{}
	}
	return s
}

// Enter takes a place for a session from src to dst, waiting for one while src has perSource sessions or perPair of them
// towards dst; a cap of 0 or less is none. It returns ErrTooMany when there was no place in time, or the cause why ctx
// ended. The place is held until release is called, which may be done more than once.
func (s *Sessions) Enter(ctx context.Context, src netip.Addr, dst netip.AddrPort, perSource, perPair int) (release func(), err error) {
	w := &waiter{dst: dst, perSource: perSource, perPair: perPair}
	sh := s.shard(src)
	sh.mu.Lock()
	from := sh.source(src)
	if from.passes(w) {
		from.enter(w)
		sh.mu.Unlock()
		return sh.releaser(src, dst), nil
	}
	s.capped.Add(1)
	if len(from.waiting) >= s.o.MaxWaiting {
		sh.mu.Unlock()
		s.refused.Add(1)
		return nil, ErrTooMany
	}
	w.admitted = make(chan struct{})
	from.waiting = append(from.waiting, w)
	alarm := Capped{src, dst, from.active, len(from.waiting), perSource <= 0 || from.active < perSource}
	tell := time.Since(from.told) >= tellEvery
	if tell {
		from.told = time.Now()
	}
	sh.mu.Unlock()
	if tell && s.o.OnCap != nil {
		s.o.OnCap(alarm)
	}
	if err := s.wait(ctx, w); err != nil && sh.leave(src, w) {
		if errors.Is(err, ErrTooMany) {
			s.refused.Add(1)
		}
		return nil, err
	}
	return sh.releaser(src, dst), nil
}

// Stats returns the present load.
func (s *Sessions) Stats() SessionStats {
	st := SessionStats{Capped: s.capped.Load(), Refused: s.refused.Load()}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		st.Sources += len(sh.sources)
		for _, from := range sh.sources {
			st.Active += from.active
			st.Waiting += len(from.waiting)
		}
		sh.mu.Unlock()
	}
	return st
}

// wait returns nil once w holds a place.
func (s *Sessions) wait(ctx context.Context, w *waiter) error {
	patience := time.NewTimer(s.o.Wait)
	defer patience.Stop()
	select {
	case <-w.admitted:
		return nil
	case <-patience.C:
		return ErrTooMany
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Sessions) shard(src netip.Addr) *sessionShard {
	b := src.As16()
	var h uint32 = 2166136261 // FNV-1a
	for _, c := range b {
		h = (h ^ uint32(c)) * 16777619
	}
	return &s.shards[h%shards]
}

// source returns the load of src, an empty one where there is none. The shard is locked.
func (sh *sessionShard) source(src netip.Addr) *source {
	from, ok := sh.sources[src]
	if !ok {
		from = &source{pairs: map[netip.AddrPort]int{}}
		sh.sources[src] = from
	}
	return from
}

// releaser returns the function that gives the place back once.
func (sh *sessionShard) releaser(src netip.Addr, dst netip.AddrPort) func() {
	var once sync.Once
	return func() {
		once.Do(func() {
			sh.mu.Lock()
			defer sh.mu.Unlock()
			from := sh.sources[src]
			from.active--
			if from.pairs[dst]--; from.pairs[dst] == 0 {
				delete(from.pairs, dst)
			}
			sh.admit(src, from)
		})
	}
}

// leave takes w out of the queue. It returns false when w was admitted meanwhile: then it holds a place.
func (sh *sessionShard) leave(src netip.Addr, w *waiter) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	select {
	case <-w.admitted:
		return false
	default:
	}
	from := sh.sources[src]
	for i, other := range from.waiting {
		if other == w {
			from.waiting = append(from.waiting[:i], from.waiting[i+1:]...)
			break
		}
	}
	sh.admit(src, from) // those behind w may have other caps
	return true
}

// admit gives free places to those who wait, in their order; who waits for a full destination does not hold up those
// behind. It forgets a source without sessions.
func (sh *sessionShard) admit(src netip.Addr, from *source) {
	still := from.waiting[:0]
	for _, w := range from.waiting {
		if from.fits(w) {
			from.enter(w)
			close(w.admitted)
		} else {
			still = append(still, w)
		}
	}
	clear(from.waiting[len(still):])
	from.waiting = still
	if from.active == 0 && len(from.waiting) == 0 {
		delete(sh.sources, src)
	}
}

// passes reports whether w may enter at once: there is a place, and nobody who waits for it came earlier.
func (from *source) passes(w *waiter) bool {
	if !from.fits(w) {
		return false
	}
	for _, o := range from.waiting {
		if o.dst == w.dst || o.perSource > 0 && from.active >= o.perSource {
			return false
		}
	}
	return true
}

func (from *source) fits(w *waiter) bool {
	return (w.perSource <= 0 || from.active < w.perSource) && (w.perPair <= 0 || from.pairs[w.dst] < w.perPair)
}

func (from *source) enter(w *waiter) {
	from.active++
	from.pairs[w.dst]++
}
