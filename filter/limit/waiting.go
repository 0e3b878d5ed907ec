package limit

import (
	"sync"

	"sluice/filter"
	"sluice/filter/policy"
)

// Waiting bounds how many messages of a user wait for delivery (LIM3): those that the queue holds, and those on their way
// into it. It is safe for concurrent use.
type Waiting struct {
	held   func(user uint32) int
	mu     sync.Mutex
	coming map[uint32]int
}

// NewWaiting returns one for a queue that holds so many messages of a user; held is asked for each message, and must be
// quick.
func NewWaiting(held func(user uint32) int) *Waiting {
	return &Waiting{held: held, coming: map[uint32]int{}}
}

// Take reserves a place for one message of a user who may have most; 0: any number. What was taken is given back when the
// queue holds the message, or will not.
func (w *Waiting) Take(user uint32, most int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if most > 0 && w.full(user, most) {
		return false
	}
	w.coming[user]++
	return true
}

// Give gives a place back.
func (w *Waiting) Give(user uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.coming[user]--; w.coming[user] <= 0 {
		delete(w.coming, user)
	}
}

// Full tells whether a user who may have most, which is not 0, has as many.
func (w *Waiting) Full(user uint32, most int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.full(user, most)
}

// full is asked with w.mu held, and before a place is given back the queue holds its message: so none is missed, and one
// that has just arrived may count twice.
func (w *Waiting) full(user uint32, most int64) bool {
	return int64(w.coming[user]+w.held(user)) >= most
}

// waits asks for a place in the queue, once for each message that will stand there.
func (a *asking) waits(l *policy.Limits, o owner) {
	const kind = policy.QueuedMessages
	w, most := a.r.Waiting, l.Max[kind]
	if w == nil || most == 0 || !a.m.HandedIn || o.id == 0 || a.h.Waits != 0 || a.done {
		return
	}
	if l.Shadow[kind] {
		if w.Full(o.id, most) {
			a.shadow(l, kind, Queued, o)
		}
		most = 0
	}
	if !w.Take(o.id, most) {
		a.refuse(l, kind, Queued, o, 0)
		if h := &a.hits[len(a.hits)-1]; h.Action == filter.Defer {
			h.SMTP, h.Enhanced = 452, "4.3.1" // the queue has no room for it
		}
		return
	}
	a.h.Waits = o.id
}
