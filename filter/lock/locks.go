package lock

import (
	"errors"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"sluice/filter"
	"sluice/filter/message"
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

	mu     sync.Mutex // guards users and what is in their states
	users  map[uint32]*state
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
	l := &Locks{d: d, tallies: newTallies(), users: map[uint32]*state{}}
	for user, n := range unlocks {
		l.state(user).unlocks = n
	}
	for i := range active {
		lk := &active[i]
		st := l.state(lk.User.ID)
		st.lock, st.kernel = lk, true
		l.tickets.set(lk.User.ID, lk.Ticket)
		if left := time.Until(lk.Until); lk.Until.IsZero() || left > 0 {
			l.expire(st, lk, left)
			l.push(lk.User.ID)
		} else {
			l.expired(lk.User.ID, lk.Ticket, lk.Until)
		}
	}
	return l, nil
}

// Locked returns the ticket of the lock on user, if there is one. It costs a few nanoseconds and takes no lock.
func (l *Locks) Locked(user uint32) (ticket string, locked bool) { return l.tickets.get(user) }

// Judged counts the verdict of a whole message and locks its user where that meets a rule (LCK1). It returns after the
// lock, also one that another session has just brought, is in force.
func (l *Locks) Judged(m *message.Message, v *filter.Verdict) {
	user := m.Flow.User
	if user.ID == 0 {
		return
	}
	if _, locked := l.Locked(user.ID); locked {
		l.await(user.ID) // the lock may still be on its way to kernel and disk
		return
	}
	s := &l.d.Settings.Settings(user.ID).Lock
	f := l.tallies.judged(m, v, s)
	if f == nil {
		return
	}
	if !s.Automatic || l.never(user.ID) {
		if f.alarm {
			l.tell(Event{Kind: Alarm, Lock: Lock{User: user, Code: f.code, Reason: f.reason, Evidence: f.evidence, Since: wall()}})
		}
		return
	}
	l.lockFor(user, f, s)
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
	case l.never(u.ID):
		return Lock{}, fmt.Errorf("could not lock %s: the user is on the never-lock list; take it off first", u.Name)
	}
	s := &l.d.Settings.Settings(u.ID).Lock
	lk := Lock{
		User: u, Code: "MANUAL", Reason: r.Reason, By: r.Who, Since: wall(), PerMinute: s.Explained, KeepPassed: s.KeepPassed && !r.Cut,
	}
	if r.Time > 0 {
		lk.Until = lk.Since.Add(r.Time)
	}
	l.mu.Lock()
	if old := l.state(u.ID).lock; old != nil {
		lk.Ticket, lk.Since, lk.Evidence = old.Ticket, old.Since, old.Evidence
	}
	lk = l.begin(lk)
	l.mu.Unlock()
	l.push(u.ID)
	l.tell(Event{Kind: Locked, Lock: lk})
	return lk, nil
}

// Unlock ends the lock of a user by hand.
func (l *Locks) Unlock(user uint32, who, why string) (Lock, error) {
	l.mu.Lock()
	st, ok := l.users[user]
	if !ok || st.lock == nil {
		l.mu.Unlock()
		return Lock{}, ErrNotLocked
	}
	lk := l.end(user, st, who, why)
	l.mu.Unlock()
	l.push(user)
	l.tell(Event{Kind: Unlocked, Lock: lk})
	return lk, nil
}

// Reset lets a user's next locks end by themselves again.
func (l *Locks) Reset(user uint32, who string) error {
	l.mu.Lock()
	st := l.state(user)
	st.unlocks, st.saveCount = 0, true
	l.mu.Unlock()
	l.push(user)
	l.tell(Event{Kind: Reset, Lock: Lock{User: flow.User{ID: user}}, Who: who})
	return nil
}

