package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/cmd/internal/store"
	"sluice/filter/policy"
)

// groupsNow are accounts, plans and the network with their members. It is never changed: a change makes another one.
type groupsNow struct {
	all     []policy.Group
	members map[uint32]uint32
}

// setGroups puts groups in force that the store has.
func (d *daemon) setGroups(g *groupsNow) {
	d.groups.Store(g)
	d.policy.Group(g.all, maps.Clone(g.members))
}

// with are the groups with one that is new, or in the place of the one of its kind and name.
func (g *groupsNow) with(one policy.Group) *groupsNow {
	return &groupsNow{append(g.without(&one), one), g.members}
}

func (g *groupsNow) without(one *policy.Group) []policy.Group {
	return slices.DeleteFunc(slices.Clone(g.all), func(o policy.Group) bool { return o.Kind == one.Kind && o.Name == one.Name })
}

func (g *groupsNow) named(kind policy.GroupKind, name string) *policy.Group {
	i := slices.IndexFunc(g.all, func(o policy.Group) bool { return o.Kind == kind && o.Name == name })
	if i < 0 {
		return nil
	}
	return &g.all[i]
}

func (g *groupsNow) byID(id uint32) *policy.Group {
	i := slices.IndexFunc(g.all, func(o policy.Group) bool { return o.ID == id })
	if i < 0 {
		return nil
	}
	return &g.all[i]
}

// under tells whether an account is, or stands inside, or has as its plan, the group.
func (g *groupsNow) under(account uint32, of *policy.Group) bool {
	for range len(g.all) + 1 {
		a := g.byID(account)
		if a == nil {
			break
		}
		if a.ID == of.ID || a.Plan == of.ID {
			return true
		}
		account = a.Parent
	}
	return false
}

func (g *groupsNow) shown(one *policy.Group) api.Group {
	a := api.Group{Kind: one.Kind.String(), Name: one.Name, Contact: one.Contact, Settings: one.Settings.Flat(), Most: one.Most}
	budget := policy.Overrides{Limits: &one.Budget}
	a.Budget = budget.Flat()
	if p := g.byID(one.Parent); p != nil {
		a.Parent = p.Name
	}
	if p := g.byID(one.Plan); p != nil {
		a.Plan = p.Name
	}
	for _, account := range g.members {
		if one.Kind == policy.Network || g.under(account, one) {
			a.Users++
		}
	}
	return a
}

// Groups lists accounts, plans and the network.
func (b backend) Groups(context.Context) ([]api.Group, error) {
	g := b.d.groups.Load()
	list := make([]api.Group, len(g.all))
	for i := range g.all {
		list[i] = g.shown(&g.all[i])
	}
	slices.SortFunc(list, func(x, y api.Group) int { return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Name, y.Name)) })
	return list, nil
}

// PutGroup makes or changes a group, or tells whom that would hit.
func (b backend) PutGroup(_ context.Context, who string, r api.GroupRequest) (*api.GroupPlan, error) {
	d := b.d
	d.change.Lock()
	defer d.change.Unlock()
	if d.retired() {
		return nil, errRetired
	}
	g := d.groups.Load()
	for k, v := range r.Set {
		if err := d.permits(k, v); err != nil {
			return nil, err
		}
	}
	now, err := g.changed(&r)
	if err != nil {
		return nil, err
	}
	before, after := d.policy.With(g.all, g.members), g.with(*now)
	plan := &api.GroupPlan{}
	if !r.Dry {
		act := store.Act{Who: who, What: r.Kind + " changed", Subject: r.Name, Detail: detailOf(r.Set, nil) + " budget " + detailOf(r.Budget, nil) + " " + r.Reason}
		if *now, err = d.store.PutGroup(*now, act); err != nil {
			return nil, err
		}
		after = g.with(*now)
		d.setGroups(after) // first: it is in force before anybody counts
		plan.Done = true
	}
	plan.Hit, plan.Users = d.hit(before, d.policy.With(after.all, after.members), after, now)
	if plan.Done {
		d.log.Info(r.Kind+" changed", "name", r.Name, "users", plan.Hit, "by", who)
	}
	plan.Group = after.shown(now)
	return plan, nil
}

