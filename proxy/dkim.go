package proxy

import (
	"context"
	"strings"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/filter/sign"
	"sluice/proxy/smtp"
)

// Signer has messages signed (SIG1). What it cannot have signed goes on as it is.
type Signer interface {
	// As tells in whose name a user's message is signed, and whether that is its author's domain; nobody's where none is to be, or
	// where why says what stands against it. It may ask the DNS, for a few seconds at most, about signatures that the message has.
	As(ctx context.Context, u *policy.Settings, login string, body *smtp.Body) (as sign.As, author bool, why string)
	// Expected tells whether a user's mail from a sender will be signed in the name of the sender's domain, should that be its author's.
	Expected(u *policy.Settings, login string, from message.Address) bool
	// Signatures appends the fields in somebody's name, and tells which keys signed; where none did, why not.
	Signatures(dst []byte, as sign.As, body *smtp.Body, at time.Time) (fields []byte, keys, why string)
}

// signs is what is known of the signing of one message.
type signs struct {
	of     *Record // the message; nil: nothing is known
	as     sign.As
	author bool // of its author's domain
	why    string
}

// maySign tells whether the user's mail is to be signed at all.
func (s *session) maySign() bool {
	return s.user.Signing.DKIM != policy.DKIMOff && s.srv.cfg.Signer != nil
}

// lookedUp finds once for each message who signs it.
func (s *session) lookedUp(body *smtp.Body) *signs {
	if k := &s.dkim; k.of == nil || k.of != s.tx.rec {
		*k = signs{of: s.tx.rec}
		k.as, k.author, k.why = s.srv.cfg.Signer.As(&s.ctx, s.user, s.login(), body)
	}
	return &s.dkim
}

// signsAs tells in whose name a message will be signed that is kept, and what the log says of it until then.
func (s *session) signsAs(body *smtp.Body) (as sign.As, log string) {
	if !s.maySign() {
		return as, ""
	}
	k := s.lookedUp(body)
	if k.as.Domain == "" {
		return k.as, notSigned(k.why)
	}
	return k.as, ""
}

// signsAuthor tells whether a message is signed here by its author's domain.
func (s *session) signsAuthor(body *smtp.Body) bool {
	return s.maySign() && s.lookedUp(body).author
}

// appendSignatures appends what signs the message at hand, where its user's settings want that.
func (s *session) appendSignatures(dst []byte, body *smtp.Body) []byte {
	if !s.maySign() {
		return dst
	}
	k := s.lookedUp(body)
	if k.as.Domain == "" {
		s.tx.rec.Signed = notSigned(k.why)
		return dst
	}
	if most := s.remote.Caps().Size; most > 0 && body.Size()+sign.Room > most {
		s.tx.rec.Signed = notSigned("the destination has no room for it")
		return dst
	}
	if user := s.flow.User.ID; body.Size() >= filter.Large && s.srv.cfg.Busy.Take(&s.ctx, user) == nil {
		defer s.srv.cfg.Busy.Give(user)
	}
	dst, keys, why := s.srv.cfg.Signer.Signatures(dst, k.as, body, time.Now())
	s.tx.rec.Signed = SignedBy(k.as, keys, why)
	return dst
}

// SignedBy is what the log says of a signature in somebody's name.
func SignedBy(as sign.As, keys, why string) string {
	if keys == "" {
		return notSigned(why)
	}
	return strings.TrimSpace(as.Domain + " (" + keys + ") " + why)
}

func notSigned(why string) string {
	if why == "" {
		return ""
	}
	return "no: " + why
}
