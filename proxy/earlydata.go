package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/proxy/smtp"
)

// EarlyData says when DATA goes onward before the message is here. It saves a round trip for each message. The
// message itself waits for the verdict, and where that is not good the connection is closed: without its dot there is no message
// (RFC 5321 4.1.1.4). So that destinations hardly ever see such an end, the DATA of those waits of whom anything was refused
// or withheld lately.
type EarlyData uint8

// The choices.
const (
	EarlyAuto   EarlyData = iota // where the client pipelined DATA behind its recipients: it goes with them
	EarlyNever                   // never
	EarlyAlways                  // also where the client waits for 354: DATA goes while the message comes
)

// Standing knows of users what is known from before the start, and from elsewhere.
type Standing interface {
	// Clear tells whether nothing speaks against a user: he is neither locked nor on probation, and nothing bad was found
	// in his mail for as long as that counts.
	Clear(user uint32) bool
}

const (
	// mostWait is how long a destination waits for a message, from its 354 on: the least that RFC 5321 4.5.3.2 gives a client
	// is two minutes, and the verdict may take half a minute of them. Busy servers are less patient.
	mostWait = 20 * time.Second
	// surely is how old a destination's last word may be that it is taken for there without a look at the socket.
	surely = 50 * time.Millisecond
	// doubtTime is how long a user's DATA waits for his verdicts after a message of his did not go on.
	doubtTime = time.Hour
	// doubtRoom bounds the users who are remembered for that.
	doubtRoom = 1 << 16
)

// together tells whether the DATA that the client has pipelined goes onward with the recipients.
func (s *session) together() bool {
	return s.ahead && s.nextErr == nil && s.next.Verb == smtp.DATA && len(s.next.Arg) == 0 && s.set.EarlyData != EarlyNever && s.likely()
}

// likely tells whether the message that comes will most probably go on by the onward session at hand.
func (s *session) likely() bool {
	if s.parts || s.tx.mail.Size > int64(s.set.BodyMemory) {
		return false // it may take long to come, and one round trip is nothing to it
	}
	return s.unsuspected()
}

// unsuspected tells whether a session that may have to be broken off may carry the message.
func (s *session) unsuspected() bool {
	t, user := &s.tx, s.flow.User.ID
	switch {
	case t.ticket != "" || s.authed || s.user.KeepDeferred:
		return false // no message of a locked user does; nothing replaces a session with AUTH; what is put off is kept here
	case s.srv.doubts.about(user, t.start):
		return false
	}
	return s.srv.cfg.Standing == nil || s.srv.cfg.Standing.Clear(user)
}

// wanted tells whether the destination has not refused the message, as far as it was asked; else that is answered.
func (s *session) wanted() bool {
	if s.remote == nil {
		return true
	}
	r := s.remote.Data()
	switch {
	case r == nil && s.set.EarlyData == EarlyAlways && s.likely():
		if err := s.remote.Ask(); err != nil {
			s.loseRemote(asFailure(err)) // another takes its place once the message is here
		}
		return true
	case r == nil || s.remote.Waits():
		return true
	}
	t := &s.tx
	s.heard = firstLine(r.Raw)
	t.rec.Source, t.rec.Out = s.remote.Source(), tlsOf(s.remote.TLS())
	s.pass(r.Raw)
	e := ending{status: Refused, failed: 1}
	if r.Class() == 4 {
		e.status, e.failed = Deferred, 0
	}
	s.finish(e)
	return false
}

// goAhead says 354, in the destination's words where it has.
func (s *session) goAhead() {
	if s.remote != nil {
		if r := s.remote.Data(); r != nil {
			s.conn.WriteRaw(r.Raw)
			return
		}
	}
	s.conn.WriteRaw(s.set.fixed.goAhead)
}

// sayNoRcpt answers DATA where no recipient was accepted, in the destination's words where it heard it, too. One that wants
// the message of nobody (RFC 2920 3.1) gets none.
func (s *session) sayNoRcpt() {
	if s.remote != nil {
		r := s.remote.Data()
		switch {
		case s.remote.Waits():
			s.breakOff()
		case r != nil && !s.remote.Refused():
			s.pass(r.Raw)
			s.remote.Abandon() // a second DATA hears our own word, which is counted
			return
		}
	}
	s.say(noValidRcpt)
}

// there tells whether the onward session still stands, as far as that can be seen.
func (s *session) there(until time.Time) bool {
	if s.remote.Streams() {
		return true // it is seen to where the end is sent
	}
	if s.remote.Waits() {
		s.remote.Bound(until)
		if s.remote.Hear() != nil {
			return false
		}
		return time.Since(s.used) <= surely || !s.remote.Left() // what it says meanwhile is heard before the message goes
	}
	return time.Since(s.used) <= time.Second || s.remote.Alive()
}

// breakOff closes an onward session that waits for a message which does not come, or not in time.
func (s *session) breakOff() {
	s.closeRemote()
	s.srv.doubts.raise(s.flow.User.ID, time.Now())
}

// doubts remembers users of whom a message did not go on lately. It is safe for concurrent use.
type doubts struct {
	some atomic.Bool
	mu   sync.Mutex
	m    map[uint32]time.Time
}

// raise notes that a message of a user did not go on.
func (d *doubts) raise(user uint32, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m == nil {
		d.m = make(map[uint32]time.Time)
	}
	for old := range d.m { // map order is as good as random
		if _, known := d.m[user]; known || len(d.m) < doubtRoom {
			break
		}
		delete(d.m, old)
	}
	d.m[user] = at
	d.some.Store(true)
}

// about tells whether that was so lately.
func (d *doubts) about(user uint32, now time.Time) bool {
	if !d.some.Load() {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	at, known := d.m[user]
	if known && now.Sub(at) > doubtTime {
		delete(d.m, user)
		known = false
		d.some.Store(len(d.m) > 0)
	}
	return known
}
