package limit

import "net/netip"

// Place is how many sessions a source has towards a destination.
type Place struct {
	Source netip.Addr
	Target netip.AddrPort
	N      int
}

// Places returns the places that are taken, in no order.
func (s *Sessions) Places() (all []Place) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for src, from := range sh.sources {
			for dst, n := range from.pairs {
				all = append(all, Place{src, dst, n})
			}
		}
		sh.mu.Unlock()
	}
	return all
}

// Hold takes a place for a session that another process leads, whatever the caps say: it is open already. The place is held
// until release is called, which may be done more than once.
func (s *Sessions) Hold(src netip.Addr, dst netip.AddrPort) (release func()) {
	sh := s.shard(src)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.source(src).enter(&waiter{dst: dst})
	return sh.releaser(src, dst)
}
