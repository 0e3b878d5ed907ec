package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/filter/policy"
	"sluice/filter/sender"
)

// loadAddresses puts the lists of the store in force.
func (d *daemon) loadAddresses() error {
	all, err := d.store.Addresses()
	if err == nil {
		d.addresses.Set(all)
	}
	return err
}

// Addresses lists who is allowed or blocked.
func (b backend) Addresses(context.Context) ([]api.ListedAddress, error) {
	all, err := b.d.store.Addresses()
	if err != nil {
		return nil, err
	}
	g := b.d.groups.Load()
	list := make([]api.ListedAddress, len(all))
	for i := range all {
		list[i] = b.shownAddress(&all[i], g)
	}
	return list, nil
}

func (b backend) shownAddress(e *sender.Entry, g *groupsNow) api.ListedAddress {
	a := api.ListedAddress{ID: e.ID, List: "sender", Action: "allow", Pattern: e.Pattern, Skips: e.Skips, Reason: e.Reason, By: e.By, Since: &e.Since}
	if e.Recipient {
		a.List = "recipient"
	}
	if e.Block {
		a.Action = "block"
	}
	a.Until = moment(e.Until)
	switch e.Scope {
	case policy.OfUser:
		a.User = b.anyName(e.Of)
	case policy.OfAccount:
		if one := g.byID(e.Of); one != nil {
			a.Account = one.Name
		}
	}
	return a
}

// PutAddress allows or blocks, from the next message on.
func (b backend) PutAddress(_ context.Context, who string, a api.ListedAddress) (*api.ListedAddress, error) {
	d := b.d
	d.change.Lock()
	defer d.change.Unlock()
	if d.retired() {
		return nil, errRetired
	}
	g := d.groups.Load()
	e := sender.Entry{Recipient: a.List == "recipient", Block: a.Action == "block", Pattern: a.Pattern, Scope: policy.OfNetwork, Skips: slices.Clone(a.Skips),
		Reason: a.Reason, By: who, Since: time.Now().UTC().Truncate(time.Microsecond)}
	if a.Until != nil {
		e.Until = a.Until.UTC()
	}
	switch {
	case a.User != "":
		m, err := b.find(a.User)
		if err != nil {
			return nil, err
		}
		e.Scope, e.Of = policy.OfUser, m.ID
	case a.Account != "":
		e.Scope = policy.OfAccount
		if err := g.attach(&a.Account, policy.Account, &e.Of); err != nil {
			return nil, err
		}
	}
	if err := e.Validate(); err != nil {
		return nil, badSetting(err)
	}
	act := store.Act{Who: who, What: a.List + " " + a.Action + "ed", Subject: e.Pattern, Detail: fmt.Sprint(a.User, a.Account, " ", a.Skips, " ", e.Reason)}
	e, err := d.store.PutAddress(e, act)
	if err != nil {
		return nil, err
	}
	d.log.Info(act.What, "pattern", e.Pattern, "reason", e.Reason, "by", who)
	shown := b.shownAddress(&e, g)
	return &shown, d.loadAddresses()
}

// RemoveAddress removes an entry.
func (b backend) RemoveAddress(_ context.Context, who string, id int64, reason string) (*api.ListedAddress, error) {
	d := b.d
	d.change.Lock()
	defer d.change.Unlock()
	if d.retired() {
		return nil, errRetired
	}
	all, err := d.store.Addresses()
	if err != nil {
		return nil, err
	}
	g := d.groups.Load()
	i := slices.IndexFunc(all, func(e sender.Entry) bool { return e.ID == id })
	if i < 0 {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-entry", What: fmt.Sprintf("there is no entry %d", id), Remedy: "`sluice addresses` lists all"}
	}
	shown := b.shownAddress(&all[i], g)
	return &shown, errors.Join(d.store.RemoveAddress(id, store.Act{Who: who, What: "entry of a list removed", Subject: all[i].Pattern, Detail: reason}), d.loadAddresses())
}
