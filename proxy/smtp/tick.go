package smtp

import "time"

// tickState calls the caller's function now and then while a body is uploaded.
type tickState struct {
	fn    func() error
	every time.Duration
	last  time.Time
	err   error // first error of fn, after which it is not called again
}

func (t *tickState) start(fn func() error, every time.Duration) {
	*t = tickState{}
	if fn != nil && every > 0 {
		*t = tickState{fn: fn, every: every, last: time.Now()}
	}
}

// slice bounds how long a read may sleep; 0: no bound.
func (t *tickState) slice() time.Duration { return t.every / 4 }

// after is called when a read brought data: only then, if ticks are asked for, is the clock read.
func (t *tickState) after(int) {
	if t.fn != nil {
		t.wake(time.Now())
	}
}

func (t *tickState) wake(now time.Time) {
	if t.fn == nil || t.err != nil || now.Sub(t.last) < t.every-t.every/4 {
		return
	}
	t.last = now
	t.err = t.fn()
}
