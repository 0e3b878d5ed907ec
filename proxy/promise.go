package proxy

import (
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// What EHLO promises to a client is what the destination said some minutes ago at worst, and the mail goes onward by a
// session that may hear otherwise. What is missing then is told as soon as it is known, always for the time being: the
// client comes again and is promised what is true by now.

// ours is what the proxy itself can do. STARTTLS, PIPELINING and CHUNKING are added by their own rules.
const ours = smtp.ExtSize | smtp.Ext8BitMIME | smtp.ExtSMTPUTF8 | smtp.ExtDSN | smtp.ExtEnhanced | smtp.ExtChunking | smtp.ExtBinaryMIME

// promise makes the offer of what the destination can do (DEL8).
func (s *session) promise(caps *relay.Caps) {
	if !caps.ESMTP {
		s.offer = smtp.Extensions{}
		return
	}
	mine := smtp.Extensions{Set: ours | smtp.ExtLimits, Size: s.maxSize(), Limits: smtp.Limits{RcptMax: mostRcpts}}
	if s.secure.Load() && caps.Verified { // RFC 8689 2: only within TLS; and only where it can be kept
		mine.Set |= smtp.ExtRequireTLS
	}
	theirs := caps.Extensions
	if theirs.Size > 2*traceRoom {
		theirs.Size -= traceRoom // what we add must not make a message too large for the destination
	}
	s.offer = theirs.Intersect(&mine)
	s.offer.Limits.MailMax = 0 // a further onward session is opened instead
	if theirs.Limits == (smtp.Limits{}) || s.offer.Limits == (smtp.Limits{}) {
		s.offer.Set &^= smtp.ExtLimits
		s.offer.Limits = smtp.Limits{}
	}
}

// checkMail tells whether the parameters of MAIL were promised. AUTH= is for who authenticated, too, though AUTH is not
// offered any more (RFC 4954 5).
func (s *session) checkMail(m *smtp.Mail) error {
	if !s.authed && s.who.Login == "" || m.Auth == "" { // at a smarthost it is heard and not heeded: who logged in is known
		return s.offer.CheckMail(m)
	}
	with := s.offer
	with.Set |= smtp.ExtAuth
	return with.CheckMail(m)
}

// unfit tells why the onward session at hand cannot carry the transaction. BODY=8BITMIME is no reason yet: most messages
// that are announced so hold no such byte (see lossy).
func (s *session) unfit(rcpts []smtp.Rcpt) *answer {
	caps, t := s.remote.Caps(), &s.tx
	if s.weaker() {
		return &plainOnward
	}
	if err := s.remote.Meets(t.terms); err != nil {
		f := asFailure(err)
		return &answer{f.Code, f.Enh, f.Text}
	}
	if t.mail.RequireTLS && !(caps.Has(smtp.ExtRequireTLS) && caps.Encrypted && (caps.Verified || t.terms.Sure())) {
		return &lostTLS
	}
	var need smtp.ExtSet
	if t.mail.Body == smtp.BodyBinaryMIME {
		need |= smtp.ExtBinaryMIME | smtp.ExtChunking
	}
	if t.mail.UTF8 {
		need |= smtp.ExtSMTPUTF8
	}
	if t.mail.Ret != "" || t.mail.EnvID != "" {
		need |= smtp.ExtDSN
	}
	for i := range rcpts {
		if rcpts[i].Notify != 0 || rcpts[i].ORcpt != "" {
			need |= smtp.ExtDSN
		}
	}
	if !caps.Has(need) {
		return &lostSkill
	}
	return nil
}

// lossy tells why the message itself cannot go by the onward session at hand: it was announced as 8-bit and is, and the
// destination takes 7 bits (RFC 6152 3). It is for good where the client knew that. A message that is 8-bit without a
// word goes as it is, as it would have gone without us.
func (s *session) lossy(body *smtp.Body) *answer {
	switch {
	case s.tx.mail.Body != smtp.Body8BitMIME || s.remote.Caps().Has(smtp.Ext8BitMIME) || !body.Has8Bit():
		return nil
	case s.offer.Has(smtp.Ext8BitMIME):
		return &lostEight
	}
	return &noEight
}

// crowdedOut tells whether one more recipient is above the destination's own bounds of a transaction (RFC 9422 4.2, 4.3).
func (s *session) crowdedOut(domain string) bool {
	t, most := &s.tx, &s.offer.Limits
	return most.RcptMax > 0 && t.counted >= most.RcptMax ||
		most.RcptDomainMax > 0 && len(t.domains) >= most.RcptDomainMax && !smtp.HasFold(t.domains, domain)
}

// count counts a recipient that goes on its way to the destination.
func (t *transaction) count(domain string) {
	t.counted++
	if !smtp.HasFold(t.domains, domain) {
		t.domains = append(t.domains, domain)
	}
}