// Find returns the lock of a user, if there is one.
func (l *Locks) Find(user uint32) (Lock, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st, ok := l.users[user]; ok && st.lock != nil {
		return *st.lock, true
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
	for _, st := range l.users {
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
	if st, ok := l.users[user]; ok {
		return st.unlocks
	}
	return 0
}

// Reapply puts every lock into the kernel again, for a kernel or a helper that has lost them.
func (l *Locks) Reapply() {
	l.mu.Lock()
	var users []uint32
	for user, st := range l.users {
		if st.lock != nil {
			st.kernel = true
			users = append(users, user)
		}
	}
	l.mu.Unlock()
	for _, user := range users {
		l.push(user)
	}
}

// Close stops the timers. Locks stay as they are in the kernel and on disk.
func (l *Locks) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, st := range l.users {
		if st.expiry != nil {
			st.expiry.Stop()
		}
	}
	return nil
}

// lockFor locks a user by a rule, unless another session was faster.
func (l *Locks) lockFor(u flow.User, f *finding, s *policy.Lock) {
	lk := Lock{
		User: u, Code: f.code, Reason: f.reason, Automatic: true, Since: wall(), PerMinute: s.Explained, KeepPassed: s.KeepPassed,
		Evidence: f.evidence,
	}
	l.mu.Lock()
	st := l.state(u.ID)
	faster := st.lock != nil
	if !faster {
		if st.unlocks < s.MaxUnlocks {
			lk.Until = lk.Since.Add(s.Time)
		}
		lk = l.begin(lk)
	}
	l.mu.Unlock()
	l.push(u.ID)
	if !faster {
		l.tell(Event{Kind: Locked, Lock: lk})
	}
}

// begin puts a lock in force in memory. l.mu is held.
func (l *Locks) begin(lk Lock) Lock {
	if lk.Ticket == "" {
		lk.Ticket = newTicket()
	}
	st := l.state(lk.User.ID)
	st.lock, st.kernel = &lk, true
	st.save = append(st.save, lk)
	l.tickets.set(lk.User.ID, lk.Ticket)
	l.tallies.forget(lk.User.ID)
	l.expire(st, &lk, time.Until(lk.Until))
	return lk
}

// end takes a lock out of force in memory. l.mu is held.
func (l *Locks) end(user uint32, st *state, who, why string) Lock {
	lk := *st.lock
	lk.Ended, lk.EndedBy, lk.EndedWhy = wall(), who, why
	st.lock, st.kernel = nil, true
	st.save = append(st.save, lk)
	l.tickets.set(user, "")
	l.tallies.forget(user)
	if st.expiry != nil {
		st.expiry.Stop()
	}
	return lk
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
	user, ticket, until := lk.User.ID, lk.Ticket, lk.Until
	st.expiry = time.AfterFunc(left, func() { l.expired(user, ticket, until) })
}

// expired ends the lock whose time is over, unless it was changed or ended meanwhile.
func (l *Locks) expired(user uint32, ticket string, until time.Time) {
	l.mu.Lock()
	st := l.users[user]
	if l.closed || st.lock == nil || st.lock.Ticket != ticket || !st.lock.Until.Equal(until) {
		l.mu.Unlock()
		return
	}
	if l.following {
		l.forget(user, st)
		l.mu.Unlock()
		return
	}
	lk := l.end(user, st, "", "its time was over")
	if lk.Automatic {
		st.unlocks++
		st.saveCount = true
	}
	l.mu.Unlock()
	l.push(user)
	l.tell(Event{Kind: Unlocked, Lock: lk})
}

// state returns what is known of a user, making it where it is missing. l.mu is held, or l is new.
func (l *Locks) state(user uint32) *state {
	st, ok := l.users[user]
	if !ok {
		st = &state{}
		l.users[user] = st
	}
	return st
}

func (l *Locks) never(user uint32) bool { return l.d.Never != nil && l.d.Never(user) }

func (l *Locks) tell(e Event) {
	if l.d.Events != nil {
		e.At = wall()
		l.d.Events(e)
	}
}

// wall returns the time of day without the monotonic part, which means nothing on disk.
func wall() time.Time { return time.Now().UTC().Round(0) }

const ticketShards = 1024

// tickets answers who is locked without a lock of its own.
type tickets struct {
	n      atomic.Int64
	mu     sync.Mutex
	shards [ticketShards]atomic.Pointer[map[uint32]string] // a change copies one of them: many, so that they stay small
}

func (t *tickets) get(user uint32) (string, bool) {
	if t.n.Load() == 0 {
		return "", false
	}
	m := t.shards[user%ticketShards].Load()
	if m == nil {
		return "", false
	}
	ticket, ok := (*m)[user]
	return ticket, ok
}

// set names the ticket of a user, or takes it away where it is "".
func (t *tickets) set(user uint32, ticket string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &t.shards[user%ticketShards]
	next := map[uint32]string{}
	if m := p.Load(); m != nil {
		for k, v := range *m {
			next[k] = v
		}
	}
	before := len(next)
	delete(next, user)
	if ticket != "" {
		next[user] = ticket
	}
	t.n.Add(int64(len(next) - before)) // before the map is seen when it grows from none
	p.Store(&next)
}
