package pool

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Fault is what is wrong with a delivery address (DIP3).
type Fault struct {
	Kind FaultKind `json:"kind"`
	Text string    `json:"text"`
}

// FaultKind sorts faults.
type FaultKind string

// The kinds of faults.
const (
	Absent FaultKind = "absent" // not on this host: it sends nothing in any case
	Name   FaultKind = "name"   // PTR, HELO name and A or AAAA do not agree
	Listed FaultKind = "listed" // on a list of bad senders
)

// Condition is what holds for a delivery address.
type Condition struct {
	IP      netip.Addr `json:"address"`
	Checked time.Time  `json:"checked,omitzero"` // the last time there was an answer
	Faults  []Fault    `json:"faults,omitempty"`
	Unsure  string     `json:"-"`                   // what could not be found out in the last check
	Held    string     `json:"suspended,omitempty"` // why a person took it out
	HeldBy  string     `json:"suspended_by,omitempty"`
	Since   time.Time  `json:"since,omitzero"` // that it is out, or in
	Out     bool       `json:"out,omitempty"`
	New     bool       `json:"new,omitempty"` // came to others that were checked before, and was not checked yet: it can wait
	Kept    bool       `json:"-"`             // it has faults, and is in use all the same: too few others would be left
}

// Why tells why an address is out, or would be.
func (c *Condition) Why() string {
	switch {
	case c.Held != "":
		return "suspended by " + c.HeldBy + ": " + c.Held
	case len(c.Faults) > 0:
		return c.Faults[0].Text
	case c.New && c.Out:
		return "not checked yet"
	}
	return ""
}

// has tells whether an address has a fault of a kind.
func (c *Condition) has(k FaultKind) bool {
	return slices.ContainsFunc(c.Faults, func(f Fault) bool { return f.Kind == k })
}

// Gate decides which delivery addresses are in use. An address that is not on this host or that a person suspended is out;
// one with other faults is, as long as half of its family in each of its pools, and at least one, stays in. It is safe for
// concurrent use.
type Gate struct {
	mu    sync.RWMutex
	defs  []Definition
	all   map[netip.Addr]*Condition
	moved func(before, after Condition) // an address went out or came in; may be nil
}

// NewGate returns a gate with what an earlier process knew. Moved hears of each address that goes out or comes in.
func NewGate(known []Condition, moved func(before, after Condition)) *Gate {
	g := &Gate{all: map[netip.Addr]*Condition{}, moved: moved}
	for _, c := range known {
		c.IP = c.IP.Unmap()
		g.all[c.IP] = &c
	}
	return g
}

// Configure takes the pools of a configuration.
func (g *Gate) Configure(defs []Definition, now time.Time) {
	g.change(now, func() {
		g.defs = defs
		there := map[netip.Addr]bool{}
		for _, d := range defs {
			for _, a := range d.Addresses {
				ip := a.IP.Unmap()
				there[ip] = true
				if g.all[ip] == nil {
					g.all[ip] = &Condition{IP: ip, Since: now}
				}
			}
		}
		for ip, c := range g.all {
			c.New = c.New || c.Checked.IsZero() && g.others(ip)
		}
		for ip := range g.all {
			if !there[ip] {
				delete(g.all, ip)
			}
		}
	})
}

// Use tells whether mail may leave from an address.
func (g *Gate) Use(ip netip.Addr) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	c := g.all[ip.Unmap()]
	return c != nil && !c.Out
}

// Get returns what holds for an address.
func (g *Gate) Get(ip netip.Addr) (Condition, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	c := g.all[ip.Unmap()]
	if c == nil {
		return Condition{}, false
	}
	return *c, true
}

// List returns what holds for all addresses, in their order.
func (g *Gate) List() []Condition {
	g.mu.RLock()
	defer g.mu.RUnlock()
	all := make([]Condition, 0, len(g.all))
	for _, c := range g.all {
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b Condition) int { return a.IP.Compare(b.IP) })
	return all
}

