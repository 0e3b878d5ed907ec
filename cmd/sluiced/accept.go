package main

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sluice/intercept/control"
	"sluice/intercept/flow"
)

// beatEvery is how often the accept loop beats at most; the kernel takes a heartbeat for stale after a second.
const beatEvery = 50 * time.Millisecond

// polite is how long the queue may not have been sane for those who wait in it to come after those who are there: the
// heartbeat, which is what a longer queue is about, has time left by far.
const polite = 400 * time.Millisecond

// calm is an accept queue so short that its growing means nothing: a burst that the loop is about to take.
const calm = 32

// acceptor takes connections from one listener and is the only one who beats: the heartbeat is honest only if it stops
// when accepting stops.
type acceptor struct {
	l     *flow.Listener
	log   *slog.Logger
	serve func(c *flow.Conn, done func()) // done is called when the session has ended
	full  func() bool                     // as many sessions as are allowed
	alive func()                          // called with each beat; may be nil
	yield func()                          // lets all others go first who can; rear.stand, but in tests

	beat     atomic.Pointer[control.Heartbeat] // nil: nobody listens to it
	stopping atomic.Bool
	done     chan struct{}
	sessions sync.WaitGroup // those that it accepted

	accepted, refused, failed atomic.Uint64
	waiting, limit            atomic.Int64 // the queue as last seen
}

// run accepts until stop.
func (a *acceptor) run() {
	defer close(a.done)
	defer a.prepare()()
	var last, sane time.Time
	for !a.stopping.Load() {
		now := time.Now()
		if now.Sub(last) >= beatEvery {
			last = now
			if a.sane() {
				sane = now
				a.pulse()
			}
			// The loop must come round to beat while nobody connects.
			if err := a.l.SetDeadline(now.Add(2 * beatEvery)); err != nil {
				a.log.Error("could not set the accept deadline", "err", err)
				return
			}
		}
		if a.full() {
			time.Sleep(beatEvery / 5) // the kernel's queue holds the rest; sane says when that is no longer good
			continue
		}
		if !a.one() {
			return
		}
		// Of many who come at once each is let in as soon as the others need no processor: mail of the first is on its way
		// when the last are greeted. Else all would be greeted first, then all asked for their sender, and none be early.
		if a.l.AtOnce() && now.Sub(sane) < polite {
			a.yield()
		}
	}
}

// prepare makes what the loop yields by, and returns what ends that.
func (a *acceptor) prepare() (end func()) {
	end = func() {}
	if a.yield != nil {
		return end
	}
	r, err := newRear()
	if err != nil {
		a.log.Warn("of connections that come at once none is let go first", "err", err)
		a.yield = end
		return end
	}
	a.yield = r.stand
	return r.close
}

// one accepts one connection; false when the listener is closed.
func (a *acceptor) one() bool {
	c, err := a.l.Accept()
	var refused *flow.Refused
	switch {
	case err == nil:
		a.accepted.Add(1)
		a.sessions.Add(1)
		go a.serve(c, a.sessions.Done)
	case errors.Is(err, os.ErrDeadlineExceeded):
	case errors.Is(err, net.ErrClosed):
		return false
	case errors.As(err, &refused):
		a.refused.Add(1)
		a.log.Debug("refused a connection", "reason", refused.Reason, "client", refused.Client, "target", refused.Target)
	default:
		// No descriptors left, most likely: they come back as sessions end.
		if a.failed.Add(1)%100 == 1 {
			a.log.Error("could not accept; raise LimitNOFILE= when it says too many open files", "err", err)
		}
		time.Sleep(beatEvery / 5)
	}
	return true
}

// sane reports whether the loop keeps up: the queue of connections to be accepted does not grow.
func (a *acceptor) sane() bool {
	waiting, limit, err := a.l.Queue()
	if err != nil {
		a.log.Error("could not look at the accept queue", "err", err)
		return false
	}
	before := a.waiting.Swap(int64(waiting))
	a.limit.Store(int64(limit))
	return waiting <= calm || int64(waiting) < before
}

func (a *acceptor) pulse() {
	if h := a.beat.Load(); h != nil {
		h.Beat()
	}
	if a.alive != nil {
		a.alive()
	}
}

// stop ends the loop and returns when no further beat can come. Connections wait in the kernel's queue from now on.
func (a *acceptor) stop() {
	a.stopping.Store(true)
	if err := a.l.SetDeadline(time.Now()); err != nil && !errors.Is(err, os.ErrClosed) {
		a.log.Warn("could not wake the accept loop", "err", err)
	}
	<-a.done
}
