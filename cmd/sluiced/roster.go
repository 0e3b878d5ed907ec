package main

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"sluice/cmd/internal/config"
	"sluice/cmd/internal/store"
	"sluice/filter/policy"
	"sluice/intercept/control"
	"sluice/intercept/flow"
)

// member is a user as configuration or command made him.
type member struct {
	policy.Listed
	origin store.Origin
	fail   string
	bound  []string // where his packets have to come from
}

// roster is everybody who is known by name. Single users come and go by command; else it is replaced as a whole. Users made
// for unknown sources are not in it; they have one prefix, which is their name.
type roster struct {
	mu      sync.RWMutex
	members []*member // not changed once they are in it
	byID    map[uint32]*member
	byName  map[string]*member
	table   *flow.Table
	fail    string // of whoever has no fail mode of his own, and of unknown sources
	// answered: it is what an operator said at the first step to enforcement.
	answered bool
}

// newRoster stores the configured users, and joins them with those added by command. The settings of the configured
// ones come by id.
func newRoster(st *store.Store, cfg *config.Config) (*roster, map[uint32]policy.Settings, error) {
	listed := make([]policy.Listed, len(cfg.User))
	for i, u := range cfg.User {
		listed[i] = policy.Listed{Name: u.Name, Contact: u.Contact}
		for _, p := range u.Prefixes {
			listed[i].Prefixes = append(listed[i].Prefixes, p.Prefix)
		}
	}
	listed, err := st.EnsureConfigured(listed)
	if err != nil {
		return nil, nil, err
	}
	r := &roster{byID: map[uint32]*member{}, byName: map[string]*member{}, fail: cfg.Intercept.DefaultFail}
	answer, err := st.Fact(failFact)
	if err != nil {
		return nil, nil, err
	}
	if answer != "" && !cfg.Intercept.FailSet {
		r.fail, r.answered = answer, true
	}
	settings := map[uint32]policy.Settings{}
	for i, l := range listed {
		u := &cfg.User[i]
		m := &member{Listed: l, origin: store.Config, fail: u.Fail, bound: bound(u)}
		if !u.FailSet {
			m.fail = r.fail
		}
		r.members = append(r.members, m)
		s := withTLS(userSettings(u.Delivery, u.Auth, u.TLS, &u.Limits, &u.Lock, u.Content), u.StartTLS, u.StartTLSReason)
		s.Language = u.Language
		settings[l.ID] = withKeeping(withSender(withIdentity(s, &u.Identity), &u.Sender), u.Withheld, u.Deferred)
	}
	all, err := st.Users()
	if err != nil {
		return nil, nil, err
	}
	for _, u := range all {
		if u.Origin == store.Command {
			r.members = append(r.members, &member{Listed: u.Listed, origin: u.Origin, fail: r.fail})
		}
	}
	return r, settings, r.index()
}

// index makes everything that is looked up.
func (r *roster) index() error {
	var users []flow.User
	for _, m := range r.members {
		r.byID[m.ID], r.byName[m.Name] = m, m
		if err := new(control.Fail).UnmarshalText([]byte(m.fail)); err != nil {
			return fmt.Errorf("user %s: %w", m.Name, err)
		}
		for _, p := range m.Prefixes {
			users = append(users, flow.User{ID: m.ID, Name: m.Name, Prefix: p})
		}
	}
	var err error
	r.table, err = flow.NewTable(users)
	return err
}

// put adds a user by command, in the place of one of the same name.
func (r *roster) put(l policy.Listed) error {
	r.remove(l.Name)
	m := &member{Listed: l, origin: store.Command, fail: r.fail}
	for _, p := range m.Prefixes {
		if err := r.table.Put(flow.User{ID: m.ID, Name: m.Name, Prefix: p}); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members = append(r.members, m)
	r.byID[m.ID], r.byName[m.Name] = m, m
	return nil
}

// remove takes a user out; one who is not there is no error.
func (r *roster) remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, ok := r.byName[name]
	if !ok {
		return
	}
	for _, p := range m.Prefixes {
		r.table.Delete(p)
	}
	delete(r.byName, name)
	delete(r.byID, m.ID)
	r.members = slices.DeleteFunc(slices.Clone(r.members), func(o *member) bool { return o == m })
}

// all are the users at this moment.
func (r *roster) all() []*member {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.members[:len(r.members):len(r.members)]
}

// user finds somebody by his id, or gives nil.
func (r *roster) user(id uint32) *member {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byID[id]
}

// named finds somebody by his name, or gives nil.
func (r *roster) named(name string) *member {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byName[name]
}

// prefixes are all prefixes of a user known by name.
func (r *roster) prefixes(user uint32) []netip.Prefix {
	if m := r.user(user); m != nil {
		return m.Prefixes
	}
	return nil
}

// settingsOf answers the policy's settings, but none for flows that belong to nobody: the proxy refuses those.
type settingsOf struct{ *policy.Table }

func (s settingsOf) Settings(user uint32) *policy.Settings {
	if user == 0 {
		return nil
	}
	return s.Table.Settings(user)
}
