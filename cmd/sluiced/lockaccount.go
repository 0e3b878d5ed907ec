package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/filter/lock"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// inAccount are the users of an account and of those inside it.
func (b backend) inAccount(name string) ([]*member, error) {
	g := b.d.groups.Load()
	one := g.named(policy.Account, name)
	if one == nil {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-group", What: fmt.Sprintf("there is no account %q", name), Remedy: "`sluice accounts` lists all"}
	}
	var all []*member
	for user, account := range g.members {
		if !g.under(account, one) {
			continue
		}
		if m := b.d.roster.Load().user(user); m != nil { // one that was removed keeps his place
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(x, y *member) int { return int(x.ID) - int(y.ID) })
	return all, nil
}

// LockHits tells whom a lock of an account or a user would stop (LCK6).
func (b backend) LockHits(_ context.Context, account, user string) ([]api.LockHit, error) {
	var all []*member
	var err error
	if account != "" {
		all, err = b.inAccount(account)
	} else {
		all = make([]*member, 1)
		all[0], err = b.toLock(user)
	}
	if err != nil {
		return nil, err
	}
	open, hits := b.openFlows(), make([]api.LockHit, len(all))
	for i, m := range all {
		h := api.LockHit{User: m.Name, Flows: open[m.ID], Never: b.d.policy.Settings(m.ID).Lock.Never}
		h.Ticket, _ = b.d.locks.Locked(m.ID)
		for _, e := range b.d.identities.List(m.ID) {
			if time.Since(e.Last) < 24*time.Hour {
				h.Identities = append(h.Identities, e.Name)
			}
		}
		slices.Sort(h.Identities)
		hits[i] = h
	}
	return hits, nil
}

// LockAccount locks each user of an account. Who is never to be locked, or is locked already, stays as he is.
func (b backend) LockAccount(_ context.Context, who string, r api.AccountLock) (*api.AccountLocked, error) {
	all, err := b.inAccount(r.Account)
	if err != nil {
		return nil, err
	}
	out := &api.AccountLocked{Account: r.Account, Locks: []api.Lock{}}
	for _, m := range all {
		if ticket, locked := b.d.locks.Locked(m.ID); locked {
			out.Left = append(out.Left, m.Name+": is locked already, ticket "+ticket)
			continue
		}
		u := flow.User{ID: m.ID, Name: m.Name, Made: m.origin == store.Template}
		if len(m.Prefixes) > 0 {
			u.Prefix = m.Prefixes[0]
		}
		l, err := b.d.locks.Lock(u, lock.Request{Who: who, Reason: r.Reason, Account: r.Account, Time: time.Duration(r.Seconds) * time.Second})
		if err != nil {
			out.Left = append(out.Left, m.Name+": "+err.Error())
			continue
		}
		out.Locks = append(out.Locks, *b.warned(shownLock(&l)))
	}
	b.d.log.Warn("an account was locked", "account", r.Account, "users", len(out.Locks), "left", len(out.Left), "by", who)
	return out, b.d.store.Audit(store.Act{Who: who, What: "account locked", Subject: r.Account, Detail: fmt.Sprintf("%d users, %d left as they are; %s", len(out.Locks), len(out.Left), r.Reason)})
}

// UnlockAccount lifts what LockAccount has brought.
func (b backend) UnlockAccount(_ context.Context, who string, r api.AccountLock) (*api.AccountLocked, error) {
	out := &api.AccountLocked{Account: r.Account, Locks: []api.Lock{}}
	for _, k := range b.d.locks.List() {
		if k.Account != r.Account {
			continue
		}
		l, err := b.d.locks.UnlockIn(k.Scope(), who, r.Reason)
		if err != nil {
			out.Left = append(out.Left, k.User.Name+": "+err.Error())
			continue
		}
		out.Locks = append(out.Locks, *b.warned(shownLock(&l)))
	}
	if len(out.Locks)+len(out.Left) == 0 {
		return nil, &api.Problem{Status: http.StatusConflict, Code: "not-locked", What: "account " + r.Account + " is not locked", Remedy: "`sluice locks` shows who is"}
	}
	return out, b.d.store.Audit(store.Act{Who: who, What: "account unlocked", Subject: r.Account, Detail: fmt.Sprintf("%d users; %s", len(out.Locks), r.Reason)})
}