// Found takes what a check found. Kinds names what it looked at and had an answer to: faults of other kinds stay. Unsure
// tells what it had no answer to. It tells whether an address went out or came in.
func (g *Gate) Found(ip netip.Addr, kinds []FaultKind, faults []Fault, unsure string, now time.Time) bool {
	return g.change(now, func() {
		c := g.all[ip.Unmap()]
		if c == nil {
			return
		}
		left := slices.DeleteFunc(slices.Clone(c.Faults), func(f Fault) bool { return slices.Contains(kinds, f.Kind) })
		c.Faults = append(left, faults...)
		if len(kinds) == 1 && kinds[0] == Absent {
			return
		}
		if c.Unsure = unsure; len(kinds) > 0 {
			c.Checked, c.New = now, false
		}
	})
}

// Suspend takes an address out for a person, Resume gives it back to the gate. They tell whether there is such an address.
func (g *Gate) Suspend(ip netip.Addr, who, why string, now time.Time) bool {
	_, ok := g.Get(ip)
	g.change(now, func() {
		if c := g.all[ip.Unmap()]; c != nil {
			c.Held, c.HeldBy = why, who
		}
	})
	return ok
}

// Resume ends what Suspend began.
func (g *Gate) Resume(ip netip.Addr, now time.Time) bool {
	_, ok := g.Get(ip)
	g.change(now, func() {
		if c := g.all[ip.Unmap()]; c != nil {
			c.Held, c.HeldBy = "", ""
		}
	})
	return ok
}

// change makes a change and then plans anew which addresses are out; true when there are others than before.
func (g *Gate) change(now time.Time, do func()) bool {
	g.mu.Lock()
	do()
	before := make(map[netip.Addr]Condition, len(g.all))
	for ip, c := range g.all {
		before[ip] = *c
	}
	g.plan()
	var moved [][2]Condition
	for ip, c := range g.all {
		if was := before[ip]; was.Out != c.Out {
			c.Since = now
			moved = append(moved, [2]Condition{was, *c})
		}
	}
	g.mu.Unlock()
	if g.moved != nil {
		for _, m := range moved {
			g.moved(m[0], m[1])
		}
	}
	return len(moved) > 0
}

// plan says which addresses are out. g.mu is held.
func (g *Gate) plan() {
	var doubtful []*Condition
	for _, c := range g.all {
		was := c.Out
		c.Out, c.Kept = c.Held != "" || c.has(Absent), false
		if !c.Out && (len(c.Faults) > 0 || c.New) {
			doubtful = append(doubtful, c)
			c.Kept = was // who was out goes out first
		}
	}
	slices.SortFunc(doubtful, func(a, b *Condition) int {
		if a.Kept != b.Kept {
			return map[bool]int{true: -1, false: 1}[a.Kept]
		}
		return cmp.Or(a.Since.Compare(b.Since), a.IP.Compare(b.IP))
	})
	for _, c := range doubtful {
		c.Out = g.dispensable(c.IP)
		c.Kept = !c.Out
	}
}

// others tells whether an address stands in each of its pools beside one of its family that was checked. g.mu is held.
func (g *Gate) others(ip netip.Addr) bool {
	for _, d := range g.defs {
		mine, checked := false, false
		for _, a := range d.Addresses {
			other := a.IP.Unmap()
			mine = mine || other == ip
			c := g.all[other]
			checked = checked || c != nil && other.Is4() == ip.Is4() && !c.Checked.IsZero()
		}
		if mine && !checked {
			return false
		}
	}
	return true
}

// dispensable tells whether each pool of an address keeps half of its family, and at least one, without it. g.mu is held.
func (g *Gate) dispensable(ip netip.Addr) bool {
	for _, d := range g.defs {
		mine, all, in := false, 0, 0
		for _, a := range d.Addresses {
			other := a.IP.Unmap()
			if other.Is4() != ip.Is4() {
				continue
			}
			all++
			if other == ip {
				mine = true
			} else if c := g.all[other]; c != nil && !c.Out {
				in++
			}
		}
		if mine && (in == 0 || 2*in < all) {
			return false
		}
	}
	return true
}

// Pools names the pools that an address is in.
func (g *Gate) Pools(ip netip.Addr) (names []string) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, d := range g.defs {
		if slices.ContainsFunc(d.Addresses, func(a Address) bool { return a.IP.Unmap() == ip.Unmap() }) {
			names = append(names, d.Name)
		}
	}
	return names
}
