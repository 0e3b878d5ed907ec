package policy

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Table resolves what a user inherits: the default, then what the configuration file says of the user, then what was
// set at run time. Reads take no lock.
type Table struct {
	resolved atomic.Pointer[resolved]

	mu         sync.Mutex // serialises writers
	configured map[uint32]Settings
	overrides  map[uint32]Overrides
	general    Settings
}

// resolved is immutable once published.
type resolved struct {
	general *Settings
	users   map[uint32]*Settings
}

// NewTable returns a table in which every user has the settings d.
func NewTable(d Settings) *Table {
	t := &Table{general: d, overrides: map[uint32]Overrides{}}
	t.publish()
	return t
}

// Settings returns the effective settings of user. They must not be changed.
func (t *Table) Settings(user uint32) *Settings {
	r := t.resolved.Load()
	if s, ok := r.users[user]; ok {
		return s
	}
	return r.general
}

// SetDefault replaces the settings that users inherit.
func (t *Table) SetDefault(d Settings) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.general = d
	t.publish()
}

// Configure replaces what the configuration file says of users, the whole set at once.
func (t *Table) Configure(users map[uint32]Settings) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.configured = maps.Clone(users)
	t.publish()
}

// Override replaces the overrides of one user; the zero Overrides make the user inherit everything again.
func (t *Table) Override(user uint32, o Overrides) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o == (Overrides{}) {
		delete(t.overrides, user)
	} else {
		t.overrides[user] = o
	}
	t.publish()
}

// OverrideAll replaces the overrides of all users.
func (t *Table) OverrideAll(all map[uint32]Overrides) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.overrides = map[uint32]Overrides{}
	for user, o := range all {
		if o != (Overrides{}) {
			t.overrides[user] = o
		}
	}
	t.publish()
}

// publish resolves every user that has settings of its own. Writers are people, so the whole map is made anew.
func (t *Table) publish() {
	general := t.general
	r := &resolved{general: &general, users: make(map[uint32]*Settings, len(t.configured)+len(t.overrides))}
	for user, s := range t.configured {
		r.users[user] = &s
	}
	for user, o := range t.overrides {
		base, ok := r.users[user]
		if !ok {
			base = &general
		}
		s := o.Apply(*base)
		r.users[user] = &s
	}
	t.resolved.Store(r)
}
