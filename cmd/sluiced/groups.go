package main

import (
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

// groupsNow are accounts, plans and the network with their members, as the store has them.
type groupsNow struct {
	all     []policy.Group
	members map[uint32]uint32
}

func (d *daemon) groupsNow() (g groupsNow, err error) {
	g.all, g.members, err = d.store.Groups()
	return g, err
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
	g, err := b.d.groupsNow()
	list := make([]api.Group, len(g.all))
	for i := range g.all {
		list[i] = g.shown(&g.all[i])
	}
	return list, err
}

// PutGroup makes or changes a group, or tells whom that would hit.
func (b backend) PutGroup(_ context.Context, who string, r api.GroupRequest) (*api.GroupPlan, error) {
	d := b.d
	d.change.Lock()
	defer d.change.Unlock()
	if d.retired() {
		return nil, errRetired
	}
	g, err := d.groupsNow()
	if err != nil {
		return nil, err
	}
	for k, v := range r.Set {
		if err := d.permits(k, v); err != nil {
			return nil, err
		}
	}
	now, err := g.changed(&r)
	if err != nil {
		return nil, err
	}
	plan := &api.GroupPlan{}
	if plan.Hit, plan.Users, err = b.hit(&g, now); err != nil {
		return nil, err
	}
	if !r.Dry {
		act := store.Act{Who: who, What: r.Kind + " changed", Subject: r.Name, Detail: detailOf(r.Set, nil) + " budget " + detailOf(r.Budget, nil) + " " + r.Reason}
		if *now, err = d.store.PutGroup(*now, act); err != nil {
			return nil, err
		}
		if g, err = d.groupsNow(); err != nil {
			return nil, err
		}
		d.policy.Group(g.all, g.members)
		plan.Done = true
		d.log.Info(r.Kind+" changed", "name", r.Name, "users", plan.Hit, "by", who)
	}
	plan.Group = g.shown(now)
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
	after := groupsNow{append(slices.DeleteFunc(slices.Clone(g.all), func(o policy.Group) bool { return o.Kind == now.Kind && o.Name == now.Name }), now), g.members}
	return &now, after.fits()
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

// hit tells for how many users, and for whom, settings or budgets become others.
func (b backend) hit(g *groupsNow, now *policy.Group) (n int, names []string, err error) {
	others := slices.DeleteFunc(slices.Clone(g.all), func(o policy.Group) bool { return o.Kind == now.Kind && o.Name == now.Name })
	before, after := b.d.policy, b.d.policy.With(append(others, *now), g.members)
	all, err := b.userNames()
	if err != nil {
		return 0, nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		x, y := *before.Settings(id), *after.Settings(id)
		fx, fy := policy.Full(&x), policy.Full(&y)
		if diff := fx.Beside(&fy); diff.Empty() && reflect.DeepEqual(x.Budgets, y.Budgets) {
			continue
		}
		if n++; len(names) < 100 {
			names = append(names, all[id])
		}
	}
	return n, names, nil
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
	g, err := d.groupsNow()
	if err != nil {
		return nil, err
	}
	one := g.named(k, name)
	if one == nil {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-group", What: fmt.Sprintf("there is no %s %q", kind, name), Remedy: "`sluice accounts` lists all"}
	}
	shown := g.shown(one)
	if err := d.store.RemoveGroup(one.ID, store.Act{Who: who, What: kind + " removed", Subject: name, Detail: reason}); err != nil {
		return nil, &api.Problem{Status: http.StatusConflict, Code: "refused", What: err.Error()}
	}
	if g, err = d.groupsNow(); err != nil {
		return nil, err
	}
	d.policy.Group(g.all, g.members)
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
	g, err := d.groupsNow()
	if err != nil {
		return nil, err
	}
	var account uint32
	if err := g.attach(&j.Account, policy.Account, &account); err != nil {
		return nil, err
	}
	if account != 0 {
		g.members[m.ID] = account
		if err := g.fits(); err != nil {
			return nil, err
		}
	}
	if err := d.store.Join(m.ID, account, store.Act{Who: who, What: "account of a user changed", Subject: m.Name, Detail: j.Account + " " + j.Reason}); err != nil {
		return nil, err
	}
	d.policy.Join(m.ID, account)
	return b.explain(m), nil
}
