package proxy

import (
	"errors"
	"net/netip"
	"time"

	"sluice/filter/message"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// deliver sends the message onward and passes the destination's answer back.
func (s *session) deliver(body *smtp.Body, at time.Time, e *ending) {
	if s.tx.msg.Told != "" {
		body.CutField(s.tx.msg.Told)
		s.tx.msg.Fields = message.Fields{} // it stands elsewhere now
	}
	if s.house != nil {
		s.keepMessage(body, e)
		return
	}
	if s.tx.keeping {
		s.deliverLater(body, e)
		return
	}
	s.stage(onward)
	if s.streamEnded(body, at, e) {
		return
	}
	s.asStreamed()
	t, until := &s.tx, at.Add(s.set.Timeouts.Answer)
	if f := s.unsigned(body, until); f != nil {
		s.undelivered(f, body, e)
		return
	}
	s.fit(body)
	reply, err := s.transfer(body, until, e)
	if reply == nil && err == nil {
		return
	}
	s.used = time.Now()
	switch {
	case err == nil:
		s.pace()
		if s.heard = ""; reply.Class() == 4 {
			if s.heard = firstLine(reply.Raw); s.keepDeferred(body, e) {
				return
			}
		}
		s.pass(reply.Raw)
		s.heard = s.last
		s.answered(reply, at, e)
		if t.way.Why == pool.NotAllowed {
			s.signature(body) // for the next one
		}
	case errors.Is(err, relay.ErrGone) && s.overtaken != "":
		s.closeRemote()
		t.rec.Source = netip.Addr{}
		s.say(lockedAnswer(s.set, s.overtaken, s.reason()))
		e.status, e.ticket = Deferred, s.overtaken
		s.overtaken = ""
		s.finish(*e)
	case errors.Is(err, relay.ErrGone):
		s.closeRemote() // the destination waits for a body: without its dot there is no message
		t.rec.Source = netip.Addr{}
		s.note, s.gone = "client left before the message went onward", true
		e.status, e.lost, e.note = Lost, true, s.note
		s.finish(*e)
	default:
		f := asFailure(err)
		s.loseRemote(f)
		if !f.Sent {
			t.rec.Source = netip.Addr{}
		}
		s.undelivered(f, body, e)
	}
}

// fit has the session take as little memory as it can until the destination has answered, where that is slow.
func (s *session) fit(body *smtp.Body) {
	s.asked = time.Now() // what the checks took is not the destination's
	if !s.srv.paces.slow(s.flow.Target.Addr()) {
		return
	}
	s.conn.Idle()
	m := &s.tx.msg
	if body.Fit() {
		m.Fields.Moved(m.Data, body.Bytes())
		m.Data = body.Bytes()
	}
}

// pace notes how long the destination took.
func (s *session) pace() { s.srv.paces.took(s.flow.Target.Addr(), s.used.Sub(s.asked)) }

// transfer gives the message to the onward session, which is a new one where there is none any more, and returns the final
// reply. Neither that nor an error: the client was answered.
func (s *session) transfer(body *smtp.Body, until time.Time, e *ending) (*smtp.Reply, error) {
	for byData := false; ; {
		if s.remote == nil || !s.there(until) {
			if f := s.replay(until); f != nil {
				s.undelivered(f, body, e)
				return nil, nil
			}
		}
		if byData {
			s.remote.ByData() // it may be another server behind the same address
		}
		if a := s.lossy(body); a != nil {
			s.say(*a)
			e.status, e.note = Refused, a.text
			if a.code/100 == 4 {
				e.status = Deferred
			}
			s.finish(*e)
			return nil, nil
		}
		t := &s.tx
		s.addTrace(body)
		t.rec.Size, t.rec.Source = body.Size(), s.remote.Source()
		t.rec.Out = s.outLeg()
		s.slot = -1
		streams := s.remote.Streams()
		reply, err := s.remote.Deliver(s.trace, body, until, s)
		switch {
		case errors.Is(err, relay.ErrNoChunk):
			byData = true
			s.landed() // with a word that it was not taken
		case !streams || !s.resend(err):
			return reply, err
		}
		s.closeRemote()
	}
}

// answered ends a transaction, whose data ended at a moment, to which the destination gave its final reply.
func (s *session) answered(reply *smtp.Reply, at time.Time, e *ending) {
	switch reply.Class() {
	case 2:
		e.status, e.accepted = Delivered, len(s.tx.passed)
		if !s.remote.Route().Own {
			s.srv.cfg.Authority.Sent(s.remote.Source(), s.tx.passed[0].Domain, s.used)
		}
		if s.used.Sub(at) > s.srv.longWait {
			if _, err := s.conn.Probe(); err != nil {
				e.status, e.note = Ambiguous, leftUnheard
			}
		}
	case 4:
		e.status = Deferred
	default:
		e.status, e.failed = Refused, 1
	}
	s.told(e)
}

// undelivered answers a message whose destination failed.
func (s *session) undelivered(f *relay.Failure, body *smtp.Body, e *ending) {
	e.note = f.Error()
	if !f.Sent && f.Code/100 == 4 && s.keepDeferred(body, e) {
		return
	}
	s.tellFailure(f)
	e.status = failedStatus(f)
	s.told(e)
}

// failedStatus is the status of a message whose destination failed.
func failedStatus(f *relay.Failure) Status {
	switch {
	case f.Sent:
		return Ambiguous
	case f.Code >= 500:
		return Refused
	}
	return Deferred
}

// told sends the answer at once, and only then does what the client need not wait for.
func (s *session) told(e *ending) {
	if err := s.conn.Flush(); err != nil && e.status == Delivered {
		e.status, e.note = Ambiguous, leftUnheard
	}
	s.finish(*e)
	s.landed() // not before the log has it: what is ambiguous must be in one of them
}

// landed takes the message out of those in flight.
func (s *session) landed() {
	if s.slot >= 0 && s.srv.cfg.Inflight != nil {
		s.srv.cfg.Inflight.Answered(s.slot)
		s.slot = -1
	}
}
