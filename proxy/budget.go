package proxy

import (
	"context"
	"sync"
	"time"
)

// budget is a context with a deadline whose timer is only made if somebody waits for it: most checks never do.
type budget struct {
	context.Context
	deadline time.Time
	mu       sync.Mutex
	timed    context.Context
	cancel   context.CancelFunc
	over     bool
}

func newBudget(parent context.Context, deadline time.Time) *budget {
	return &budget{Context: parent, deadline: deadline}
}

// Deadline returns the end of the budget.
func (b *budget) Deadline() (time.Time, bool) {
	if d, ok := b.Context.Deadline(); ok && d.Before(b.deadline) {
		return d, true
	}
	return b.deadline, true
}

// Done returns a channel that closes at the end of the budget.
func (b *budget) Done() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timed == nil {
		b.timed, b.cancel = context.WithDeadline(b.Context, b.deadline)
		if b.over {
			b.cancel()
		}
	}
	return b.timed.Done()
}

// Err tells whether the budget has ended, and why.
func (b *budget) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timed != nil && b.timed.Err() != nil {
		return b.timed.Err()
	}
	switch err := b.Context.Err(); {
	case err != nil:
		return err
	case b.over:
		return context.Canceled
	case !time.Now().Before(b.deadline):
		return context.DeadlineExceeded
	}
	return nil
}

// end ends the budget and gives its timer back.
func (b *budget) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	if b.cancel != nil {
		b.cancel()
	}
}

// entry is the budget of a session that is to be let in; its end is that of the wait, too. Most do not wait, and then
// the session's context is left as small as it was.
type entry struct {
	*budget
	session context.Context
	once    sync.Once
	stop    func() bool
}

// Done returns a channel that closes at the end of the budget or of the session.
func (e *entry) Done() <-chan struct{} {
	done := e.budget.Done()
	e.once.Do(func() { e.stop = context.AfterFunc(e.session, e.budget.end) })
	return done
}

// end gives the budget back.
func (e *entry) end() {
	e.budget.end()
	if e.stop != nil {
		e.stop()
	}
}
