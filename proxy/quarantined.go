package proxy

import (
	"context"
	"time"

	"sluice/filter"
	"sluice/proxy/smtp"
)

// Quarantine keeps copies of messages that the filter wants kept away from their recipients.
type Quarantine interface {
	// Has tells whether anything is known of a user's messages. It is asked for each message that passes, and costs a few
	// nanoseconds.
	Has(user uint32) bool
	// Keep keeps a copy, or counts one more try to send a message that is known. It returns once that is on disk.
	Keep(ctx context.Context, m *Kept, v *filter.Verdict) (Custody, error)
	// Known tells what is known of a message that the filter lets pass.
	Known(m *Kept) (Custody, error)
	// Delivered hears that a message went out by itself of which a copy is kept.
	Delivered(c Custody)
}

// Custody is what became of the copy of a message.
type Custody struct {
	ID       string // "" where there is none
	Released bool   // it was released: the message is on its way, or delivered
}

// quarantine keeps a copy of a message and answers: its sender is to hear that it goes nowhere. Where no copy can be kept
// nothing is said for good.
func (s *session) quarantine(body *smtp.Body, e *ending) {
	c, err := s.srv.cfg.Quarantine.Keep(&s.ctx, s.copyOf(body), &e.verdict)
	a := refusal(s.set, &e.verdict, s.tx.msg.ID)
	e.status = Withheld
	switch {
	case err != nil:
		e.note = err.Error()
	case c.Released:
		s.alreadyOut(c, e)
		return
	case s.house != nil:
		a = answer{250, smtp.Enhanced{2, 0, 0}, "kept as " + c.ID + " until somebody has looked at it"}
		e.status, e.accepted, e.note = Quarantined, len(s.tx.passed), "held as "+c.ID
	default:
		if !s.set.HeldLater {
			a.code, a.enh[0] = 550, 5
		}
		e.status, e.note = Quarantined, "held as "+c.ID
	}
	s.say(a)
	s.finish(*e)
}

// alreadyOut answers a message that was released while its sender still tried to send it: it does not go out twice.
func (s *session) alreadyOut(c Custody, e *ending) {
	s.say(answer{250, smtp.Enhanced{2, 0, 0}, "released before as " + c.ID + ", it is delivered from here"})
	e.status, e.accepted, e.note = Queued, len(s.tx.passed), "tried again; "+c.ID+" was released before"
	s.finish(*e)
}

// custody tells what the quarantine knows of a message that passes; most users have nothing there.
func (s *session) custody(body *smtp.Body) (Custody, error) {
	q := s.srv.cfg.Quarantine
	if q == nil || !q.Has(s.flow.User.ID) {
		return Custody{}, nil
	}
	return q.Known(s.copyOf(body))
}

// copyOf is the message as a keeper gets it.
func (s *session) copyOf(body *smtp.Body) *Kept {
	t := &s.tx
	s.trace = s.srv.cfg.Tracer.AppendReceived(s.trace[:0], s.hop())
	as, _ := s.signsAs(body)
	return &Kept{As: as, ID: t.msg.ID, Flow: s.flow, Login: s.login(), Mail: &t.mail, Rcpts: t.passed, Trace: s.trace, Body: body, At: t.start, Secure: s.secure.Load(), HandedIn: s.house != nil, Forwarded: t.msg.Forwarded, Group: t.msg.Found.Group}
}

// letGo lets a good message go its way, unless it went already.
func (s *session) letGo(body *smtp.Body, at time.Time, e *ending) {
	c, err := s.custody(body)
	switch {
	case err != nil: // it might be delivered twice
		s.say(notKept)
		e.status, e.note = Deferred, err.Error()
		s.finish(*e)
	case c.Released:
		s.alreadyOut(c, e)
	default:
		s.deliver(body, at, e)
		if c.ID != "" && (e.status == Delivered || e.status == Queued) {
			s.srv.cfg.Quarantine.Delivered(c)
		}
	}
}

// copyOfLocked keeps a copy of what a locked user sends, where the filter wants one. The lock answers.
func (s *session) copyOfLocked(body *smtp.Body, e *ending) {
	if e.verdict.Action != filter.Quarantine || s.srv.cfg.Quarantine == nil {
		return
	}
	c, err := s.srv.cfg.Quarantine.Keep(&s.ctx, s.copyOf(body), &e.verdict)
	if err != nil {
		e.note = "no copy was kept: " + err.Error()
		return
	}
	e.note = "held as " + c.ID
}
