package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/proxy/smtp"
)

// judgeOverheard finds what would have been done with a message that was not ours to stop, and logs it. The locks do not
// hear of it: nobody is locked for what was not enforced.
func (s *session) judgeOverheard(o *overheard) {
	defer s.srv.reserve(-len(o.body))
	s.set = s.srv.set.Load()
	if u := s.srv.cfg.Policy.Settings(s.flow.User.ID); u != nil {
		s.user = u
	}
	id := transactionID(s.flow.ID.String(), int(s.sent.Add(1)))
	s.tx = transaction{start: o.start, mail: o.mail, msg: message.Message{
		ID: id, Flow: &s.flow, Helo: o.helo, Received: o.start,
		Envelope: message.Envelope{
			From: message.Address(o.mail.Address), FromSize: max(o.mail.Size, 0), SMTPUTF8: o.mail.UTF8, Body8Bit: o.mail.Body == smtp.Body8BitMIME,
		},
	}}
	r := &Record{
		ID: id, Flow: s.flow, Start: o.start, Duration: time.Since(o.start), Helo: o.helo, From: o.mail.Address, To: o.to, Size: o.size,
		Status: o.status(), Reply: o.reply, Remote: o.reply, Source: s.flow.Client.Addr(), Shadow: true,
	}
	r.Verdict.Cause = -1
	if s.user == nil {
		r.Would = s.line(unknownUser)
	} else {
		r.Verdict, r.Would = s.would(o, r.Status)
	}
	s.srv.cfg.Log.Put(r)
}

// would asks the filter as a session of ours does; text is the reply of ours that would have stopped the message, or one
// of its recipients.
func (s *session) would(o *overheard, status Status) (v filter.Verdict, text string) {
	m := &s.tx.msg
	for _, p := range []filter.Phase{filter.Connect, filter.Helo, filter.Mail} {
		if v = s.ask(p, m); v.Refused() {
			return v, s.line(refusal(s.set, &v))
		}
	}
	accepted := 0
	for i := range o.to {
		if o.to[i].Code/100 != 2 {
			continue
		}
		accepted++
		m.Rcpt = message.Address(o.to[i].Address)
		if rv := s.ask(filter.Rcpt, m); !rv.Refused() {
			m.Envelope.To = append(m.Envelope.To, m.Rcpt)
		} else if text == "" {
			v, text = rv, s.line(refusal(s.set, &rv))
		}
		m.Rcpt = ""
	}
	if o.whole && text == "" {
		v, text = s.wouldData(o)
	}
	if status != Delivered {
		accepted = 0
	}
	s.set.Pipeline.Settle(m, filter.Outcome{Accepted: accepted, Verdict: &v, Lost: status == Lost})
	return v, text
}

func (s *session) wouldData(o *overheard) (v filter.Verdict, text string) {
	v.Cause = -1
	if o.size > s.maxSize() {
		code, enh, why, _ := smtp.ReplyFor(smtp.ErrTooLarge)
		return v, s.line(answer{code, enh, why})
	}
	s.tx.msg.Data, s.tx.msg.DataSize = o.body, o.size
	defer func() { s.tx.msg.Data = nil }()
	header := o.body
	if n := bytes.Index(header, []byte("\r\n\r\n")); n >= 0 {
		header = header[:n+2]
	}
	if v = s.verdict(header, time.Now()); v.Refused() {
		text = s.line(refusal(s.set, &v))
	}
	return v, text
}

// line is an answer of ours that is not given.
func (s *session) line(a answer) string { return line(a.code, a.enh, s.set.Name+": "+a.text) }

// status is how the destination let the transaction end.
func (o *overheard) status() Status {
	switch {
	case o.code/100 == 2:
		return Delivered
	case o.code/100 == 4:
		return Deferred
	case o.code != 0:
		return Refused
	case o.sent:
		return Ambiguous
	}
	t := transaction{tried: len(o.to)}
	for _, r := range o.to {
		if r.Code/100 == 2 {
			return Lost
		}
		t.temp = t.temp || r.Code/100 == 4
	}
	return t.outcome()
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// closeWrite passes the end of one direction on.
func closeWrite(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite() // the peer may be gone
		return
	}
	_ = c.Close()
}

// resetConn ends a connection with a RST.
func resetConn(c net.Conn) {
	switch r := c.(type) {
	case interface{ Reset() error }:
		_ = r.Reset() // it is gone in any case
		return
	case interface{ SetLinger(int) error }:
		_ = r.SetLinger(0)
	}
	_ = c.Close()
}
