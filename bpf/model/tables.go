package model

import (
	"net/netip"
	"slices"
)

// Mode is what happens to a fresh connection; a larger one is not always a stricter one.
type Mode int

// The modes.
const (
	None Mode = iota
	Pass
	Observe
	Shadow
	Intercept
	Reject
	Drop
)

// Source is a prefix of customers.
type Source struct {
	Prefix      netip.Prefix // the zero prefix: whoever stands nowhere
	User        uint32
	Owner       netip.Prefix // the user's own prefix, where Prefix only lies in it; zero: Prefix is
	Mode        Mode
	Closed      bool // while the proxy is away: wait, then reset
	ReversePath bool
	Ifindex     uint32 // 0: any
	MAC         []byte // nil: any
	PerSecond   uint64 // connections that the proxy gets from the user, or from a host that is nobody's; 0: all
}

// Exemption overrides a source's mode towards a destination.
type Exemption struct {
	Prefix netip.Prefix
	Port   uint16 // 0: every mail port
	Mode   Mode
	Until  uint64 // 0: for good
}

// Lock closes a prefix of sources.
type Lock struct {
	Prefix    netip.Prefix
	User      uint32
	Budget    uint64
	KeepFlows bool
	Until     uint64 // 0: for good
}

// Bypass opens a way around the proxy; the zero prefix is everybody.
type Bypass struct {
	Prefix netip.Prefix
	Until  uint64
}

// Port is a mail port beside 25 at one interface, or at all (0).
type Port struct {
	Ifindex uint32
	Port    uint16
	Mode    Mode // None: like 25; Pass or Reject: never opened
}

// Tables are what the operator and the daemons wrote. Times are nanoseconds of one clock.
type Tables struct {
	Intercept, Judged uint32 // the two marks
	ReversePath       bool
	Unknown           Source
	Ports             []Port
	Sources           []Source
	Exemptions        []Exemption
	Locks             []Lock
	LockExempt        []netip.Prefix
	Bypasses          []Bypass
	Local, Delivery   []netip.Prefix

	Start        uint64 // of the data path
	Beat         uint64 // last one, 0: never
	RestartUntil uint64
	Listener     bool // the slot is filled
}

func inside(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return holds(p, a) })
}

// holds takes an IPv4-mapped address for the IPv6 address it is.
func holds(p netip.Prefix, a netip.Addr) bool {
	if !p.IsValid() || p.Addr().Is4() != a.Is4() {
		return false
	}
	m, err := a.Prefix(p.Bits())
	return err == nil && m == p
}

func live(until, now uint64) bool { return until == 0 || until > now }

// source is that of the longest prefix.
func (t *Tables) source(a netip.Addr) Source {
	best := t.Unknown
	best.Prefix = netip.Prefix{}
	for _, s := range t.Sources {
		if holds(s.Prefix, a) && (!best.Prefix.IsValid() || s.Prefix.Bits() > best.Prefix.Bits()) {
			best = s
		}
	}
	return best
}

// length is that of the prefix by which a source is known: an unknown one's is 0.
func (s Source) length() int { return max(s.Prefix.Bits(), 0) }

// owned is the length of the user's own prefix: nobody's is 0.
func (s Source) owned() int {
	if s.Owner.IsValid() {
		return s.Owner.Bits()
	}
	return s.length()
}

// maxExpired is how many expired prefixes inside each other are passed over before nothing is found.
const maxExpired = 4

// longestLive is the entry of the longest prefix that has not expired.
func longestLive[E any](list []E, get func(E) (netip.Prefix, uint64), a netip.Addr, now uint64) (best E, found bool) {
	var around []E
	for _, e := range list {
		if p, _ := get(e); holds(p, a) {
			around = append(around, e)
		}
	}
	slices.SortFunc(around, func(x, y E) int {
		p, _ := get(x)
		q, _ := get(y)
		return q.Bits() - p.Bits()
	})
	for i, e := range around {
		if _, until := get(e); i < maxExpired && live(until, now) {
			return e, true
		}
	}
	return best, false
}

// mode is the source's towards a destination: the longest live exemption, and of two equally long the one with the port.
func (t *Tables) mode(s Source, dst netip.Addr, port uint16, now uint64) Mode {
	with := func(port uint16) (Exemption, bool) {
		var list []Exemption
		for _, e := range t.Exemptions {
			if e.Port == port {
				list = append(list, e)
			}
		}
		return longestLive(list, func(e Exemption) (netip.Prefix, uint64) { return e.Prefix, e.Until }, dst, now)
	}
	one, exact := with(port)
	all, general := with(0)
	switch {
	case exact && (!general || one.Prefix.Bits() >= all.Prefix.Bits()):
		return one.Mode
	case general:
		return all.Mode
	}
	return s.Mode
}

// lock is the one in force on an address, whoever is meant by it.
func (t *Tables) lock(a netip.Addr, now uint64) (Lock, bool) {
	return longestLive(t.Locks, func(l Lock) (netip.Prefix, uint64) { return l.Prefix, l.Until }, a, now)
}

// means: a longer source prefix inside the locked one belongs to somebody else, unless it is the same user's.
func (l Lock) means(s Source) bool {
	return l.Prefix.Bits() >= s.owned() || s.User != 0 && s.User == l.User
}

func (t *Tables) bypassed(a netip.Addr, now uint64) bool {
	return slices.ContainsFunc(t.Bypasses, func(b Bypass) bool {
		return b.Until > now && (b.Prefix == (netip.Prefix{}) || holds(b.Prefix, a))
	})
}

// portMode is the rule of a port at an interface; unknown ports are not opened there.
func (t *Tables) portMode(ifindex uint32, port uint16) (mode Mode, known bool) {
	if port == 25 {
		return None, true
	}
	for _, at := range []uint32{ifindex, 0} {
		for _, r := range t.Ports {
			if r.Port == port && r.Ifindex == at {
				return r.Mode, true
			}
		}
	}
	return None, false
}
