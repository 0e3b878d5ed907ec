package relay

import (
	"errors"

	"sluice/proxy/smtp"
)

// dataState is what became of DATA before the message is there.
type dataState uint8

const (
	notAsked    dataState = iota
	asked                 // DATA has gone, its reply is not read
	waits                 // 354 was said: what comes next is the message
	refusedData           // the reply, any other, is in rep
)

// errWaits: a mistake of ours, which must not become the text of a message.
var errWaits = errors.New("the destination waits for a message")

// Group does as Recipients, and sends DATA behind the recipients in the same write where the destination takes PIPELINING
// and has not shown that it takes chunks. What it said to DATA, Data tells. From then on the destination may
// wait for the message (Waits): it can have that by Deliver, or the session is to be closed, which it takes for no message
// (RFC 5321 4.1.1.4). The error is a *Failure, also where DATA was answered with 421 or by nothing; then all recipients have
// been told.
func (s *Session) Group(mail *smtp.Mail, rcpts []smtp.Rcpt, told Listener) error {
	chunk := mail.Body == smtp.BodyBinaryMIME || s.taker.takes() // which needs no 354, and no closing
	if f := s.recipients(mail, rcpts, told, !chunk); f != nil {
		return f
	}
	return nil
}

// Ask sends DATA ahead of the message without waiting for the reply, see Hear. The error is a *Failure.
func (s *Session) Ask() error {
	if s.inChunk() || s.binary || !s.open {
		return nil
	}
	if f := s.quiet(); f != nil {
		return f
	}
	err := s.conn.WriteCommand("DATA")
	if err == nil {
		err = s.conn.Flush()
	}
	if err != nil {
		return failed(err)
	}
	s.data = asked
	return nil
}

// Hear reads the reply to the DATA of Ask, if that is owed. The error is a *Failure.
func (s *Session) Hear() error {
	if s.data != asked {
		return nil
	}
	if f := s.readData(); f != nil {
		return f
	}
	return nil
}

// Data returns the reply to a DATA that went with the recipients, nil where none did. It is valid until the next call of
// another method that speaks to the destination.
func (s *Session) Data() *smtp.Reply {
	if s.data == waits || s.data == refusedData {
		return &s.rep
	}
	return nil
}

// Waits tells whether the destination waits for the message, or may do so: the session is good for that and nothing else.
func (s *Session) Waits() bool { return s.data == asked || s.data == waits }

// writeGroup writes recipients, and DATA where it goes with them.
func (s *Session) writeGroup(rcpts []smtp.Rcpt, data bool) error {
	err := s.writeRcpts(rcpts)
	if err == nil && data {
		err = s.conn.WriteCommand("DATA")
	}
	return err
}

// groupAnswers reads what writeGroup asked for.
func (s *Session) groupAnswers(rcpts []smtp.Rcpt, told Listener, data bool) *Failure {
	f := s.answers(0, rcpts, told)
	if f == nil && data {
		s.data = asked
		f = s.readData()
	}
	if f != nil && s.refused != nil { // its last word was the refusal of MAIL
		s.data = notAsked
		s.conn.Interrupt()
		return nil
	}
	return f
}

// begged has the destination's reply to DATA, which is sent where that has not been done.
func (s *Session) begged() *Failure {
	switch s.data {
	case waits, refusedData:
		return nil
	case asked:
		return s.readData()
	}
	if f := s.quiet(); f != nil {
		return f
	}
	if err := s.conn.WriteCommand("DATA"); err != nil {
		return failed(err)
	}
	return s.readData()
}

// readData reads the reply to DATA.
func (s *Session) readData() *Failure {
	if f := s.read(); f != nil {
		return f
	}
	switch {
	case s.rep.Code == 354:
		s.data = waits
	case s.rep.Class() == 2:
		return broken("DATA with success before the message", nil)
	case s.rep.Class() == 3:
		return broken("DATA with an impossible code", nil)
	default:
		s.data, s.open = refusedData, false
		s.reset = true // the transaction is over by most readings, but not by all
	}
	return nil
}
