package main

import (
	"strings"

	"sluice/filter/lock"
	"sluice/proxy/delivery"
)

// heldBy begins what a delivery's hold says that a lock brought.
const heldBy = "sender locked, ticket "

// lockedQueue holds what a locked user or identity has in the queue, and releases it at the end of the lock (LCK11). It
// runs beside the mail: the queue may be long.
func (d *daemon) lockedQueue(e *lock.Event) {
	if !d.queueing.Load() || e.Kind != lock.Locked && e.Kind != lock.Unlocked {
		return // what happened before the queue stood is found when it does
	}
	l, locked := e.Lock, e.Kind == lock.Locked
	d.audits.Go(func() {
		var n int
		var err error
		if locked {
			n, err = d.mail.holdOf(&l)
		} else {
			n, err = d.mail.queue.Release(delivery.Filter{Owner: l.User.ID, Why: heldBy + l.Ticket})
		}
		switch {
		case err != nil:
			d.log.Error("could not hold or release what a locked sender has in the queue", "user", l.User.Name, "ticket", l.Ticket, "err", err)
		case n > 0 && locked:
			d.log.Warn("queued mail of a locked sender is on hold", "user", l.User.Name, "identity", l.Identity, "ticket", l.Ticket, "deliveries", n)
		case n > 0:
			d.log.Info("queued mail goes on after a lock", "user", l.User.Name, "identity", l.Identity, "ticket", l.Ticket, "deliveries", n)
		}
	})
}

// holdOf puts what waits of a locked sender on hold.
func (m *mailQueue) holdOf(l *lock.Lock) (int, error) {
	no := false
	return m.queue.Hold(delivery.Filter{Owner: l.User.ID, Identity: l.Identity, Held: &no}, heldBy+l.Ticket)
}

// matchLocks brings queue and locks together at the start: locks may have begun or ended meanwhile.
func (m *mailQueue) matchLocks() error {
	active := map[string]bool{}
	for _, l := range m.d.locks.List() {
		active[heldBy+l.Ticket] = true
		if _, err := m.holdOf(&l); err != nil {
			return err
		}
	}
	yes, gone := true, map[string]bool{}
	for from := uint32(0); ; {
		some, next, err := m.queue.List(delivery.Filter{Held: &yes}, from, 1000)
		if err != nil {
			return err
		}
		for i := range some {
			if why := some[i].State.Hold; strings.HasPrefix(why, heldBy) && !active[why] {
				gone[why] = true
			}
		}
		if from = next; from == 0 {
			break
		}
	}
	for why := range gone {
		if _, err := m.queue.Release(delivery.Filter{Why: why}); err != nil {
			return err
		}
	}
	return nil
}
