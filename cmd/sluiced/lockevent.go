package main

import (
	"sluice/cmd/internal/store"
	"sluice/filter/lock"
)

// lockEvent tells what happened to a lock to the journal and the audit log. It is called in the way of mail.
func (d *daemon) lockEvent(e lock.Event) {
	l := &e.Lock
	switch e.Kind {
	case lock.Failed:
		d.log.Error("kernel or disk did not take a lock; it holds in memory and is tried again", "user", l.User.Name, "ticket", l.Ticket, "err", e.Err)
		return
	case lock.Brake:
		d.log.Error("a check locked too many users within a short time; it locks nobody for now and still refuses", "check", l.Check, "next", l.User.Name,
			"remedy", "look at `sluice locks`; `sluice undo --check "+l.Check+" --since TIME` lifts them all")
	case lock.Alarm:
		d.log.Warn("a user sends bad mail and is not locked by itself", "user", l.User.Name, "identity", l.Identity, "code", l.Code, "reason", l.Reason)
	default:
		d.log.Warn("lock "+e.Kind.String(), "user", l.User.Name, "identity", l.Identity, "ticket", l.Ticket, "code", l.Code, "reason", l.Reason, "until", l.Until, "by", l.By)
	}
	act := store.Act{At: e.At, Who: "sluiced", What: "lock " + e.Kind.String(), Subject: l.Name(), Detail: l.Ticket + " " + l.Code + " " + l.Reason}
	switch {
	case e.Who != "":
		act.Who = e.Who
	case l.EndedBy != "":
		act.Who = l.EndedBy
	case e.Kind == lock.Locked && l.By != "":
		act.Who = l.By
	}
	if e.Kind == lock.Locked || e.Kind == lock.Unlocked {
		d.tellOthers(note{Lock: l})
	}
	d.lockedQueue(&e)
	d.notices.heard(e)
	if e.Kind == lock.Locked {
		open := d.proxy.FlowsOf(l.User.ID) // they may have gone in a moment
		d.audits.Go(func() { d.keepEvidence(l, open) })
	}
	if e.Kind == lock.Locked && l.Identity == "" {
		d.proxy.Locked(l.User.ID)
	}
	d.audits.Go(func() {
		if err := d.store.Audit(act); err != nil {
			d.log.Error("could not write the audit log", "act", act.What, "user", act.Subject, "err", err)
		}
	})
}
