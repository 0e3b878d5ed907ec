package lock

import (
	"errors"
	"fmt"
	"time"
)

// retellAfter is how long a failure that lasts is not alarmed again.
const retellAfter = time.Minute

// push tells the kernel, then the disk, what they have not heard of a user. It returns when both have it or have
// failed; whoever calls it while another push is on its way waits for that.
func (l *Locks) push(user uint32) {
	l.mu.Lock()
	st := l.users[user]
	l.mu.Unlock()
	if st == nil {
		return
	}
	st.pushing.Lock()
	err := errors.Join(l.pushKernel(user, st), l.pushDisk(user, st))
	st.pushing.Unlock()
	if e, tell := l.pushed(user, st, err); tell {
		l.tell(e)
	}
}

// pushed notes how a push ended: what failed is tried again, and told once, then once a while.
func (l *Locks) pushed(user uint32, st *state, err error) (e Event, tell bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		st.told = time.Time{}
		return Event{}, false
	}
	if !st.retrying && !l.closed {
		st.retrying = true
		time.AfterFunc(retryAfter, func() { l.retry(user, st) })
	}
	if time.Since(st.told) < retellAfter {
		return Event{}, false
	}
	st.told = time.Now()
	e = Event{Kind: Failed, Err: err}
	e.Lock.User.ID = user
	if st.lock != nil {
		e.Lock = *st.lock
	}
	return e, true
}

// await returns once no push of the user is on its way. A lock whose push has failed is in force here at least; its
// user's mail does not wait for the next try.
func (l *Locks) await(user uint32) {
	l.mu.Lock()
	st := l.users[user]
	l.mu.Unlock()
	if st != nil {
		st.pushing.Lock() // only the waiting counts
		defer st.pushing.Unlock()
	}
}

func (l *Locks) retry(user uint32, st *state) {
	l.mu.Lock()
	st.retrying = false
	closed := l.closed
	l.mu.Unlock()
	if !closed {
		l.push(user)
	}
}

// pushKernel is called with st.pushing held.
func (l *Locks) pushKernel(user uint32, st *state) error {
	l.mu.Lock()
	dirty := st.kernel
	st.kernel = false
	var lk *Lock
	if st.lock != nil {
		c := *st.lock
		lk = &c
	}
	l.mu.Unlock()
	if !dirty {
		return nil
	}
	var err error
	if lk != nil {
		err = l.d.Blocker.Block(lk)
	} else {
		err = l.d.Blocker.Unblock(user)
	}
	if err == nil {
		return nil
	}
	l.mu.Lock()
	st.kernel = true
	l.mu.Unlock()
	if lk != nil {
		return fmt.Errorf("could not lock user %d in the kernel (the proxy refuses its mail meanwhile): %w", user, err)
	}
	return fmt.Errorf("could not unlock user %d in the kernel: %w", user, err)
}

// pushDisk is called with st.pushing held.
func (l *Locks) pushDisk(user uint32, st *state) error {
	for {
		l.mu.Lock()
		count, n := st.saveCount, st.unlocks
		st.saveCount = false
		var next *Lock
		if len(st.save) > 0 {
			c := st.save[0]
			next = &c
		}
		l.mu.Unlock()
		if next == nil && !count {
			return nil
		}
		if err := l.saveOne(user, next, count, n); err != nil {
			l.mu.Lock()
			st.saveCount = st.saveCount || count
			l.mu.Unlock()
			return fmt.Errorf("could not save the lock of user %d: %w", user, err)
		}
		if next != nil {
			l.mu.Lock()
			st.save = st.save[1:]
			l.mu.Unlock()
		}
	}
}

// saveOne saves the number of unlocks first: a crash in between then errs towards fewer of them.
func (l *Locks) saveOne(user uint32, lk *Lock, count bool, n int) error {
	if count {
		if err := l.d.Store.SaveUnlocks(user, n); err != nil {
			return err
		}
	}
	if lk != nil {
		return l.d.Store.SaveLock(lk)
	}
	return nil
}