// changed is a group after a change; what it was stays in g.
func (g *groupsNow) changed(r *api.GroupRequest) (*policy.Group, error) {
	kind, err := policy.ParseGroupKind(r.Kind)
	if err != nil {
		return nil, badSetting(err)
	}
	now := policy.Group{Kind: kind, Name: r.Name}
	if old := g.named(kind, r.Name); old != nil {
		now = *old
	}
	if (r.Parent != nil || r.Plan != nil) && kind != policy.Account {
		return nil, badSetting(fmt.Errorf("a %s has neither parent nor plan; accounts have", kind))
	}
	if err := g.attach(r.Parent, policy.Account, &now.Parent); err != nil {
		return nil, err
	}
	if r.Contact != nil {
		if kind != policy.Account || *r.Contact != "" && !config.Mailbox(*r.Contact) {
			return nil, badSetting(fmt.Errorf("%q is not the mailbox of an account; write it like owner@customer.example, with kind account", *r.Contact))
		}
		now.Contact = *r.Contact
	}
	if err := g.attach(r.Plan, policy.Plan, &now.Plan); err != nil {
		return nil, err
	}
	if p := g.byID(now.Parent); p != nil && now.ID != 0 && (p.ID == now.ID || g.under(p.ID, &now)) {
		return nil, badSetting(fmt.Errorf("account %s stands inside of %s; an account cannot be inside of itself", p.Name, now.Name))
	}
	for _, k := range slices.Sorted(maps.Keys(r.Set)) {
		if err := putOrUnset(&now.Settings, k, r.Set[k]); err != nil {
			return nil, err
		}
	}
	budget := policy.Overrides{}
	if len(now.Budget) > 0 {
		budget.Limits = &now.Budget
	}
	for _, k := range slices.Sorted(maps.Keys(r.Budget)) {
		if err := putOrUnset(&budget, k, r.Budget[k]); err != nil {
			return nil, err
		}
	}
	if rest := (policy.Overrides{Limits: budget.Limits}); budget != rest {
		return nil, badSetting(fmt.Errorf("a budget has limits only; known are those of `sluice settings keys` that count messages, recipients or bytes"))
	}
	if now.Budget = nil; budget.Limits != nil {
		now.Budget = *budget.Limits
	}
	if r.Most != nil {
		now.Most = *r.Most
	}
	if err := now.Validate(); err != nil {
		return nil, badSetting(err)
	}
	return &now, g.with(now).fits()
}

func putOrUnset(o *policy.Overrides, k, v string) error {
	err := o.Put(k, v)
	if v == "" {
		err = o.Unset(k)
	}
	if err != nil {
		return badSetting(err)
	}
	return nil
}

// attach finds a group by its name; an empty one is none, nil leaves what is there.
func (g *groupsNow) attach(name *string, kind policy.GroupKind, to *uint32) error {
	if name == nil {
		return nil
	}
	if *to = 0; *name == "" {
		return nil
	}
	one := g.named(kind, *name)
	if one == nil {
		return &api.Problem{Status: http.StatusNotFound, Code: "no-such-group", What: fmt.Sprintf("there is no %s %q", kind, *name), Remedy: "`sluice accounts` lists all; make it first"}
	}
	*to = one.ID
	return nil
}

// hit tells for how many users, and for whom, settings or budgets become others: of those below a group.
func (d *daemon) hit(before, after *policy.Table, g *groupsNow, now *policy.Group) (n int, names []string) {
	type pair struct{ x, y *policy.Settings }
	other := map[pair]bool{} // users of whom nothing is said share their settings
	var concerned []*member
	for _, m := range d.roster.Load().all() {
		if account := g.members[m.ID]; now.Kind == policy.Network || account != 0 && g.under(account, now) {
			concerned = append(concerned, m)
		}
	}
	slices.SortFunc(concerned, func(x, y *member) int { return cmp.Compare(x.ID, y.ID) })
	for _, m := range concerned {
		p := pair{before.Settings(m.ID), after.Settings(m.ID)}
		differ, known := other[p]
		if !known {
			fx, fy := policy.Full(p.x), policy.Full(p.y)
			diff := fx.Beside(&fy)
			differ = !diff.Empty() || !reflect.DeepEqual(p.x.Budgets, p.y.Budgets)
			other[p] = differ
		}
		if !differ {
			continue
		}
		if n++; len(names) < 100 {
			names = append(names, m.Name)
		}
	}
	return n, names
}

// RemoveGroup removes one to which nobody belongs.
func (b backend) RemoveGroup(_ context.Context, who, kind, name, reason string) (*api.Group, error) {
	d := b.d
	d.change.Lock()
	defer d.change.Unlock()
	if d.retired() {
		return nil, errRetired
	}
	k, err := policy.ParseGroupKind(kind)
	if err != nil {
		return nil, badSetting(err)
	}
	g := d.groups.Load()
	one := g.named(k, name)
	if one == nil {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-group", What: fmt.Sprintf("there is no %s %q", kind, name), Remedy: "`sluice accounts` lists all"}
	}
	shown := g.shown(one)
	if err := d.store.RemoveGroup(one.ID, store.Act{Who: who, What: kind + " removed", Subject: name, Detail: reason}); err != nil {
		return nil, &api.Problem{Status: http.StatusConflict, Code: "refused", What: err.Error()}
	}
	d.setGroups(&groupsNow{g.without(one), g.members})
	return &shown, nil
}

// Join moves a user into an account.
func (b backend) Join(_ context.Context, who string, j api.JoinRequest) (*api.Explained, error) {
	d := b.d
	d.change.Lock()
	defer d.change.Unlock()
	if d.retired() {
		return nil, errRetired
	}
	m, err := b.find(j.User)
	if err != nil {
		return nil, err
	}
	g := d.groups.Load()
	var account uint32
	if err := g.attach(&j.Account, policy.Account, &account); err != nil {
		return nil, err
	}
	members := maps.Clone(g.members)
	if delete(members, m.ID); account != 0 {
		members[m.ID] = account
	}
	g = &groupsNow{g.all, members}
	if account != 0 {
		if err := g.fits(); err != nil {
			return nil, err
		}
	}
	if err := d.store.Join(m.ID, account, store.Act{Who: who, What: "account of a user changed", Subject: m.Name, Detail: j.Account + " " + j.Reason}); err != nil {
		return nil, err
	}
	d.groups.Store(g)
	d.policy.Join(m.ID, account)
	return b.explain(m), nil
}
