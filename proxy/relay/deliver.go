package relay

import (
	"errors"
	"time"

	"sluice/proxy/smtp"
)

// Client is asked whether it is still there.
type Client interface {
	Gone() bool
}

// Bound bounds all that follows by the moment t, until Deliver has succeeded.
func (s *Session) Bound(t time.Time) { s.conn.SetUntil(t) }

// Deliver sends DATA, where it has not gone ahead, and, once it is taken, prefix, the body and the dot, and returns the final reply, which is valid
// until the next call. The client is asked after 354, right before the last write of the message: one that is gone
// stops everything with ErrGone, and the destination never sees the dot. until bounds it all. A reply to DATA that
// refuses is a final reply too. The error is ErrGone, ErrNoChunk or a *Failure.
//
// After BODY=BINARYMIME the message leaves as one chunk (RFC 3030): there is no 354 then, and no round trip for it. So does a
// small one where the destination has shown that it can, and prefix alone where it is to show that (chunks.go), unless that is off.
//
// Of a message that goes while it comes (Stream) it sends the rest and the end, and prefix is what was given then.
func (s *Session) Deliver(prefix []byte, body *smtp.Body, until time.Time, c Client) (*smtp.Reply, error) {
	s.conn.SetUntil(until)
	if s.stream != nil {
		return s.deliverRest(body, c)
	}
	if s.asChunk(prefix, body) {
		return s.deliverChunk(prefix, body, c)
	}
	ahead := s.Waits()
	if f := s.begged(); f != nil {
		return nil, f
	}
	if s.data == refusedData {
		s.conn.SetUntil(time.Time{})
		return &s.rep, nil
	}
	switch {
	case ahead:
		if f := s.hushed(); f != nil {
			return nil, f
		}
	case s.conn.Unread():
		return nil, failed(smtp.ErrUnsolicited)
	}
	s.data, s.open = notAsked, false
	s.conn.SetReadTimeout(s.timeouts.Final)
	s.client = c
	err := s.conn.WriteDataAsking(prefix, body, s.ask)
	s.client = nil
	return s.final(err)
}

// hushed makes sure, by a look at the socket, that a destination which waits for the message has not spoken meanwhile: that
// would be taken for its answer. Why it wants none it may have said.
func (s *Session) hushed() *Failure {
	switch pending, err := s.conn.Probe(); {
	case err != nil:
		return failed(err)
	case pending:
		return s.early(smtp.ErrUnsolicited)
	}
	return nil
}

// final reads the answer to a message that was written, or tells why it was not.
func (s *Session) final(err error) (*smtp.Reply, error) {
	if errors.Is(err, ErrGone) {
		return nil, ErrGone
	}
	if err != nil { // the last byte is what makes it a message: it has not left
		return nil, s.early(err)
	}
	if f := s.read(); f != nil {
		f.Sent = f.Raw == nil
		return nil, f
	}
	if s.rep.Class() == 3 {
		f := broken("the message with an impossible code", nil)
		f.Sent = true
		return nil, f
	}
	s.conn.SetReadTimeout(s.timeouts.Command)
	s.conn.SetUntil(time.Time{})
	return &s.rep, nil
}

// lastWords is how long a destination that closed is listened to: what it said is there already, or on its way.
const lastWords = 100 * time.Millisecond

// early is the failure of a destination that took no more of the message: why, if it said so before it closed.
func (s *Session) early(err error) *Failure {
	if s.conn.LastReply(&s.rep, lastWords) != nil || s.rep.Class() < 4 {
		return failed(err)
	}
	f := refusal(&s.rep)
	f.Close = f.Code == 421
	return f
}

// stillThere asks the client.
func (s *Session) stillThere() error {
	if s.client.Gone() {
		return ErrGone
	}
	return nil
}

// ErrGone: the client left, so the message was not sent.
var ErrGone = errors.New("the client left before the message went onward")
