package flow

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// Template says how unknown sources are grouped into users (FEATURES ATT2): by prefix length per family; 0 refuses
// unknown sources of that family.
type Template struct {
	V4, V6 int // 32 and 64 are usual
}

// Prefix returns the group that src falls into.
func (t Template) Prefix(src netip.Addr) (netip.Prefix, bool) {
	bits := t.V6
	if src.Is4() {
		bits = t.V4
	}
	p, err := src.Prefix(bits)
	return p, err == nil && bits > 0
}

// Maker gives an unknown prefix to a user, as the store knows or makes him. It is asked once per prefix for as long as
// it succeeds; after an error the source stays unknown and is asked for again.
type Maker func(netip.Prefix) (User, error)

// maxMade bounds the users that one process makes from the template: as many as the source table may hold (ATT1).
const maxMade = 1 << 20

// Attribution is the Attributor of a running proxy: a table that can be replaced at any moment, then the template.
type Attribution struct {
	table    atomic.Pointer[Table]
	template Template
	maker    Maker

	made  sync.Map   // netip.Prefix -> User; read without a lock
	mu    sync.Mutex // one maker at a time, so that a prefix never becomes two users
	count int
}

// NewAttribution starts with a table (nil is empty). A nil maker refuses unknown sources.
func NewAttribution(t *Table, template Template, maker Maker) *Attribution {
	a := &Attribution{template: template, maker: maker}
	a.Replace(t)
	return a
}

// Replace puts another table in force for the next flow; nil is the empty one.
func (a *Attribution) Replace(t *Table) {
	if t == nil {
		t = new(Table)
	}
	a.table.Store(t)
}

// Attribute returns the user of src: by the table, else by the template. It may wait for the store when src is seen for
// the first time.
func (a *Attribution) Attribute(src netip.Addr) (User, bool) {
	src = src.Unmap().WithZone("")
	if u, ok := a.table.Load().Attribute(src); ok {
		return u, true
	}
	p, ok := a.template.Prefix(src)
	if !ok || a.maker == nil {
		return User{}, false
	}
	if u, ok := a.made.Load(p); ok {
		return u.(User), true
	}
	return a.make(p)
}

func (a *Attribution) make(p netip.Prefix) (User, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if u, ok := a.made.Load(p); ok {
		return u.(User), true
	}
	if a.count >= maxMade {
		return User{}, false
	}
	u, err := a.maker(p)
	if err != nil {
		return User{}, false // the maker has reported it; the flow is treated as unknown, never guessed
	}
	u.Prefix, u.Made = p, true
	a.made.Store(p, u)
	a.count++
	return u, true
}

// Forget drops a user made from the template, so that the store is asked again.
func (a *Attribution) Forget(p netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.made.LoadAndDelete(p); ok {
		a.count--
	}
}
