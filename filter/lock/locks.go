package lock

import (
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// ErrNotLocked says that the user has no lock.
var ErrNotLocked = errors.New("user is not locked")

// retryAfter is when a change that kernel or disk refused is tried again.
const retryAfter = 5 * time.Second

// Locks keeps the locks of all users. A change is in memory first, then in the kernel, then on disk; where one of these
// fails, the change holds in memory, is alarmed and tried again. Safe for concurrent use.
type Locks struct {
	d       Deps
	tallies *tallies
	tickets tickets
	within  scopes // tickets of identities
	brake   brake

	mu     sync.Mutex // guards states and what is in them
	states map[Scope]*state
	closed bool

	following bool // another process ends the locks
}

// state is what is known of a user who is or was locked.
type state struct {
	lock    *Lock // nil: not locked
	unlocks int   // automatic ones, since the start or the last reset
	expiry  *time.Timer

	pushing   sync.Mutex // held while the kernel and the disk are told, so that they hear changes in order
	kernel    bool       // the kernel has not heard of the present lock, or of its absence
	save      []Lock     // what the disk has not got yet, in order
	saveCount bool
	retrying  bool
	told      time.Time // when a failure that lasts was alarmed
}

// New returns the keeper with the locks of the last run restored: put into the kernel again, or ended where their time
// passed meanwhile.
func New(d Deps) (*Locks, error) {
	active, unlocks, err := d.Store.LoadLocks()
	if err != nil {
		return nil, fmt.Errorf("could not load the locks: %w", err)
	}
	l := &Locks{d: d, tallies: newTallies(), states: map[Scope]*state{}}
	for whom, n := range unlocks {
		l.state(whom).unlocks = n
	}
	for i := range active {
		lk := &active[i]
		st := l.state(lk.Scope())
		st.lock, st.kernel = lk, true
		l.setTicket(lk.Scope(), lk.Ticket)
		if left := time.Until(lk.Until); lk.Until.IsZero() || left > 0 {
			l.expire(st, lk, left)
			l.push(lk.Scope())
		} else {
			l.expired(lk.Scope(), lk.Ticket, lk.Until)
		}
	}
	return l, nil
}

// Locked returns the ticket of the lock on user, if there is one. It costs a few nanoseconds and takes no lock.
func (l *Locks) Locked(user uint32) (ticket string, locked bool) { return l.tickets.get(user) }

// LockedIdentity returns the ticket of the lock on one identity of a user, if there is one.
func (l *Locks) LockedIdentity(user uint32, identity string) (ticket string, locked bool) {
	return l.within.get(Scope{user, identity})
}

func (l *Locks) setTicket(whom Scope, ticket string) {
	if whom.Identity == "" {
		l.tickets.set(whom.User, ticket)
	} else {
		l.within.set(whom, ticket)
	}
}

// Lock locks a user by hand (LCK4). A lock that is in force keeps its ticket and takes over reason and time.
func (l *Locks) Lock(u flow.User, r Request) (Lock, error) {
	switch {
	case u.ID == 0:
		return Lock{}, errors.New("could not lock: user 0 is nobody")
	case r.Reason == "" || r.Who == "":
		return Lock{}, fmt.Errorf("could not lock %s: a lock by hand needs who does it and a reason", u.Name)
	case r.Time < 0:
		return Lock{}, fmt.Errorf("could not lock %s for %v: the time is negative; use 0 for a lock without an end", u.Name, r.Time)
	}
	s := &l.d.Settings.Settings(u.ID).Lock
	if s.Never {
		return Lock{}, fmt.Errorf("could not lock %s: the user is never to be locked; his setting lock_never says so", u.Name)
	}
	lk := Lock{
		User: u, Identity: r.Only, Account: r.Account, Code: "MANUAL", Reason: r.Reason, By: r.Who, Since: wall(), PerMinute: s.Explained, KeepPassed: s.KeepPassed && !r.Cut,
	}
	if r.Time > 0 {
		lk.Until = lk.Since.Add(r.Time)
	}
	l.mu.Lock()
	if old := l.state(lk.Scope()).lock; old != nil {
		lk.Ticket, lk.Since, lk.Evidence = old.Ticket, old.Since, old.Evidence
	}
	lk = l.begin(lk)
	l.mu.Unlock()
	l.push(lk.Scope())
	l.tell(Event{Kind: Locked, Lock: lk})
	return lk, nil
}

// Unlock ends the lock of a user by hand.
func (l *Locks) Unlock(user uint32, who, why string) (Lock, error) {
	return l.UnlockIn(Scope{User: user}, who, why)
}

// UnlockIn ends the lock of a user or an identity by hand.
func (l *Locks) UnlockIn(whom Scope, who, why string) (Lock, error) {
	l.mu.Lock()
	st, ok := l.states[whom]
	if !ok || st.lock == nil {
		l.mu.Unlock()
		return Lock{}, ErrNotLocked
	}
	lk := l.end(whom, st, who, why)
	l.mu.Unlock()
	l.push(whom)
	l.tell(Event{Kind: Unlocked, Lock: lk})
	return lk, nil
}

// Reset lets a user's next locks, those of his identities too, end by themselves again.
func (l *Locks) Reset(user uint32, who string) error {
	l.mu.Lock()
	whose := []Scope{{User: user}}
	l.state(whose[0]).unlocks, l.state(whose[0]).saveCount = 0, true
	for whom, st := range l.states {
		if whom.User == user && st.unlocks > 0 {
			st.unlocks, st.saveCount = 0, true
			whose = append(whose, whom)
		}
	}
	l.mu.Unlock()
	for _, whom := range whose {
		l.push(whom)
	}
	l.tell(Event{Kind: Reset, Lock: Lock{User: flow.User{ID: user}}, Who: who})
	return nil
}

// Find returns the lock of a user, if there is one.
func (l *Locks) Find(user uint32) (Lock, bool) { return l.FindIn(Scope{User: user}) }

// FindIn returns the lock of a user or an identity, if there is one.
func (l *Locks) FindIn(whom Scope) (Lock, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st, ok := l.states[whom]; ok && st.lock != nil {
		return *st.lock, true
	}
	return Lock{}, false
}

// Ticket returns the lock in force that has the ticket, if there is one.
func (l *Locks) Ticket(ticket string) (Lock, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, st := range l.states {
		if st.lock != nil && st.lock.Ticket == ticket {
			return *st.lock, true
		}
	}
	return Lock{}, false
}

// Reason returns why a user is locked; "" where he is not.
func (l *Locks) Reason(user uint32) string {
	k, _ := l.Find(user)
	return k.Reason
}

// List returns the locks in force, newest first.
func (l *Locks) List() []Lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Lock
	for _, st := range l.states {
		if st.lock != nil {
			all = append(all, *st.lock)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Since.After(all[j].Since) })
	return all
}

