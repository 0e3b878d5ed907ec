package control

import (
	"net/netip"
	"time"
)

// Holds is what is true of a prefix as far as no longer one says otherwise.
type Holds struct {
	Owner Source       // of the longest prefix that is somebody's; zero where none is
	Fail  Fail         // the owner's
	Mode  Mode         // of the longest prefix that has one; 0 where none does
	From  netip.Prefix // that prefix
}

// HoldsFor joins who answers with what happens: each is looked for by itself, from the longest prefix around p to the
// widest, and a mode does not ask whose prefix it stands at. Where two tables speak of the same prefix the first one
// counts. The kernel's table is this for every prefix that occurs in any of them; so what its look-up by longest prefix
// finds for an address is what HoldsFor says of it.
func HoldsFor(p netip.Prefix, tables ...*Prefixes[Source]) (h Holds) {
	f := family(p)
	for bits := p.Bits(); bits >= 0 && (h.Owner.Fail == 0 || h.Mode == 0); bits-- {
		q, masked := p, false
		for _, t := range tables {
			if t.length[f][bits] == 0 {
				continue
			}
			if !masked {
				var err error
				if q, err = p.Addr().Prefix(bits); err != nil {
					return h // p has no address
				}
				masked = true
			}
			s, ok := t.at[q]
			if !ok {
				continue
			}
			if h.Owner.Fail == 0 && s.Fail != 0 {
				h.Owner, h.Fail = s, s.Fail
			}
			if h.Mode == 0 && s.Mode != 0 {
				h.Mode, h.From = s.Mode, q
			}
		}
	}
	return h
}

// Exemptions are exemptions by destination.
type Exemptions struct {
	by Prefixes[[]Exemption] // of one prefix: one for each port
}

// NewExemptions joins lists; where two speak of the same prefix and port the first one counts, unless it is over.
func NewExemptions(now time.Time, lists ...[]Exemption) *Exemptions {
	e := new(Exemptions)
	for _, list := range lists {
		for _, x := range list {
			if !x.Over(now) && !e.has(x.Prefix, x.Port) {
				xs, _ := e.by.Get(x.Prefix)
				e.by.Put(x.Prefix, append(xs, x))
			}
		}
	}
	return e
}

func (e *Exemptions) has(p netip.Prefix, port uint16) bool {
	xs, _ := e.by.Get(p)
	for _, x := range xs {
		if x.Port == port {
			return true
		}
	}
	return false
}

// Towards is the mode for a destination, as the kernel finds it: the longest prefix wins; with equal ones the one with a
// port. It is 0 where no exemption holds.
func (e *Exemptions) Towards(to netip.AddrPort, now time.Time) Mode {
	return e.around(netip.PrefixFrom(to.Addr(), to.Addr().BitLen()), to.Port(), now)
}

// modeAround is the mode of all of p towards a port, or towards ports that no exemption names where it is 0, as long as
// none that held when e was made is over.
func (e *Exemptions) modeAround(p netip.Prefix, port uint16) Mode {
	return e.around(p, port, time.Time{})
}

func (e *Exemptions) around(p netip.Prefix, port uint16, now time.Time) Mode {
	for _, xs := range e.by.Around(p) {
		mode := Mode(0)
		for i := range xs {
			x := &xs[i]
			if x.Over(now) || x.Port != 0 && x.Port != port {
				continue
			}
			if mode = x.Mode; x.Port != 0 {
				break
			}
		}
		if mode != 0 {
			return mode
		}
	}
	return 0
}

// List returns all, in no order.
func (e *Exemptions) List() []Exemption {
	var all []Exemption
	for _, xs := range e.by.All() {
		all = append(all, xs...)
	}
	return all
}
