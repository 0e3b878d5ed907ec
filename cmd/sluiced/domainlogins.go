package main

import (
	"strings"
	"time"

	"sluice/cmd/internal/store"
)

// domainLogins sees to it that each domain of a user (from_domains) has a login at the smarthost (ATT3), which lets nobody in
// before it is given a password. One without a password whose domain is nobody's any more goes. d.change is held, but at the
// start.
func (d *daemon) domainLogins() {
	set := &d.cfg.Load().Smarthost
	if !set.DomainLogins || len(set.Listener) == 0 || d.retired() {
		return
	}
	owners := d.domainOwners()
	there := *d.logins.byName.Load()
	now, changed := time.Now(), false
	note := func(err error) {
		if changed = true; err != nil {
			d.log.Error("could not make a login for each domain", "err", err)
		}
	}
	for domain, user := range owners {
		a, ok := there[domain]
		if ok && (a.Hash != "" || a.Own != nil || a.User == user) || user == 0 {
			continue
		}
		note(d.store.PutLogin(store.Login{Name: domain, User: user, Created: now, Changed: now}, store.Act{At: now, Who: "sluiced", What: "login added", Subject: domain, Detail: "for a user's domain; it has no password yet"}))
	}
	for name, a := range there {
		if a.Hash == "" && a.Own == nil && owners[name] == 0 {
			note(d.store.RemoveLogin(name, store.Act{At: now, Who: "sluiced", What: "login removed", Subject: name, Detail: "the domain is no user's any more, and it never had a password"}))
		}
	}
	if changed {
		if err := d.logins.load(d.store); err != nil {
			d.log.Error("could not read the logins", "err", err)
		}
	}
}

// domainOwners are the users of domains by name; 0 where several have the same.
func (d *daemon) domainOwners() map[string]uint32 {
	owners := map[string]uint32{}
	for _, m := range d.roster.Load().all() {
		s := d.policy.Settings(m.ID)
		if s == nil || s.Sender.Domains == nil {
			continue
		}
		for _, domain := range *s.Sender.Domains {
			if strings.HasPrefix(domain, ".") {
				continue
			}
			if u, ok := owners[domain]; ok && u != m.ID {
				owners[domain] = 0
				continue
			}
			owners[domain] = m.ID
		}
	}
	return owners
}
