package relay

import (
	"time"

	"sluice/proxy/smtp"
)

// streaming is a message that goes onward while it comes.
type streaming struct {
	out    *smtp.Stream
	chunks bool
	taken  int64 // of the body, at the last Push
}

// mostOwed is how many chunks may be on their way unanswered.
const mostOwed = 16

// CanStream tells whether a message may go to the destination while it comes: by DATA always, in chunks where these need not
// be waited for one by one (RFC 3030 4.2).
func (s *Session) CanStream() bool {
	return s.open && (!s.binary || s.caps.Has(smtp.ExtPipelining))
}

// Stream begins to send a message that is still coming, with prefix before it, to recipients that were accepted: from then
// on the destination waits (Waits), Pass sends what has come, and Deliver the end. Up to that, whatever ends the session
// ends it by a reset, and the destination has no message. A reply that refuses DATA is given instead; the error is a
// *Failure.
func (s *Session) Stream(prefix []byte, until time.Time) (*smtp.Reply, error) {
	s.conn.SetUntil(until)
	still := s.quiet
	if !s.binary {
		if f := s.begged(); f != nil {
			return nil, f
		}
		if s.data == refusedData {
			s.conn.SetUntil(time.Time{})
			return &s.rep, nil
		}
		still = s.hushed
	}
	if f := still(); f != nil {
		return nil, f
	}
	out, err := s.conn.BeginStream(prefix, s.binary)
	if err != nil {
		return nil, failed(err)
	}
	s.stream, s.data = &streaming{out: out, chunks: s.binary}, waits
	return nil, nil
}

// Streams tells whether a message is on its way while it comes.
func (s *Session) Streams() bool { return s.stream != nil }

// Pass sends what has come of the body, by the moment until. A reply that refuses it is given; then, and after an error, which
// is a *Failure, the session is to be closed.
func (s *Session) Pass(body *smtp.Body, until time.Time) (*smtp.Reply, error) {
	s.conn.SetUntil(until)
	if err := s.stream.out.Pass(body); err != nil {
		return nil, s.early(err)
	}
	return s.answered(mostOwed)
}

// Push sends what was gathered, by the moment until, and tells whether anything has come since the last time. The error is
// a *Failure.
func (s *Session) Push(until time.Time) (moved bool, err error) {
	s.conn.SetUntil(until)
	st := s.stream
	moved = st.out.Taken() > st.taken
	st.taken = st.out.Taken()
	if err := st.out.Flush(); err != nil {
		return moved, s.early(err)
	}
	return moved, nil
}

// answered reads replies to chunks until no more than most are owed. One that refuses is given.
func (s *Session) answered(most int) (*smtp.Reply, error) {
	for st := s.stream; st.out.Owed() > most; {
		if f := s.read(); f != nil {
			return nil, f
		}
		st.out.Answered()
		if s.rep.Class() != 2 {
			return s.refusal()
		}
	}
	return nil, nil
}

// refusal is the reply to a chunk that is none of success.
func (s *Session) refusal() (*smtp.Reply, error) {
	if s.rep.Class() == 3 {
		return nil, broken("the message with an impossible code", nil)
	}
	return &s.rep, nil
}

// deliverRest sends the rest of the message and its end, and returns the final reply.
func (s *Session) deliverRest(body *smtp.Body, c Client) (*smtp.Reply, error) {
	st := s.stream
	s.conn.SetReadTimeout(s.timeouts.Final)
	if err := st.out.Pass(body); err != nil {
		return nil, s.early(err)
	}
	if !st.chunks {
		if err := st.out.Flush(); err != nil {
			return nil, s.early(err)
		}
		if pending, err := s.conn.Probe(); err != nil || pending {
			return nil, s.early(smtp.ErrUnsolicited) // it has said why it wants no more, or left
		}
	}
	s.client = c
	err := st.out.End(s.ask)
	s.client = nil
	if err == nil && st.chunks {
		r, err := s.answered(1)
		if f, ok := err.(*Failure); ok {
			f.Sent = f.Raw == nil
		}
		if r != nil || err != nil {
			s.conn.Interrupt() // it has more to say to the chunks behind, of which nothing is to come
			return r, err
		}
	}
	if err != nil {
		return s.final(err)
	}
	chunks := st.chunks
	s.unstream()
	s.data, s.open, s.reset = notAsked, false, chunks
	r, err := s.final(nil)
	if err == nil && r.Class() == 2 {
		s.reset = false
	}
	return r, err
}

// unstream gives back what a stream holds.
func (s *Session) unstream() {
	if s.stream != nil {
		s.stream.out.Release()
		s.stream = nil
	}
}
