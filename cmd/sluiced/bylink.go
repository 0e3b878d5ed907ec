package main

import (
	"errors"
	"net/netip"
	"time"

	"sluice/cmd/internal/public"
	"sluice/filter/lock"
)

// abusedWithin is how soon after an unlock by link another lock shows that nothing was mended.
const abusedWithin = time.Hour

// byLink tells whether a lock may be ended by the link of its notice, and how many such unlocks would remain.
func (d *daemon) byLink(l *lock.Lock) (left int, err error) {
	most := d.policy.Settings(l.User.ID).Lock.ByLink
	switch {
	case !l.Automatic:
		return 0, public.ErrManual
	case most == 0:
		return 0, public.ErrNever
	}
	u, err := d.store.LinkUnlocksOf(l.Scope())
	switch {
	case err != nil:
		return 0, err
	case u.Withdrawn != "":
		return 0, public.ErrWithdrawn
	case u.N >= most:
		return 0, public.ErrUsed
	}
	return most - u.N - 1, nil
}

// unlockByLink ends the lock of a ticket for whoever has its link.
func (d *daemon) unlockByLink(ticket string, from netip.Addr) error {
	d.linking.Lock()
	defer d.linking.Unlock()
	if d.retired() {
		return errRetired
	}
	l, ok := d.locks.Ticket(ticket)
	if !ok {
		return public.ErrOver
	}
	if _, err := d.byLink(&l); err != nil {
		return err
	}
	u, err := d.store.LinkUnlocksOf(l.Scope())
	if err != nil {
		return err
	}
	u.N, u.Last = u.N+1, time.Now()
	if err := d.store.SetLinkUnlocks(l.Scope(), u); err != nil { // first: a crash errs towards fewer
		return err
	}
	_, err = d.locks.UnlockIn(l.Scope(), "link", "by the link in its notice, opened at "+from.String())
	if errors.Is(err, lock.ErrNotLocked) {
		return public.ErrOver
	}
	return err
}

// abused takes the links away from whoever is locked again soon after he used one.
func (d *daemon) abused(l *lock.Lock) error {
	if !l.Automatic {
		return nil
	}
	d.linking.Lock()
	defer d.linking.Unlock()
	u, err := d.store.LinkUnlocksOf(l.Scope())
	after := l.Since.Sub(u.Last) // negative where the lock is the one that the link has ended: this hears of it late
	if err != nil || u.Last.IsZero() || u.Withdrawn != "" || after < 0 || after > abusedWithin {
		return err
	}
	u.Withdrawn = "locked again as " + l.Ticket + " soon after an unlock by link"
	d.log.Warn("a sender has no links to unlock any more", "user", l.User.Name, "identity", l.Identity, "why", u.Withdrawn)
	return d.store.SetLinkUnlocks(l.Scope(), u)
}
