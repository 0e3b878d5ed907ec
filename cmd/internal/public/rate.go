package public

import (
	"net/netip"
	"sync"
	"time"
)

// mostGuests bounds the addresses that are remembered. Where more come at once, new ones wait.
const mostGuests = 20_000

// rate lets each address do a thing so many times within a time, and slowly more.
type rate struct {
	most  float64
	every time.Duration // in which most of them come back

	mu    sync.Mutex
	seen  map[netip.Prefix]bucket
	swept time.Time
}

type bucket struct {
	left float64
	at   time.Time
}

// newRate allows most times within every.
func newRate(most int, every time.Duration) *rate {
	return &rate{most: float64(most), every: every, seen: map[netip.Prefix]bucket{}}
}

// allow counts one time; of IPv6 a whole /64 is one guest.
func (r *rate) allow(from netip.Addr, now time.Time) bool {
	who := netip.PrefixFrom(from, from.BitLen())
	if from.Is6() && !from.Is4In6() {
		who, _ = from.WithZone("").Prefix(64)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b, known := r.seen[who]
	if !known {
		if len(r.seen) >= mostGuests && !r.sweep(now) {
			return false
		}
		b = bucket{r.most, now}
	}
	b = bucket{r.filled(b, now), now}
	ok := b.left >= 1
	if ok {
		b.left--
	}
	r.seen[who] = b
	return ok
}

func (r *rate) filled(b bucket, now time.Time) float64 {
	return min(r.most, b.left+r.most*float64(now.Sub(b.at))/float64(r.every))
}

// sweep forgets those who may do everything again, at most once a second, and tells whether there is room.
func (r *rate) sweep(now time.Time) bool {
	if now.Sub(r.swept).Abs() < time.Second {
		return false
	}
	r.swept = now
	for who, b := range r.seen {
		if r.filled(b, now) >= r.most {
			delete(r.seen, who)
		}
	}
	return len(r.seen) < mostGuests
}