// Unlocks returns how many locks of a user ended by themselves since the last reset.
func (l *Locks) Unlocks(user uint32) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st, ok := l.states[Scope{User: user}]; ok {
		return st.unlocks
	}
	return 0
}

// Reapply puts every lock into the kernel again, for a kernel or a helper that has lost them.
func (l *Locks) Reapply() {
	l.mu.Lock()
	var users []Scope
	for whom, st := range l.states {
		if st.lock != nil && whom.Identity == "" {
			st.kernel = true
			users = append(users, whom)
		}
	}
	l.mu.Unlock()
	for _, whom := range users {
		l.push(whom)
	}
}

// Close stops the timers. Locks stay as they are in the kernel and on disk.
func (l *Locks) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, st := range l.states {
		if st.expiry != nil {
			st.expiry.Stop()
		}
	}
	return nil
}

// lockFor locks by a rule, unless another session was faster.
func (l *Locks) lockFor(u flow.User, f *finding, s *policy.Lock) {
	lk := f.lock(u)
	lk.Automatic, lk.PerMinute, lk.KeepPassed = true, s.Explained, s.KeepPassed
	stood := l.tallies.of(f.whom, s) // a lock forgets it
	lk.Score, lk.Factors = stood.Score, stood.Factors
	l.mu.Lock()
	st := l.state(lk.Scope())
	faster := st.lock != nil
	if !faster {
		if st.unlocks < s.MaxUnlocks {
			lk.Until = lk.Since.Add(s.Time)
		}
		lk = l.begin(lk)
	}
	l.mu.Unlock()
	l.push(lk.Scope())
	if !faster {
		l.tell(Event{Kind: Locked, Lock: lk})
	}
}

