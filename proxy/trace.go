package proxy

import (
	"sluice/filter/sign"
	"sluice/proxy/smtp"
)

// addTrace makes the fields that stand before the message when it goes on: ours, and what the filter wants to be read.
// Of what is kept only whoever delivers it knows the last form, and signs that.
func (s *session) addTrace(body *smtp.Body) {
	s.trace = s.trace[:0]
	if body != nil {
		s.trace = s.appendSignatures(s.trace, body)
	}
	s.trace = append(s.srv.cfg.Tracer.AppendReceived(s.trace, s.hop()), s.tx.tag...)
}

// hop is this message's step over the gateway.
func (s *session) hop() *sign.Hop {
	t := &s.tx
	s.hopRoom = sign.Hop{
		Flow: s.flow.ID, N: int(s.sent.Load()), User: s.flow.User.ID, Helo: s.helo, Client: s.flow.Client.Addr(),
		By: s.set.Name, ESMTP: s.esmtp, TLS: s.secure.Load(), Auth: s.who.Login != "", UTF8: t.mail.UTF8, Recipient: t.passed[0].Address, Time: t.start,
	}
	return &s.hopRoom
}
