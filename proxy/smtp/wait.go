package smtp

import (
	"errors"
	"os"
	"time"
)

// slices is the number of parts a time-out is armed in. A socket deadline is set once per part,
// not once per read: a peer that keeps talking costs neither a clock reading nor a timer. The
// price is that a wait ends between its time-out and a quarter more.
const slices = 8

// moment is a time in a third of the room, since idle connections are many: nanoseconds since this program began, by the
// clock that nobody sets. 0 is none.
type moment int64

var began = time.Now()

func momentOf(t time.Time) moment {
	if t.IsZero() {
		return 0
	}
	return moment(t.Sub(began))
}

// time gives it back; none is the zero time.
func (m moment) time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return began.Add(time.Duration(m))
}

// since is how long ago it was.
func (m moment) since(now time.Time) time.Duration { return now.Sub(began) - time.Duration(m) }

// wait is the time-out state of one direction.
type wait struct {
	timeout time.Duration // longest wait without progress
	armed   time.Duration // length of the slice the socket deadline was set for; 0: not set
	at      moment        // what the socket deadline was set to
	idle    moment        // no progress since, valid if !fresh
	fresh   bool          // progress, or a new wait, since the deadline was last set
}

// set changes the time-out; a deadline armed for a much longer slice is armed anew.
func (w *wait) set(d time.Duration) {
	w.timeout = d
	if w.armed > 2*max(d/slices, time.Millisecond) {
		w.armed = 0
	}
}

// by has a wait end by the moment until, if there is one: a deadline armed for later is armed anew.
func (w *wait) by(until moment) {
	if until != 0 && w.at > until {
		w.armed = 0
	}
}

// next gives the moment the socket deadline is to be set to, and remembers it as armed.
func (w *wait) next(now, until time.Time, longest time.Duration) time.Time {
	d := w.timeout / slices
	if rest := w.timeout - w.idle.since(now); !w.fresh && rest < d {
		d = rest
	}
	if longest > 0 && d > longest {
		d = longest
	}
	w.armed = max(d, time.Millisecond)
	at := now.Add(w.armed)
	if !until.IsZero() && until.Before(at) {
		at = until
	}
	w.at = momentOf(at)
	return at
}

// over tells, when a socket deadline passed at now, whether the whole time-out has.
func (w *wait) over(now, until time.Time) bool {
	if !until.IsZero() && !now.Before(until) {
		return true
	}
	if w.fresh {
		w.fresh, w.idle = false, momentOf(now)
		return false
	}
	return w.idle.since(now) >= w.timeout
}

// piece is what is being read as a whole. A peer that sends a byte now and then makes progress for ever: so a whole
// command or reply is given the time of one wait as well, and a body a moment of its own. It is looked at only when a
// socket deadline passes, and so costs a quick peer nothing.
type piece struct {
	until moment // 0: not known yet, or no bound
	kind  pieceKind
}

type pieceKind uint8

const (
	noPiece pieceKind = iota
	aCommand
	aReply
)

// over tells whether the piece takes too long; begun, whether a part of it is there. The wait for a command is the
// session's own affair until its first byte.
func (p *piece) over(now time.Time, timeout time.Duration, begun bool) bool {
	if p.until != 0 {
		return p.until.since(now) >= 0
	}
	if p.kind == aReply || p.kind == aCommand && begun {
		p.until = momentOf(now.Add(timeout))
	}
	return false
}

func isDeadline(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
