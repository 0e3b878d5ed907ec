package proxy

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"
)

// slowAnswer is from when on a destination is slow: for so long, less memory is worth the half microsecond in which a message
// is moved into it.
const slowAnswer = 20 * time.Millisecond

// paces remembers which destinations were slow to answer a message. Some share a place; it is the last one's then.
type paces [1 << 12]atomic.Bool

func (p *paces) of(at netip.Addr) *atomic.Bool {
	b := at.As16()
	h := (binary.LittleEndian.Uint64(b[:]) ^ binary.LittleEndian.Uint64(b[8:])) * 0x9e3779b97f4a7c15
	return &p[h>>52]
}

// took notes how long a destination took.
func (p *paces) took(at netip.Addr, d time.Duration) {
	place := p.of(at)
	if slow := d >= slowAnswer; place.Load() != slow { // most are as they were, and processors share what is not written
		place.Store(slow)
	}
}

// slow tells whether a destination was slow when it last answered.
func (p *paces) slow(at netip.Addr) bool { return p.of(at).Load() }
