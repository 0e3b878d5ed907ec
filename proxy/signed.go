package proxy

import (
	"context"
	"time"

	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// Signatures looks at the DKIM signatures of a whole message. It may ask the DNS, for a few seconds at most.
type Signatures interface {
	// Signature tells whether one verifies that is aligned with the author's domain; looked is false where nobody can tell.
	Signature(ctx context.Context, data []byte) (signed, looked bool)
	// Foreign tells whether one verifies by which the message was written by others than its user.
	Foreign(ctx context.Context, m *message.Message) bool
}

// signs tells whether the mail of the user and the sender's domain is known to be signed by its author's domain: where from
// it leaves is chosen before its header is seen, so that is learnt from earlier mail, and looked at once it is here.
func (s *session) signs() bool {
	if s.delivery() != policy.Auto {
		return false
	}
	sender := s.tx.msg.Envelope.From
	return s.srv.cfg.Signatures != nil && s.srv.signers.Has(s.flow.User.ID, sender.Domain(), s.tx.start) ||
		s.maySign() && s.srv.cfg.Signer.Expected(s.user, s.login(), sender)
}

// signature looks at the message, which SPF lets leave from none of our addresses, and learns.
func (s *session) signature(body *smtp.Body) (signed, looked bool) {
	t := &s.tx
	if s.srv.cfg.Signatures == nil || body.Spilled() {
		return false, false
	}
	signed, looked = s.srv.cfg.Signatures.Signature(&s.ctx, body.Bytes())
	if looked {
		s.srv.signers.Learn(s.flow.User.ID, t.msg.Envelope.From.Domain(), signed, t.start)
	}
	return signed, looked
}

// unsigned has a message leave from the customer's own address that was to leave from one of ours for its signature, and has
// none: the destination hears the envelope again. Others of the domain do so from the first until one is signed.
func (s *session) unsigned(body *smtp.Body, until time.Time) *relay.Failure {
	t := &s.tx
	if t.way.Why != pool.Signed || s.signsAuthor(body) {
		return nil
	}
	if signed, looked := s.signature(body); signed || !looked {
		return nil
	}
	if t.risk { // which leaves from no customer's own address
		return &relay.Failure{Code: notReplayed.code, Enh: notReplayed.enh, Text: notReplayed.text}
	}
	t.way = pool.Decision{Own: true, Why: pool.NotAllowed}
	t.rec.Way = t.way.Why.String()
	s.dropRemote()
	return s.replay(until)
}

// signedHere has a message that is to be kept leave from one of our addresses, though SPF allows none, where it is signed:
// whoever delivers it later need not guess.
func (s *session) signedHere(body *smtp.Body) {
	if s.decide(&s.ctx, s.tx.passed[0].Domain).Why != pool.NotAllowed {
		return
	}
	signed := s.signsAuthor(body)
	if !signed {
		signed, _ = s.signature(body)
	}
	if signed {
		s.tx.way = pool.Decision{Why: pool.Signed}
		s.tx.rec.Way = s.tx.way.Why.String()
	}
}
