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
func (l *Locks) push(whom Scope) {
	l.mu.Lock()
	st := l.states[whom]
	l.mu.Unlock()
	if st == nil {
		return
	}
	st.pushing.Lock()
	err := errors.Join(l.pushKernel(whom, st), l.pushDisk(whom, st))
	st.pushing.Unlock()
	if e, tell := l.pushed(whom, st, err); tell {
		l.tell(e)
	}
}

// pushed notes how a push ended: what failed is tried again, and told once, then once a while.
func (l *Locks) pushed(whom Scope, st *state, err error) (e Event, tell bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		st.told = time.Time{}
		return Event{}, false
	}
	if !st.retrying && !l.closed {
		st.retrying = true
		time.AfterFunc(retryAfter, func() { l.retry(whom, st) })
	}
	if time.Since(st.told) < retellAfter {
		return Event{}, false
	}
	st.told = time.Now()
	e = Event{Kind: Failed, Err: err}
	e.Lock.User.ID, e.Lock.Identity = whom.User, whom.Identity
	if st.lock != nil {
		e.Lock = *st.lock
	}
	return e, true
}

// await returns once no push of the user is on its way. A lock whose push has failed is in force here at least; its
// user's mail does not wait for the next try.
func (l *Locks) await(whom Scope) {
	l.mu.Lock()
	st := l.states[whom]
	l.mu.Unlock()
	if st != nil {
		st.pushing.Lock() // only the waiting counts
		defer st.pushing.Unlock()
	}
}

func (l *Locks) retry(whom Scope, st *state) {
	l.mu.Lock()
	st.retrying = false
	closed := l.closed
	l.mu.Unlock()
	if !closed {
		l.push(whom)
	}
}

// pushKernel is called with st.pushing held. The kernel knows users; it cannot tell identities apart.
func (l *Locks) pushKernel(whom Scope, st *state) error {
	if whom.Identity != "" {
		return nil
	}
	user := whom.User
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
func (l *Locks) pushDisk(whom Scope, st *state) error {
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
		if err := l.saveOne(whom, next, count, n); err != nil {
			l.mu.Lock()
			st.saveCount = st.saveCount || count
			l.mu.Unlock()
			return fmt.Errorf("could not save the lock of user %d: %w", whom.User, err)
		}
		if next != nil {
			l.mu.Lock()
			st.save = st.save[1:]
			l.mu.Unlock()
		}
	}
}

// saveOne saves the number of unlocks first: a crash in between then errs towards fewer of them.
func (l *Locks) saveOne(whom Scope, lk *Lock, count bool, n int) error {
	if count {
		if err := l.d.Store.SaveUnlocks(whom, n); err != nil {
			return err
		}
	}
	if lk != nil {
		return l.d.Store.SaveLock(lk)
	}
	return nil
}
