package main

import (
	"context"

	"sluice/cmd/internal/store"
	"sluice/filter/policy"
	"sluice/intercept/control"
)

// madeSource is a user made for an unknown source as the kernel knows him: he has what unknown sources have.
func (d *daemon) madeSource(u policy.Listed) (s control.Source, ok bool) {
	if len(u.Prefixes) == 0 {
		return s, false
	}
	s = control.Source{Prefix: u.Prefixes[0], User: u.ID}
	s.Mode, s.Until = d.rules.Load().at(s.Prefix)
	return s, s.Fail.UnmarshalText([]byte(d.roster.Load().fail)) == nil
}

// allSources is everybody, those known by name and those made for unknown sources, and every prefix that has a mode.
func (d *daemon) allSources(r *roster) []control.Source {
	rules := d.rules.Load()
	left := rules.prefixes()
	var all []control.Source
	add := func(s control.Source) {
		if len(all) < control.MaxEntries {
			s.Mode, s.Until = rules.at(s.Prefix)
			delete(left, s.Prefix)
			all = append(all, s)
		}
	}
	for _, m := range r.all() {
		s := control.Source{User: m.ID}
		if s.Fail.UnmarshalText([]byte(m.fail)) != nil {
			continue // index has refused it
		}
		for _, s.Prefix = range m.Prefixes {
			add(s)
		}
	}
	us, err := d.store.Users()
	if err != nil {
		d.log.Error("could not list the users made for unknown sources; the kernel does not count them", "err", err)
	}
	for _, u := range us {
		if s, ok := d.madeSource(u.Listed); ok && u.Origin == store.Template {
			add(s)
		}
	}
	for _, p := range wholeWorld { // where unknown sources have an answered fail mode
		left[p] = true
	}
	for p := range left {
		if s, ok := d.sourceAt(p); ok {
			all = append(all, s)
		}
	}
	return all
}

// enlist tells the kernel of users as they are made.
func (d *daemon) enlist(ctx context.Context) {
	for {
		select {
		case u := <-d.made:
			d.put(ctx, u)
		case <-ctx.Done():
			return
		}
	}
}

// put tells the kernel of one user and of all that wait behind him.
func (d *daemon) put(ctx context.Context, u policy.Listed) {
	d.change.Lock() // so that a mode which changes meanwhile is told after this one, not before
	defer d.change.Unlock()
	var ss []control.Source
	for {
		if s, ok := d.madeSource(u); ok {
			ss = append(ss, s)
		}
		if len(ss) < control.MaxPutUsers {
			select {
			case u = <-d.made:
				continue
			default:
			}
		}
		break
	}
	c := d.link.client.Load()
	if c == nil {
		return // told with the whole set when the helper is there again
	}
	ctx, cancel := context.WithTimeout(ctx, helperPatience)
	defer cancel()
	if err := c.PutUsers(ctx, ss...); err != nil && ctx.Err() == nil {
		d.log.Warn("could not tell the kernel of new users", "count", len(ss), "err", err)
	}
}
