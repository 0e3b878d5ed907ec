package relay

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds of the capability cache.
const (
	cacheTime  = 10 * time.Minute
	cacheRoom  = 1 << 16 // destinations times sources; about 300 bytes each
	cacheParts = 16      // independent locks
)

// place is what capabilities are remembered by: some destinations answer differently by source.
type place struct {
	target netip.AddrPort
	source netip.Addr
}

// known is what was seen at a place.
type known struct {
	caps   Caps
	expiry time.Time
}

// cache remembers what destinations can do. It is safe for concurrent use.
type cache struct {
	parts [cacheParts]struct {
		sync.Mutex
		m map[place]*known
	}
}

func (c *cache) part(p place) int {
	b := p.target.Addr().As16()
	return int(b[15]^b[14]^b[7]^byte(p.target.Port())) % cacheParts
}

// get returns what is known of p, or nil. The result must not be changed.
func (c *cache) get(p place, now time.Time) *known {
	s := &c.parts[c.part(p)]
	s.Lock()
	defer s.Unlock()
	k := s.m[p]
	if k != nil && now.After(k.expiry) {
		delete(s.m, p)
		return nil
	}
	return k
}

// put remembers caps for p, and gives those that are remembered, which must not be changed: most destinations say the same
// each time, and many sessions may be open. When the part is full some entry gives way.
func (c *cache) put(p place, caps *Caps, now time.Time) *Caps {
	caps.Other = nil // nobody asks for them later, and they are a stranger's to fill
	s := &c.parts[c.part(p)]
	s.Lock()
	defer s.Unlock()
	if k := s.m[p]; k != nil && k.caps.same(caps) {
		k.expiry = now.Add(cacheTime)
		return &k.caps
	}
	if s.m == nil {
		s.m = make(map[place]*known)
	}
	if len(s.m) >= cacheRoom/cacheParts && s.m[p] == nil {
		for old := range s.m { // map order is as good as random
			delete(s.m, old)
			break
		}
	}
	k := &known{caps: *caps, expiry: now.Add(cacheTime)}
	s.m[p] = k
	return &k.caps
}

// same tells whether both say the same.
func (c *Caps) same(o *Caps) bool {
	return c.ESMTP == o.ESMTP && c.Encrypted == o.Encrypted && c.Verified == o.Verified && c.AsksCert == o.AsksCert && c.WantsCert == o.WantsCert &&
		c.Greeting == o.Greeting && c.Name == o.Name && slices.Equal(c.PlainAuth, o.PlainAuth) &&
		c.Set == o.Set && c.Size == o.Size && c.Limits == o.Limits && slices.Equal(c.Auth, o.Auth)
}

// drop forgets p.
func (c *cache) drop(p place) {
	s := &c.parts[c.part(p)]
	s.Lock()
	defer s.Unlock()
	delete(s.m, p)
}

// dropAll forgets a destination as seen from any source.
func (c *cache) dropAll(target netip.AddrPort) {
	s := &c.parts[c.part(place{target: target})] // a part is by destination
	s.Lock()
	defer s.Unlock()
	for p := range s.m {
		if p.target == target {
			delete(s.m, p)
		}
	}
}
