package proxy

import (
	"errors"
	"net/netip"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// A large message may go onward while it comes (DEL14), where that is wanted: from the moment on at which its beginning was
// judged without objection. What makes it a message, the final dot or the last chunk, waits for the verdict on the whole; where
// that is not good, or anything of the way is not as it was taken to be, the onward session ends before it by a reset. It is
// kept whole here all the same: so whatever goes wrong on the way it can be sent once more, as if this had not been tried.

// streaming is what became of that with the message at hand.
type streaming struct {
	begun  bool           // the beginning was judged
	over   bool           // nothing of it goes onward any more before it is whole
	trace  string         // what went before it
	aside  bool           // as it was taken to leave
	failed *relay.Failure // of a destination that said why it leaves
	reply  smtp.Reply     // of one that refused the message; Code is 0 where none did
	source netip.Addr     // it came to from there
	out    TLS            // by this leg
}

// begunInVain is noted of a message of which the destination heard the beginning, and not the end.
const begunInVain = "its beginning had gone onward, not its end"

const (
	// partTime bounds the judgement on the beginning, for which the client's upload waits.
	partTime = 5 * time.Second
	// stalled is how long a destination may take nothing: the client, who waits as long, has three minutes for each piece
	// (RFC 5321 4.5.3.2.5).
	stalled = 2 * time.Minute
)

// mayStream tells whether the message that comes may go onward before it is whole, as far as its envelope tells. What is to be signed
// may not: its signature stands before it.
func (s *session) mayStream() bool {
	t := &s.tx
	return s.set.Stream > 0 && s.remote != nil && s.house == nil && !t.keeping && !s.maySign() && !(0 <= t.mail.Size && t.mail.Size < s.set.Stream) && s.unsuspected()
}

// arrived hears of each piece of a large message that comes.
func (s *session) arrived(body *smtp.Body) {
	st := &s.stream
	if st.over {
		return
	}
	s.rest() // who judges takes a turn of its own, and a destination is waited for without one
	if !st.begun {
		st.begun = true
		st.over = !s.harmless(body) || !s.beginStream()
	}
	switch {
	case st.over:
		return
	case s.remote == nil: // given up by a tick
		st.over = true
		return
	}
	if _, is := s.srv.cfg.Locks.Stopped(&s.tx.msg); is || s.doomed.Load() {
		st.over = true
		s.breakOff()
		return
	}
	r, err := s.remote.Pass(body, time.Now().Add(s.srv.stalled))
	switch {
	case err != nil:
		s.streamFailed(err)
	case r != nil:
		s.streamRefused(r)
		s.closeRemote()
	}
}

// harmless judges the beginning of a message. It is strict: an opinion that would stop nothing is an objection here.
func (s *session) harmless(body *smtp.Body) bool {
	t := &s.tx
	switch {
	case s.remote == nil || !s.remote.CanStream():
		return false
	case t.way.Why == pool.Signed: // which is looked at in the whole message
		return false
	case t.mail.Body == smtp.Body8BitMIME && !s.remote.Caps().Has(smtp.Ext8BitMIME): // which depends on each byte
		return false
	case s.srv.cfg.Quarantine != nil && s.srv.cfg.Quarantine.Has(s.flow.User.ID): // it may have gone out before
		return false
	}
	part, err := body.Beginning(max(int64(s.set.BodyMemory), leastSeen))
	header := body.HeaderArrived()
	if err != nil || header == 0 || header > int64(len(part)) {
		return false
	}
	m := &t.msg
	m.Data, m.DataSize = part, body.Arrived()
	defer func() { m.Data, m.DataSize = nil, 0 }()
	if m.Forwarded = message.PassedOn(m); m.Forwarded && !t.aside && s.hasAside() {
		return false
	}
	budget := newBudget(&s.ctx, time.Now().Add(partTime))
	defer budget.end()
	v := s.srv.look(budget, s.set, s.set.Pipeline, filter.Part, m, part[:header])
	if v.Refused() || v.Class.Bad() || v.Doubt() != nil || v.Tag() != "" || m.Told != "" {
		return false
	}
	_, is := s.srv.cfg.Locks.Stopped(m)
	return !is
}

// beginStream has the destination wait for the message.
func (s *session) beginStream() bool {
	st := &s.stream
	s.addTrace(nil)
	st.trace, st.aside = string(s.trace), s.tx.aside
	if time.Since(s.used) > surely && !s.remote.Waits() && !s.remote.Alive() {
		return false // another takes its place once the message is here
	}
	r, err := s.remote.Stream(s.trace, time.Now().Add(s.srv.stalled))
	switch {
	case err != nil:
		s.streamFailed(err)
	case r != nil:
		s.streamRefused(r)
		s.remote.Abandon()
	}
	return err == nil && r == nil
}

// streamRefused keeps the reply of a destination that refused the message; the client hears it behind its dot.
func (s *session) streamRefused(r *smtp.Reply) {
	st := &s.stream
	st.over, st.reply, st.source, st.out = true, r.Clone(), s.remote.Source(), tlsOf(s.remote.TLS())
}

// streamFailed notes the end of a session in the midst of a message: what the destination said is for the client, behind its
// dot. Where it said nothing the message goes by another session, once it is here.
func (s *session) streamFailed(err error) {
	f := asFailure(err)
	s.loseRemote(f)
	if s.stream.over = true; f.Raw != nil {
		s.stream.failed = f
		return
	}
	s.srv.doubts.raise(s.flow.User.ID, time.Now()) // the next one would end as this did
}

// streamTick has a destination that waits for more of a message get what there is. One that would wait for a client who has
// sent nothing for long hears of the message again once it is here.
func (s *session) streamTick() {
	s.rest()
	moved, err := s.remote.Push(time.Now().Add(s.srv.stalled))
	switch {
	case err != nil:
		s.streamFailed(err)
	case !moved:
		s.stream.over = true
		s.breakOff()
	}
}

// streamChunk sends what came of a message in a chunk, behind which the client may wait for long.
func (s *session) streamChunk() {
	if s.remote == nil || !s.remote.Streams() || s.conn.Buffered() > 0 {
		return
	}
	if _, err := s.remote.Push(time.Now().Add(s.srv.stalled)); err != nil {
		s.streamFailed(err)
	}
}

// streamEnded answers a message that its destination refused while it came. With false it is still to be sent.
func (s *session) streamEnded(body *smtp.Body, at time.Time, e *ending) bool {
	st, t := &s.stream, &s.tx
	switch {
	case t.risk || t.aside != st.aside: // it goes another way by now
		return false
	case st.failed != nil:
		s.heard = firstLine(st.failed.Raw)
		s.undelivered(st.failed, body, e)
	case st.reply.Code != 0:
		t.rec.Size, t.rec.Source, t.rec.Out = body.Size(), st.source, st.out
		s.heard, s.used = firstLine(st.reply.Raw), time.Now()
		s.pass(st.reply.Raw)
		s.answered(&st.reply, at, e)
	default:
		return false
	}
	return true
}

// asStreamed sees that what has gone onward of a message is what goes onward of it, now that it is judged; else the
// destination hears it anew.
func (s *session) asStreamed() {
	if s.remote == nil || !s.remote.Streams() {
		return
	}
	if s.addTrace(nil); s.tx.msg.Told != "" || string(s.trace) != s.stream.trace {
		s.breakOff()
	}
}

// resend tells whether a message that was lost on its way may be sent anew: nothing of its end had left, and nobody said why.
func (s *session) resend(err error) bool {
	if err == nil || errors.Is(err, relay.ErrGone) {
		return false
	}
	f := asFailure(err)
	return !f.Sent && f.Raw == nil && s.slot < 0
}
