package pool

import (
	"fmt"
	"net/netip"
	"strings"
)

// Class is what kind of mail it is, as far as pools tell it apart.
type Class uint8

// The classes.
const (
	Usual     Class = iota
	Bounce          // with a null sender
	Risk            // that the filter would not let leave beside the user's good mail
	Forwarded       // that its user only passes on
)

// Primary is the name of the pool of all who have no other.
const Primary = "primary"

// Definition is one pool and whose mail leaves through it (DIP1, DIP4).
type Definition struct {
	Name      string
	Addresses []Address
	Own       bool     // the customer's own address, instead of Addresses
	Users     []string // by name
	Senders   []string // domains in lower case; with a dot before it, every domain below
	Class     Class    // but Usual: of that mail, whoever sends it
}

// Set is all pools of the gateway. It is immutable and safe for concurrent use.
type Set struct {
	pools   map[string]*Pool
	users   map[string]*Pool
	senders map[string]*Pool
	primary *Pool
	classes [Forwarded + 1]*Pool
	known   map[netip.Addr]bool
	inUse   map[netip.Addr]bool
	below   bool // some sender begins with a dot
}

// NewSet makes the pools. An address that is out, for which use is false, is in none of them; where all of a family are out
// they stay, so that nothing leaves by a way nobody meant: whoever connects is to ask the gate. Use may be nil.
func NewSet(defs []Definition, use func(netip.Addr) bool) (*Set, error) {
	s := &Set{pools: map[string]*Pool{}, users: map[string]*Pool{}, senders: map[string]*Pool{}, known: map[netip.Addr]bool{}, inUse: map[netip.Addr]bool{}}
	for _, d := range defs {
		if s.pools[d.Name] != nil {
			return nil, fmt.Errorf("could not make the pool %q: it is there already; give it another name", d.Name)
		}
		p, err := New(usable(d.Addresses, use)...)
		if err != nil {
			return nil, err
		}
		p.set, p.own = s, d.Own
		s.pools[d.Name] = p
		for _, a := range d.Addresses {
			s.known[a.IP.Unmap()] = true
		}
		for ip := range p.all {
			s.inUse[ip] = true
		}
		for _, u := range d.Users {
			s.users[u] = p
		}
		for _, domain := range d.Senders {
			s.senders[strings.ToLower(domain)] = p
			s.below = s.below || strings.HasPrefix(domain, ".")
		}
		if d.Class != Usual {
			s.classes[d.Class] = p
		}
	}
	if s.pools[Primary] == nil {
		s.pools[Primary] = &Pool{set: s}
	}
	s.primary = s.pools[Primary]
	return s, nil
}

// usable returns the addresses that may be used, and all of a family of which none may.
func usable(all []Address, use func(netip.Addr) bool) (out []Address) {
	if use == nil {
		return all
	}
	left := map[bool]bool{}
	for _, a := range all {
		left[a.IP.Unmap().Is4()] = left[a.IP.Unmap().Is4()] || use(a.IP)
	}
	for _, a := range all {
		if use(a.IP) || !left[a.IP.Unmap().Is4()] {
			out = append(out, a)
		}
	}
	return out
}

// Primary is the pool of all who have no other.
func (s *Set) Primary() *Pool { return s.primary }

// Empty tells whether there is no address in any pool, and no pool of customers' own.
func (s *Set) Empty() bool {
	for _, p := range s.pools {
		if !p.Empty() || p.own {
			return false
		}
	}
	return true
}

// Risky is the pool of mail that may only leave by other addresses than the usual mail; nil: there is none.
func (s *Set) Risky() *Pool {
	if s == nil {
		return nil
	}
	return s.classes[Risk]
}

// Forwarded is the pool of forwarded mail, by its sender's domain; nil: it leaves where its user's other mail does. Where
// bounces have a pool, forwarded ones leave through that.
func (s *Set) Forwarded(sender string) *Pool {
	if s == nil || sender == "" && s.classes[Bounce] != nil {
		return nil
	}
	return s.classes[Forwarded]
}

// InUse tells whether some pool has an address in use.
func (p *Pool) InUse(ip netip.Addr) bool {
	if p != nil && p.set != nil {
		return p.set.inUse[ip.Unmap()]
	}
	return p.holds(ip)
}

// Of returns the pool of a user whose mail's sender is not known yet.
func (s *Set) Of(user string) *Pool {
	if p := s.users[user]; p != nil {
		return p
	}
	return s.primary
}

// For returns the pool of a mail, by class, sender's domain, and user, in this order.
func (s *Set) For(user, sender string) *Pool {
	if sender == "" {
		if p := s.classes[Bounce]; p != nil {
			return p
		}
	} else if len(s.senders) > 0 {
		if p := s.sender(strings.ToLower(sender)); p != nil {
			return p
		}
	}
	return s.Of(user)
}

func (s *Set) sender(domain string) *Pool {
	p := s.senders[domain]
	for p == nil && s.below {
		dot := strings.IndexByte(domain, '.')
		if dot < 0 {
			return nil
		}
		p, domain = s.senders[domain[dot:]], domain[dot+1:]
	}
	return p
}

// Own tells whether the mail of the pool leaves from the customers' own addresses.
func (p *Pool) Own() bool { return p != nil && p.own }