// begin puts a lock in force in memory. l.mu is held.
func (l *Locks) begin(lk Lock) Lock {
	if lk.Ticket == "" {
		lk.Ticket = newTicket()
	}
	st := l.state(lk.Scope())
	st.lock, st.kernel = &lk, true
	st.save = append(st.save, lk)
	l.setTicket(lk.Scope(), lk.Ticket)
	l.tallies.forget(lk.Scope())
	l.expire(st, &lk, time.Until(lk.Until))
	return lk
}

// end takes a lock out of force in memory. l.mu is held.
func (l *Locks) end(whom Scope, st *state, who, why string) Lock {
	lk := *st.lock
	lk.Ended, lk.EndedBy, lk.EndedWhy = wall(), who, why
	st.lock, st.kernel = nil, true
	st.save = append(st.save, lk)
	l.setTicket(whom, "")
	l.released(&lk)
	if st.expiry != nil {
		st.expiry.Stop()
	}
	return lk
}

// released lets a sender begin anew: after an automatic lock on probation (LCK8).
func (l *Locks) released(lk *Lock) {
	if lk.Automatic {
		l.tallies.release(l.tallies.now(), lk.Scope(), &l.d.Settings.Settings(lk.User.ID).Lock)
	} else {
		l.tallies.forget(lk.Scope())
	}
}

// expire starts the timer that ends a lock after left; a lock without an end has none. l.mu is held, or l is new.
func (l *Locks) expire(st *state, lk *Lock, left time.Duration) {
	if st.expiry != nil {
		st.expiry.Stop()
		st.expiry = nil
	}
	if lk.Until.IsZero() || l.closed {
		return
	}
	whom, ticket, until := lk.Scope(), lk.Ticket, lk.Until
	st.expiry = time.AfterFunc(left, func() { l.expired(whom, ticket, until) })
}

// expired ends the lock whose time is over, unless it was changed or ended meanwhile.
func (l *Locks) expired(whom Scope, ticket string, until time.Time) {
	l.mu.Lock()
	st := l.states[whom]
	if l.closed || st.lock == nil || st.lock.Ticket != ticket || !st.lock.Until.Equal(until) {
		l.mu.Unlock()
		return
	}
	if l.following {
		l.forget(whom, st)
		l.mu.Unlock()
		return
	}
	lk := l.end(whom, st, "", "its time was over")
	if lk.Automatic {
		st.unlocks++
		st.saveCount = true
	}
	l.mu.Unlock()
	l.push(whom)
	l.tell(Event{Kind: Unlocked, Lock: lk})
}

// state returns what is known of a user, making it where it is missing. l.mu is held, or l is new.
func (l *Locks) state(whom Scope) *state {
	st, ok := l.states[whom]
	if !ok {
		st = &state{}
		l.states[whom] = st
	}
	return st
}

func (l *Locks) tell(e Event) {
	if l.d.Events != nil {
		e.At = wall()
		l.d.Events(e)
	}
}

// wall returns the time of day without the monotonic part, which means nothing on disk.
func wall() time.Time { return time.Now().UTC().Round(0) }
