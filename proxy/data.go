package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/proxy/smtp"
)

// dataCommand takes the message, judges it, and passes it on when it is good. The client hears 250 only after the
// destination's 250.
func (s *session) dataCommand(cmd *smtp.Command) {
	switch {
	case len(cmd.Arg) > 0:
		s.say(noArgument)
		return
	case s.parts:
		s.say(inChunks)
		return
	case s.tx.open && s.tx.mail.Body == smtp.BodyBinaryMIME: // RFC 3030 3
		s.say(binaryByChunks)
		return
	}
	if !s.mayBegin() || !s.wanted() {
		return
	}
	body := s.receive()
	if body == nil {
		return
	}
	defer body.Release()
	s.judge(body, time.Now())
}

// mayBegin tells whether a message may come now; if not, that is answered.
func (s *session) mayBegin() bool {
	t := &s.tx
	switch {
	case !t.open && s.helo == "":
		s.say(sayHelloFirst)
	case !t.open:
		s.say(sayMailFirst)
	case t.failed != nil:
		s.tellFailure(t.failed)
		s.finish(ending{status: failedStatus(t.failed), note: t.failed.Error()})
	case t.tried == 0:
		s.say(sayRcptFirst)
	case len(t.passed) == 0:
		s.sayNoRcpt()
	case s.house != nil && s.draft == nil:
		return s.beginDraft()
	default:
		return true
	}
	return false
}

// leastDiscard is how much of a message that is too large is read, so that a client hears why, however low the limit.
const leastDiscard = 16 << 20

// receive reads the message into memory and file; nil when it did not come whole, which is then answered and logged.
func (s *session) receive() *smtp.Body {
	s.goAhead()
	s.expect()
	s.conn.SetReadTimeout(s.set.Timeouts.Block)
	body := &s.body
	err := s.conn.ReadDataInto(body, &s.data)
	s.conn.SetReadTimeout(s.set.Timeouts.Command)
	if err == nil {
		return body
	}
	s.unreceived(err)
	return nil
}

// expect sets the bounds of the message that comes.
func (s *session) expect() {
	s.rest()
	s.stage(upload)
	s.data = smtp.DataOptions{
		MaxSize: s.maxSize(), MaxMemory: s.set.BodyMemory, MaxDiscard: max(4*s.set.MaxSize, leastDiscard),
		OpenSpill: s.set.spill, RefuseBareLF: s.set.RefuseBareLF, Reserve: s.srv.reserve,
		Until: s.tx.start.Add(s.set.Timeouts.Message),
	}
	if s.draft != nil {
		s.data.OpenSpill = s.draft.OpenSpill
	}
	if s.remote != nil {
		s.data.Tick, s.data.TickEvery = s.tick, s.set.Timeouts.Noop
		if s.remote.Waits() {
			s.data.TickEvery = min(s.data.TickEvery, s.srv.mostWait)
		}
	}
	if s.stream = (streaming{}); s.mayStream() {
		s.data.Arrived, s.data.From = s.arrived, s.set.Stream
		s.data.TickEvery = min(s.data.TickEvery, s.srv.mostWait)
	}
}

// unreceived answers and logs a message that could not be taken.
func (s *session) unreceived(err error) {
	told := err
	if errors.Is(err, smtp.ErrFlood) {
		told = smtp.ErrTooLarge // for good: after 421 the client would send the same flood again for days
	}
	code, enh, text, ok := smtp.ReplyFor(told)
	if !ok {
		s.note, s.gone = "client reset during the message", true
		s.finish(ending{status: Lost, lost: true, note: s.note})
		return
	}
	s.say(answer{code, enh, text})
	e := ending{status: Refused, note: text}
	if code/100 == 4 {
		e.status = Deferred
	}
	if !smtp.Recoverable(err) {
		s.note, s.bye = text, true
		if told == err {
			e.status, e.lost = Lost, true
		}
	}
	s.finish(e)
}

