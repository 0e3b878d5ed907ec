package lock

import (
	"time"
)

// Two processes share the locks while one hands over to the other: each tells the other what it did, see Events, and
// hears of the other's doings here.

// Follow leaves the ends of locks to another process: here they end in memory only. Verdicts still lock.
func (l *Locks) Follow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.following = true
}

// Heard takes over what another process did, which has told kernel and disk itself: a lock, a change of one, or, where
// Ended is set, its end. Where both have locked a user at the same moment the lower ticket stays, on both sides.
func (l *Locks) Heard(lk Lock) {
	whom := lk.Scope()
	l.mu.Lock()
	st := l.state(whom)
	mine := st.lock
	switch {
	case !lk.Ended.IsZero():
		if mine != nil && mine.Ticket == lk.Ticket {
			l.forget(whom, st)
		}
	case mine != nil && mine.Ticket < lk.Ticket: // the other side takes this one
	default:
		if mine != nil && mine.Ticket != lk.Ticket {
			double := *mine
			double.Ended, double.EndedWhy = wall(), "the user was locked as "+lk.Ticket+" at the same moment"
			st.save = append(st.save, double)
		}
		st.lock = &lk
		l.setTicket(whom, lk.Ticket)
		l.tallies.forget(whom)
		l.expire(st, &lk, time.Until(lk.Until))
		// Told once more: this process may just have replaced the kernel's whole set by one without it. One that follows
		// must not, for by now the lock may have ended.
		st.kernel = st.kernel || !l.following
	}
	l.mu.Unlock()
	l.push(whom)
}

// Refresh takes over what another process has saved since this one loaded the locks.
func (l *Locks) Refresh() error {
	begin := wall()
	active, unlocks, err := l.d.Store.LoadLocks()
	if err != nil {
		return err
	}
	saved := make(map[string]bool, len(active))
	for _, lk := range active {
		saved[lk.Ticket] = true
		if have, ok := l.FindIn(lk.Scope()); !ok || have.Ticket != lk.Ticket || !have.Until.Equal(lk.Until) {
			l.Heard(lk)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for whom, n := range unlocks {
		if st := l.state(whom); !st.saveCount {
			st.unlocks = n
		}
	}
	for whom, st := range l.states {
		if st.lock != nil && !saved[st.lock.Ticket] && len(st.save) == 0 && st.lock.Since.Before(begin) {
			l.forget(whom, st)
		}
	}
	return nil
}

// forget ends a lock in memory only. l.mu is held.
func (l *Locks) forget(whom Scope, st *state) {
	l.released(st.lock)
	st.lock = nil
	l.setTicket(whom, "")
	if st.expiry != nil {
		st.expiry.Stop()
	}
}
