package filter

import (
	"context"
	"sync"

	"sluice/filter/message"
)

// Turns shares what is scarce: a few have it at once, of each user one, and whose user has waited longest is next. So one
// user with a thousand sessions is one among those who wait. It is safe for concurrent use.
type Turns struct {
	mu    sync.Mutex
	free  int
	users map[uint32]*line
	ready []uint32 // users who wait and have no turn, in their order
}

// line is who waits of one user.
type line struct {
	busy    bool // one of them has a turn
	waiting []chan struct{}
}

// NewTurns makes n turns.
func NewTurns(n int) *Turns { return &Turns{free: n, users: make(map[uint32]*line)} }

// Take waits for a turn until ctx ends, and gives its error then. Whoever got one calls Give.
func (t *Turns) Take(ctx context.Context, user uint32) error {
	t.mu.Lock()
	l := t.users[user]
	if l == nil {
		l = new(line)
		t.users[user] = l
	}
	mine := make(chan struct{})
	if l.waiting = append(l.waiting, mine); !l.busy && len(l.waiting) == 1 {
		t.ready = append(t.ready, user)
	}
	t.next()
	t.mu.Unlock()
	select {
	case <-mine:
		return nil
	default:
	}
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	if t.leave(user, mine) {
		return ctx.Err()
	}
	return nil
}

// Give ends a turn.
func (t *Turns) Give(user uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free++
	l := t.users[user]
	if l.busy = false; len(l.waiting) > 0 {
		t.ready = append(t.ready, user)
	} else {
		delete(t.users, user)
	}
	t.next()
}

// next gives free turns to those whose users have waited longest. t.mu is held.
func (t *Turns) next() {
	for t.free > 0 && len(t.ready) > 0 {
		l := t.users[t.ready[0]]
		t.ready = t.ready[1:]
		close(l.waiting[0])
		l.waiting = l.waiting[1:]
		l.busy = true
		t.free--
	}
}

// leave takes one out who does not wait any more; false: the turn came first.
func (t *Turns) leave(user uint32, mine chan struct{}) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.users[user]
	for i, w := range l.waiting {
		if w != mine {
			continue
		}
		if l.waiting = append(l.waiting[:i:i], l.waiting[i+1:]...); len(l.waiting) > 0 || l.busy {
			return true
		}
		delete(t.users, user)
		for j, u := range t.ready {
			if u == user {
				t.ready = append(t.ready[:j:j], t.ready[j+1:]...)
				break
			}
		}
		return true
	}
	return false
}

// Large is the size in bytes of what a check sees of a message, from which it waits for its turn: below it a check that
// only computes is done within a millisecond or so, which nobody else notices.
const Large = 64 << 10

// busy is what a large message hears that has had no turn in time: it may come again.
var busy = Hit{Code: "BUSY", Class: Policy, Action: Defer, SMTP: 451, Enhanced: "4.3.2", Text: "many large messages are being looked at, try again later"}

// InTurn has a check, which computes and waits for nobody, look at large messages in turns, so that many of them at once
// do not keep the processors from small ones.
func InTurn(c Check, t *Turns) Check { return inTurn{c, t} }

type inTurn struct {
	check Check
	turns *Turns
}

// Unwrap gives the check itself, which may be more than that.
func (c inTurn) Unwrap() Check { return c.check }

func (c inTurn) Check(ctx context.Context, p Phase, m *message.Message, hits []Hit) []Hit {
	if len(m.Data) < Large {
		return c.check.Check(ctx, p, m, hits)
	}
	user := uint32(0)
	if m.Flow != nil {
		user = m.Flow.User.ID
	}
	if c.turns.Take(ctx, user) != nil {
		return append(hits, busy)
	}
	defer c.turns.Give(user)
	return c.check.Check(ctx, p, m, hits)
}
