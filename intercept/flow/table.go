package flow

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// Table ties sources to users by longest prefix. Any number of goroutines may use it; single prefixes come and go.
type Table struct {
	mu    sync.RWMutex
	users []User // those at places in spare are nobody's any more
	spare []uint32
	exact map[netip.Addr]uint32 // whole addresses first: they are most of a provider's table
	nets  [2][]level            // by family; longest prefixes first
}

// level holds the prefixes of one length.
type level struct {
	bits  int
	users map[netip.Addr]uint32 // by network address
}

// NewTable builds a table from users, one entry for each prefix; a user with several prefixes stands in it several
// times. A prefix that is not masked, is IPv4 written as IPv6, or stands there twice is an error that names it.
func NewTable(users []User) (*Table, error) {
	t := &Table{users: slices.Clone(users), exact: make(map[netip.Addr]uint32)}
	var nets [2]map[int]map[netip.Addr]uint32
	nets[0], nets[1] = make(map[int]map[netip.Addr]uint32), make(map[int]map[netip.Addr]uint32)
	for i, u := range t.users {
		p := u.Prefix
		if err := plain(u); err != nil {
			return nil, err
		}
		m := t.exact
		if !p.IsSingleIP() {
			f := family(p.Addr())
			if m = nets[f][p.Bits()]; m == nil {
				m = make(map[netip.Addr]uint32)
				nets[f][p.Bits()] = m
			}
		}
		if j, ok := m[p.Addr()]; ok {
			return nil, fmt.Errorf("could not build the source table: users %q and %q both have %v; give it to one", t.users[j].Name, u.Name, p)
		}
		m[p.Addr()] = uint32(i)
	}
	for f, byBits := range nets {
		for bits, m := range byBits {
			t.nets[f] = append(t.nets[f], level{bits, m})
		}
		slices.SortFunc(t.nets[f], func(a, b level) int { return cmp.Compare(b.bits, a.bits) })
	}
	return t, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Len returns the number of prefixes.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.users) - len(t.spare)
}

// Put adds one prefix; the errors are those of NewTable.
func (t *Table) Put(u User) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := u.Prefix
	if err := plain(u); err != nil {
		return err
	}
	if other, ok := t.at(p); ok {
		return fmt.Errorf("could not build the source table: users %q and %q both have %v; give it to one", other.Name, u.Name, p)
	}
	i := uint32(len(t.users))
	if n := len(t.spare); n > 0 {
		i, t.spare = t.spare[n-1], t.spare[:n-1]
		t.users[i] = u
	} else {
		t.users = append(t.users, u)
	}
	t.of(p)[p.Addr()] = i
	return nil
}

// Delete takes one prefix away; one that is not there is no error.
func (t *Table) Delete(p netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.at(p); !ok {
		return
	}
	m := t.of(p)
	i := m[p.Addr()]
	delete(m, p.Addr())
	t.users[i] = User{}
	t.spare = append(t.spare, i)
}

// of is where p stands or would stand. t.mu is held.
func (t *Table) of(p netip.Prefix) map[netip.Addr]uint32 {
	if p.IsSingleIP() {
		if t.exact == nil {
			t.exact = make(map[netip.Addr]uint32)
		}
		return t.exact
	}
	nets := &t.nets[family(p.Addr())]
	i, found := slices.BinarySearchFunc(*nets, p.Bits(), func(l level, bits int) int { return cmp.Compare(bits, l.bits) })
	if !found {
		*nets = slices.Insert(*nets, i, level{p.Bits(), make(map[netip.Addr]uint32)})
	}
	return (*nets)[i].users
}

func plain(u User) error {
	if p := u.Prefix; !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
		return fmt.Errorf("could not build the source table: prefix %v of user %q is not in its plain form", p, u.Name)
	}
	return nil
}

// Exact returns the user who has exactly p among his prefixes.
func (t *Table) Exact(p netip.Prefix) (User, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.at(p)
}

func (t *Table) at(p netip.Prefix) (User, bool) {
	m := t.exact
	if !p.IsSingleIP() {
		i := slices.IndexFunc(t.nets[family(p.Addr())], func(l level) bool { return l.bits == p.Bits() })
		if i < 0 {
			return User{}, false
		}
		m = t.nets[family(p.Addr())][i].users
	}
	if i, ok := m[p.Addr()]; ok {
		return t.users[i], true
	}
	return User{}, false
}

// Around returns the user with the longest prefix that holds all of p.
func (t *Table) Around(p netip.Prefix) (User, bool) {
	if p.IsSingleIP() {
		return t.Attribute(p.Addr())
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, l := range t.nets[family(p.Addr())] {
		if l.bits > p.Bits() {
			continue
		}
		q, err := p.Addr().Prefix(l.bits)
		if err != nil {
			continue // cannot happen: the length is the family's
		}
		if i, ok := l.users[q.Addr()]; ok {
			return t.users[i], true
		}
	}
	return User{}, false
}

// Attribute returns the user with the longest prefix that holds src; false when there is none.
func (t *Table) Attribute(src netip.Addr) (User, bool) {
	src = src.Unmap().WithZone("")
	t.mu.RLock()
	defer t.mu.RUnlock()
	if i, ok := t.exact[src]; ok {
		return t.users[i], true
	}
	if !src.IsValid() {
		return User{}, false
	}
	for _, l := range t.nets[family(src)] {
		p, err := src.Prefix(l.bits)
		if err != nil {
			continue // cannot happen: the length is the family's
		}
		if i, ok := l.users[p.Addr()]; ok {
			return t.users[i], true
		}
	}
	return User{}, false
}
