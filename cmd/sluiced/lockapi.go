package main

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/filter/lock"
	"sluice/intercept/flow"
)

// Locks lists the locks in force.
func (b backend) Locks(context.Context) ([]api.Lock, error) {
	all := b.d.locks.List()
	ls := make([]api.Lock, len(all))
	for i := range all {
		ls[i] = *shownLock(&all[i])
	}
	return ls, nil
}

// History lists locks, ended ones too.
func (b backend) History(_ context.Context, user string, limit int) ([]api.Lock, error) {
	id, err := b.idOf(user)
	if err != nil {
		return nil, err
	}
	all, err := b.d.store.LockHistory(id, limit)
	ls := make([]api.Lock, len(all))
	for i := range all {
		ls[i] = *shownLock(&all[i])
	}
	return ls, err
}

// toLock finds whom to lock: also the holder of an address that has sent nothing yet.
func (b backend) toLock(name string) (*member, error) {
	m, err := b.find(name)
	if a, perr := netip.ParseAddr(name); err != nil && perr == nil {
		if _, ok := b.d.sources.Attribute(a); ok {
			return b.find(name)
		}
	}
	return m, err
}

// Lock locks by hand.
func (b backend) Lock(_ context.Context, who string, r api.LockRequest) (*api.Lock, error) {
	m, err := b.toLock(r.User)
	if err != nil {
		return nil, err
	}
	u := flow.User{ID: m.ID, Name: m.Name, Made: m.origin == store.Template}
	if len(m.Prefixes) > 0 {
		u.Prefix = m.Prefixes[0]
	}
	open := b.d.proxy.Open(m.ID)
	l, err := b.d.locks.Lock(u, lock.Request{Who: who, Reason: r.Reason, Only: r.Identity, Time: time.Duration(r.Seconds) * time.Second, Cut: r.Cut})
	if err != nil {
		return nil, &api.Problem{Status: http.StatusConflict, Code: "refused", What: err.Error()}
	}
	shown := b.warned(shownLock(&l))
	if r.Cut && r.Identity == "" {
		shown.Left = b.d.proxy.Cut(m.ID)
		shown.Cut = max(0, open-shown.Left)
		b.d.tellOthers(note{Cut: m.ID})
		b.d.log.Info("open connections cut", "user", m.Name, "count", shown.Cut, "left to pass on an answer", shown.Left)
	}
	return shown, nil
}

// warned says so when a change of a lock holds in the proxy only.
func (b backend) warned(l *api.Lock) *api.Lock {
	if b.d.link.client.Load() == nil && b.d.link.met.Load() {
		l.Warning = "sluice-intercept is away: the kernel hears of this when it is back; until then only the proxy knows"
	}
	return l
}

// Unlock ends a lock by hand, and lets later ones end by themselves and by link again where that is asked.
func (b backend) Unlock(_ context.Context, who string, r api.UnlockRequest) (*api.Lock, error) {
	m, err := b.find(r.User)
	if err != nil {
		return nil, err
	}
	whom, name := lock.Scope{User: m.ID, Identity: r.Identity}, "user "+m.Name
	if r.Identity != "" {
		name = "identity " + r.Identity + " of " + m.Name
	}
	if r.Reset {
		if err := errors.Join(b.d.locks.Reset(m.ID, who), b.d.store.ForgetLinkUnlocks(m.ID)); err != nil {
			return nil, err
		}
	}
	l, err := b.d.locks.UnlockIn(whom, who, r.Reason)
	if errors.Is(err, lock.ErrNotLocked) && r.Reset {
		return &api.Lock{User: m.Name, Identity: r.Identity}, nil
	}
	if errors.Is(err, lock.ErrNotLocked) {
		return nil, &api.Problem{Status: http.StatusConflict, Code: "not-locked", What: name + " is not locked", Remedy: "`sluice locks` shows who is"}
	}
	if err != nil {
		return nil, err
	}
	return b.warned(shownLock(&l)), nil
}

func shownLock(l *lock.Lock) *api.Lock {
	a := &api.Lock{Ticket: l.Ticket, User: l.User.Name, Identity: l.Identity, Account: l.Account, Score: l.Score, Check: l.Check, Rule: l.Rule, Prefix: l.User.Prefix, Code: l.Code, Reason: l.Reason, By: l.By, Automatic: l.Automatic,
		Since: l.Since, EndedBy: l.EndedBy, EndedWhy: l.EndedWhy}
	if a.By == "" {
		a.By = "sluice"
	}
	a.Until = moment(l.Until)
	if !l.Ended.IsZero() {
		a.Ended = &l.Ended
		if a.EndedBy == "" {
			a.EndedBy = "time"
		}
	}
	a.Factors = shownFactors(l.Factors)
	for _, e := range l.Evidence {
		a.Evidence = append(a.Evidence, api.Evidence{Message: e.Message, Time: e.At, Code: e.Code, Text: e.Detail})
	}
	return a
}
