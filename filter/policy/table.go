package policy

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Table resolves what a user inherits: the default, then his plan and his accounts from the root on, then what the
// configuration file says of him, what was set at run time, and what holds for a time. Reads take no lock, but for a user's
// first behind a change, which resolves him; and a change of one user costs no more than some hundred others.
type Table struct {
	general atomic.Pointer[Settings] // of users of whom nothing is said
	shards  [tableShards]atomic.Pointer[map[uint32]*cell]

	mu         sync.Mutex // serialises writers
	base       Settings
	configured map[uint32]Settings
	overrides  map[uint32]Overrides
	lifts      map[uint32]Overrides
	groups     groups
}

// cell is one user of whom something is said; nil until somebody asks.
type cell struct{ s atomic.Pointer[Settings] }

// tableShards bounds what the change of one user copies.
const tableShards = 512

// NewTable returns a table in which every user has the settings d.
func NewTable(d Settings) *Table {
	t := &Table{base: d, overrides: map[uint32]Overrides{}, lifts: map[uint32]Overrides{}}
	t.publish()
	return t
}

// Settings returns the effective settings of user. They must not be changed.
func (t *Table) Settings(user uint32) *Settings {
	c, ok := (*t.shards[user%tableShards].Load())[user]
	if !ok {
		return t.general.Load()
	}
	if s := c.s.Load(); s != nil {
		return s
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.resolve(user)
	c.s.Store(s)
	return s
}

// SetDefault replaces the settings that users inherit.
func (t *Table) SetDefault(d Settings) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.base = d
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
	put(t.overrides, user, o)
	t.publishOne(user)
}

// Lift replaces what holds for a user for a time, above everything else; the zero Overrides end it.
func (t *Table) Lift(user uint32, o Overrides) {
	t.mu.Lock()
	defer t.mu.Unlock()
	put(t.lifts, user, o)
	t.publishOne(user)
}

func put(m map[uint32]Overrides, user uint32, o Overrides) {
	if o.Empty() {
		delete(m, user)
	} else {
		m[user] = o
	}
}

// OverrideAll replaces the overrides of all users.
func (t *Table) OverrideAll(all map[uint32]Overrides) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.overrides = map[uint32]Overrides{}
	for user, o := range all {
		put(t.overrides, user, o)
	}
	t.publish()
}

// Group replaces accounts, plans and the network, and who belongs where.
func (t *Table) Group(all []Group, members map[uint32]uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.groups = newGroups(all, members)
	t.publish()
}

// With returns a table like this one but with other groups, to see what they would change.
func (t *Table) With(all []Group, members map[uint32]uint32) *Table {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := &Table{base: t.base, configured: t.configured, overrides: maps.Clone(t.overrides), lifts: maps.Clone(t.lifts), groups: newGroups(all, members)}
	w.publish()
	return w
}

// Join makes a user a member of an account, of none for 0.
func (t *Table) Join(user, account uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.groups.members == nil {
		t.groups.members = map[uint32]uint32{}
	}
	if delete(t.groups.members, user); account != 0 {
		t.groups.members[user] = account
	}
	t.publishOne(user)
}

// Contact is the mailbox of who answers for a user's account, or for the one around it; "" where nobody is named.
func (t *Table) Contact(user uint32) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.groups.contact(user)
}

// LongestLock is the longest time for which anybody is locked (LCK2), by whatever is said of users, accounts and plans.
func (t *Table) LongestLock() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	longest := t.base.Lock.Time
	for _, s := range t.configured {
		longest = max(longest, s.Lock.Time)
	}
	said := func(o *Overrides) {
		if o.LockMinutes != nil {
			longest = max(longest, time.Duration(*o.LockMinutes)*time.Minute)
		}
	}
	for _, all := range []map[uint32]Overrides{t.overrides, t.lifts} {
		for _, o := range all {
			said(&o)
		}
	}
	for _, g := range t.groups.byID {
		said(&g.Settings)
	}
	return longest
}

// own tells whether anything is said of a user.
func (t *Table) own(user uint32) bool {
	_, a := t.configured[user]
	_, b := t.overrides[user]
	_, c := t.lifts[user]
	_, d := t.groups.members[user]
	return a || b || c || d
}

// Layer is one place that says something of a user.
type Layer struct {
	Name  string // "default", "plan basic", "account house", "configuration", "run time", "for a time"
	Says  Overrides
	After Settings // with all layers up to this one
}

// layers returns what holds for a user, place by place. t.mu is held.
func (t *Table) layers(user uint32) []Layer {
	ls := []Layer{{Name: "default", Says: Full(&t.base), After: t.base}}
	add := func(name string, o Overrides) {
		if !o.Empty() {
			ls = append(ls, Layer{name, o, o.Apply(ls[len(ls)-1].After)})
		}
	}
	for _, g := range t.groups.of(user) {
		add(g.Kind.String()+" "+g.Name, g.Settings)
	}
	if s, ok := t.configured[user]; ok {
		base, full := Full(&t.base), Full(&s)
		add("configuration", full.Beside(&base))
		ls[len(ls)-1].After.PerSecond = s.PerSecond // root's alone
	}
	add("run time", t.overrides[user])
	add("for a time", t.lifts[user])
	return ls
}

// Explain returns the places that say something of a user, the last of which counts.
func (t *Table) Explain(user uint32) []Layer {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.layers(user)
}

// resolve is what holds for a user.
func (t *Table) resolve(user uint32) *Settings {
	s := t.base
	above := t.groups.of(user)
	for _, g := range above {
		s = g.Settings.Apply(s)
	}
	if c, ok := t.configured[user]; ok {
		if len(above) == 0 {
			s = c
		} else {
			base, full := Full(&t.base), Full(&c)
			own := full.Beside(&base)
			s = own.Apply(s)
			s.PerSecond = c.PerSecond
		}
	}
	if o, ok := t.overrides[user]; ok {
		s = o.Apply(s)
	}
	if o, ok := t.lifts[user]; ok {
		s = o.Apply(s)
	}
	s.Budgets, s.Accounts = t.groups.budgets(user), t.groups.accounts(user)
	return &s
}

// publishOne resolves one user anew.
func (t *Table) publishOne(user uint32) {
	p := &t.shards[user%tableShards]
	m := maps.Clone(*p.Load())
	if delete(m, user); t.own(user) {
		c := &cell{}
		c.s.Store(t.resolve(user))
		m[user] = c
	}
	p.Store(&m)
}

// publish has everybody of whom something is said resolved anew.
func (t *Table) publish() {
	general := t.base
	general.Budgets = t.groups.budgets(0)
	var ms [tableShards]map[uint32]*cell
	for i := range ms {
		ms[i] = map[uint32]*cell{}
	}
	for _, said := range []map[uint32]Overrides{t.overrides, t.lifts} {
		for user := range said {
			ms[user%tableShards][user] = &cell{}
		}
	}
	for user := range t.configured {
		ms[user%tableShards][user] = &cell{}
	}
	for user := range t.groups.members {
		ms[user%tableShards][user] = &cell{}
	}
	t.general.Store(&general)
	for i := range ms {
		t.shards[i].Store(&ms[i])
	}
}
