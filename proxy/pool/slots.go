package pool

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
)

// Slots bound the connections that are open at once from one address to one destination (DIP5). The zero value bounds
// nothing. It is safe for concurrent use.
type Slots struct {
	mu   sync.Mutex
	most int
	open map[pair]*slot
}

type pair struct{ from, to netip.Addr }

type slot struct {
	n       int
	waiting []chan struct{} // the next of them is called when one is free; it is then his
}

// Configure sets the bound; 0: any number.
func (s *Slots) Configure(most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = most
}

// Enter waits for a place until ctx ends; leave gives it back.
func (s *Slots) Enter(ctx context.Context, from, to netip.Addr) (leave func(), err error) {
	k := pair{from.Unmap(), to.Unmap()}
	s.mu.Lock()
	if s.most <= 0 {
		s.mu.Unlock()
		return func() {}, nil
	}
	if s.open == nil {
		s.open = map[pair]*slot{}
	}
	o := s.open[k]
	if o == nil {
		o = &slot{}
		s.open[k] = o
	}
	if o.n < s.most {
		o.n++
		s.mu.Unlock()
		return func() { s.leave(k) }, nil
	}
	mine := make(chan struct{}, 1)
	o.waiting = append(o.waiting, mine)
	most := s.most
	s.mu.Unlock()
	select {
	case <-mine:
		return func() { s.leave(k) }, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range o.waiting {
		if w == mine {
			o.waiting = append(o.waiting[:i], o.waiting[i+1:]...)
			return nil, fmt.Errorf("%d connections are open from %v to %v, as many as may be", most, from, to)
		}
	}
	return func() { s.leave(k) }, nil // called in between
}

// leave gives a place back, or on to who waits for it.
func (s *Slots) leave(k pair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.open[k]
	if len(o.waiting) > 0 && (s.most <= 0 || o.n <= s.most) {
		next := o.waiting[0]
		o.waiting = o.waiting[1:]
		next <- struct{}{}
		return
	}
	if o.n--; o.n == 0 {
		delete(s.open, k)
	}
}