// OpenSpill opens a file in dir for what of a message is beyond memory; it vanishes with its descriptor.
func OpenSpill(dir string) (smtp.Spill, error) {
	f, err := os.CreateTemp(dir, "body-*")
	if err != nil {
		return nil, fmt.Errorf("could not open a file for a large message: %w; make %q writable", err, dir)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// judge asks the filter about the whole message, tells the locks before the client can hear anything, and answers.
func (s *session) judge(body *smtp.Body, at time.Time) {
	s.rest() // chunks that came in a row: a check has a turn of its own
	s.stage(judging)
	t := &s.tx
	t.ended = at
	data, err := s.seen(body)
	if err != nil {
		s.sayError(smtp.ErrSpill)
		s.finish(ending{status: Deferred, note: err.Error(), size: body.Size()})
		return
	}
	if s.house != nil {
		var ok bool
		if data, ok = s.authored(body, data); !ok {
			return
		}
	}
	t.msg.Data, t.msg.DataSize, t.msg.Whole, t.msg.Fields = data, body.Size(), body, message.Look(data)
	defer func() { t.msg.Data, t.msg.Whole, t.msg.Fields = nil, nil, message.Fields{} }()
	t.msg.Forwarded = message.PassedOn(&t.msg) || s.tenancy == nil && s.srv.foreign(&s.ctx, &t.msg)
	t.rec.Forwarded = t.msg.Forwarded
	v := &s.verdict
	*v = s.srv.verdict(&s.ctx, s.set, s.set.Pipeline, &t.msg, data[:min(body.HeaderLen(), int64(len(data)))], at)
	user := s.flow.User.ID
	t.tag, t.rec.Group, t.rec.Likely = v.Tag(), t.msg.Found.Group, t.msg.Found.Likely
	s.tellLocks(v)
	if v.Refused() || v.Class.Bad() {
		s.srv.doubts.raise(user, at)
	}
	ticket, is := s.srv.cfg.Locks.Locked(user)
	if !is && t.ticket != "" && !t.admin {
		ticket, is = t.ticket, true // unlocked meanwhile, but no destination has seen the envelope: it comes again
	}
	e := &s.ending
	*e = ending{verdict: *v, status: Refused, size: body.Size(), ticket: v.Ticket}
	switch {
	case v.Action == filter.Discard:
		s.discard(e)
		return
	case v.Refused() && v.Class.Bad() && !v.Action.Withheld():
		s.say(refusal(s.set, v, t.msg.ID))
		e.status = statusOf(v)
	case is && !t.admin:
		s.copyOfLocked(body, e)
		s.dropRemote()
		s.dropEarly()
		s.say(lockedAnswer(s.set, ticket, s.reason()))
		e.status, e.ticket = Deferred, ticket
	case v.Action == filter.Quarantine && s.srv.cfg.Quarantine != nil:
		s.quarantine(body, e)
		return
	case v.Action == filter.HighRisk && s.apart():
		s.letGo(body, at, e)
		return
	case v.Refused():
		if s.holdMessage(body, v, e) {
			return
		}
		s.say(refusal(s.set, v, t.msg.ID))
		e.status = statusOf(v)
	default:
		s.goAside()
		s.letGo(body, at, e)
		return
	}
	s.finish(*e)
}

// leastSeen is what the checks see at least, as they say of themselves.
const leastSeen = 256 << 10

// seen gives what the checks see of a message: as much as one body may have in memory, also where all bodies together
// had no room left and this one lies in a file. Else whoever fills the memory would have unchecked mail.
func (s *session) seen(body *smtp.Body) ([]byte, error) {
	n := min(body.Size(), max(int64(s.set.BodyMemory), leastSeen))
	if int64(len(body.Bytes())) >= n {
		return body.Bytes(), nil
	}
	b := make([]byte, n)
	if _, err := body.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("could not read a stored message for inspection: %w", err)
	}
	return b, nil
}

// verdict is the filter's, unless the mail is going round, which no check needs to look at.
func (s *Server) verdict(ctx context.Context, set *resolved, by *filter.Pipeline, m *message.Message, header []byte, at time.Time) filter.Verdict {
	budget := newBudget(ctx, at.Add(set.Timeouts.Verdict))
	defer budget.end()
	return s.look(budget, set, by, filter.Data, m, header)
}

// look asks the filter about a message, or its beginning.
func (s *Server) look(ctx context.Context, set *resolved, by *filter.Pipeline, ph filter.Phase, m *message.Message, header []byte) filter.Verdict {
	hops, loop := s.hops(ctx, header, m, set.MaxHops)
	if loop || hops > set.MaxHops {
		h := filter.Hit{
			Check: "loop", Code: "LOOP", Class: filter.Policy, Action: filter.Reject, SMTP: 554, Enhanced: "5.4.6",
			Text: "this message is going round in a loop", Evidence: fmt.Sprintf("%d or more Received fields, one of ours for this recipient: %t", hops, loop),
		}
		return filter.Judge([]filter.Hit{h})
	}
	return by.Ask(ctx, ph, m)
}

// hops counts those of a message, of a large header in turn.
func (s *Server) hops(ctx context.Context, header []byte, m *message.Message, most int) (n int, loop bool) {
	if m.Fields.Looked && !m.Fields.Traced {
		return 0, false
	}
	user := m.Flow.User.ID
	if len(header) >= filter.Large && s.cfg.Busy.Take(ctx, user) == nil {
		defer s.cfg.Busy.Give(user)
	}
	return s.cfg.Tracer.Hops(header, user, m.Envelope.To, most)
}

func statusOf(v *filter.Verdict) Status {
	switch {
	case v.Action.Withheld():
		return Withheld
	case v.Action == filter.Defer:
		return Deferred
	}
	return Refused
}
