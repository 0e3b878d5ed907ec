package relay

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Broken is a destination that offers STARTTLS and with which the handshake fails: mail that may goes there in plain text
// until it is tried again.
type Broken struct {
	Target   netip.AddrPort
	Since    time.Time // first failure in a row
	Last     time.Time
	Again    time.Time // when it is tried again
	Failures int       // in a row, each after its time
	Why      string
	Cert     bool // it wants a certificate, which is not ours to have
}

// Bounds of the memory of broken TLS.
const (
	firstPause = 10 * time.Minute
	mostPause  = 24 * time.Hour
	probeTime  = time.Minute // one session tries again; the others wait for what comes of it
	mostBroken = 1 << 14     // destinations
)

// shakes remembers destinations whose handshake fails. It is safe for concurrent use.
type shakes struct {
	mu   sync.Mutex
	m    map[netip.AddrPort]*Broken
	easy map[netip.AddrPort]time.Time // destinations whose handshake works with little in it, until then
	some atomic.Bool                  // there is anything in m or easy
}

// skip tells whether the destination's handshake is known to fail. After a while one caller is told to try again.
func (h *shakes) skip(target netip.AddrPort, now time.Time) bool {
	if !h.some.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.m[target]
	if b == nil {
		return false
	}
	if now.Before(b.Again) {
		return true
	}
	b.Again = now.Add(probeTime)
	return false
}

// fails tells whether the destination's handshake is known to fail, and is not to be tried now.
func (h *shakes) fails(target netip.AddrPort, now time.Time) bool {
	if !h.some.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.m[target]
	return b != nil && now.Before(b.Again)
}

// failed remembers a failure; each one in a row has the next attempt wait twice as long.
func (h *shakes) failed(target netip.AddrPort, f *Failure, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.m[target]
	switch {
	case b == nil:
		if h.m == nil {
			h.m = map[netip.AddrPort]*Broken{}
		}
		for old := range h.m { // map order is as good as random
			if len(h.m) < mostBroken {
				break
			}
			delete(h.m, old)
		}
		b = &Broken{Target: target, Since: now}
		h.m[target] = b
		h.some.Store(true)
	case now.Sub(b.Last) < firstPause/2: // of sessions that began at once one counts
		return
	}
	b.Last, b.Why, b.Cert = now, f.Text, f.Cert
	if f.Err != nil {
		b.Why = f.Err.Error()
	}
	b.Again = now.Add(min(firstPause<<min(b.Failures, 16), mostPause))
	b.Failures++
}

// wantsCert tells whether the destination's handshake is known to fail for want of a certificate.
func (h *shakes) wantsCert(target netip.AddrPort) bool {
	if !h.some.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.m[target]
	return b != nil && b.Cert
}

// worked forgets what is remembered of a destination; false where that is nothing.
func (h *shakes) worked(target netip.AddrPort) bool {
	if !h.some.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, there := h.m[target]
	delete(h.m, target)
	h.some.Store(len(h.m)+len(h.easy) > 0)
	return there
}

// onlySimple remembers that the destination's handshake works with little in it: without a name that it does not know, or
// the keys of newer exchanges.
func (h *shakes) onlySimple(target netip.AddrPort, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.easy == nil || len(h.easy) >= mostBroken {
		h.easy = map[netip.AddrPort]time.Time{}
	}
	h.easy[target] = now.Add(mostPause)
	h.some.Store(true)
}

// simple tells whether the destination is known for that.
func (h *shakes) simple(target netip.AddrPort, now time.Time) bool {
	if !h.some.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	until, ok := h.easy[target]
	return ok && now.Before(until)
}

// Broken lists the destinations whose handshake fails, the latest first.
func (d *Dialer) Broken() []Broken {
	d.shakes.mu.Lock()
	defer d.shakes.mu.Unlock()
	out := make([]Broken, 0, len(d.shakes.m))
	for _, b := range d.shakes.m {
		out = append(out, *b)
	}
	slices.SortFunc(out, func(x, y Broken) int { return y.Last.Compare(x.Last) })
	return out
}

// TryAgain forgets that a destination's handshake fails, and that it was seen without; false where nothing of the kind is
// remembered.
func (d *Dialer) TryAgain(target netip.AddrPort) bool {
	d.shakes.mu.Lock()
	delete(d.shakes.easy, target)
	d.shakes.mu.Unlock()
	there := d.shakes.worked(target)
	d.cache.dropAll(target)
	return there
}

// Legs counts how sessions were opened, since start.
type Legs struct {
	Encrypted atomic.Uint64
	Plain     atomic.Uint64 // the destination offers nothing else, or nothing else is wanted
	Avoided   atomic.Uint64 // in plain text, since the handshake fails
	Failed    atomic.Uint64 // handshakes that failed
	Refused   atomic.Uint64 // STARTTLS offered and then refused
	Unmet     atomic.Uint64 // not used, since they are not what is required
	Asked     atomic.Uint64 // the destination asked for a certificate of ours
	Resumed   atomic.Uint64 // handshakes that were short
}

// Legs returns the counters.
func (d *Dialer) Legs() *Legs { return &d.legs }
