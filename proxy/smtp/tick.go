package smtp

import "time"

// tickState calls the caller's function now and then while a body is uploaded; nil does nothing.
type tickState struct {
	fn    func() error
	every time.Duration
	last  time.Time
	err   error // first error of fn, after which it is not called again
}

// startTick begins the calls for the upload of b.
func (c *Conn) startTick(b *Body) {
	if b.o.Tick == nil || b.o.TickEvery <= 0 || b.tickErr != nil {
		return
	}
	b.tick = tickState{fn: b.o.Tick, every: b.o.TickEvery, last: time.Now()}
	c.tick = &b.tick
	if c.rd.armed > c.tick.slice() {
		c.rd.armed = 0 // shorter slices from now on
	}
}

func (c *Conn) stopTick(b *Body) {
	if b.tick.err != nil {
		b.tickErr = b.tick.err
	}
	c.tick = nil
}

// slice bounds how long a read may sleep; 0: no bound.
func (t *tickState) slice() time.Duration {
	if t == nil {
		return 0
	}
	return t.every / 4
}

// wake is called when a socket deadline passed, which it does in time however much comes: reads do not set it anew.
func (t *tickState) wake(now time.Time) {
	if t == nil || t.err != nil || now.Sub(t.last) < t.every-t.every/4 {
		return
	}
	t.last = now
	t.err = t.fn()
}
