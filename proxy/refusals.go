package proxy

import (
	"bytes"
	"errors"
	"syscall"
	"time"

	"sluice/filter/policy"
	"sluice/intercept/flow"
	"sluice/proxy/distrust"
	"sluice/proxy/smtp"
)

// Refusals learns which clients refuse the gateway's certificate, or have one of their own to show at the destination, and
// which of their connections may pass unread (DEL12, DIP9). None of its methods waits for a disk or the network.
type Refusals interface {
	// Refused tells how it showed that the gateway's certificate does not do; text is for the log.
	Refused(f *flow.Flow, how distrust.Way, text string)
	// Trusted tells that a client began a transaction under the gateway's certificate.
	Trusted(f *flow.Flow)
	Passer
}

// Passer decides about connections for which the gateway's certificate does not do.
type Passer interface {
	// MayPass tells whether the flow's STARTTLS may be passed on now, and why; "" is no.
	MayPass(f *flow.Flow) (why string)
	// Pass books one such connection; spend then books bytes before they go on. Both are false when nothing is left.
	Pass(f *flow.Flow) (spend func(n int) bool, ok bool)
}

// refused tells of a handshake that failed.
func (s *session) refused(err error) {
	if s.srv.cfg.Refusals == nil || s.house != nil || s.ctx.Err() != nil {
		return
	}
	switch _, alert := smtp.PeerAlert(err); {
	case aboutCertificate(err):
		s.srv.cfg.Refusals.Refused(s.flow, distrust.Alert, err.Error())
	case s.conn.Met() && (alert || isEOF(err) || errors.Is(err, syscall.ECONNRESET)): // else it was not the client who ended it
		s.srv.cfg.Refusals.Refused(s.flow, distrust.Shake, err.Error())
	}
}

// refusedLate tells of a client that takes TLS 1.3's handshake to its end before it says what it thinks.
func (s *session) refusedLate(err error) {
	if s.srv.cfg.Refusals != nil && s.house == nil && s.secure.Load() && s.sent.Load() == 0 && aboutCertificate(err) {
		s.left = false
		s.note, s.block = "client refused the certificate: "+err.Error(), NoHandshake
		s.srv.cfg.Refusals.Refused(s.flow, distrust.Alert, err.Error())
	}
}

// refusedAfter tells of a client that had TLS and left, though nothing was wrong but perhaps the certificate.
func (s *session) refusedAfter() {
	if s.srv.cfg.Refusals == nil || s.house != nil || !s.left || !s.secure.Load() || s.own || s.sent.Load() > 0 || s.srv.drain.Err() != nil {
		return
	}
	if s.helo == "" { // not even a name
		s.block = NoHandshake
		s.note += " after the TLS handshake: it may refuse the certificate"
	}
	s.srv.cfg.Refusals.Refused(s.flow, distrust.Left, "left without mail after the handshake")
}

// trusted tells of a transaction under TLS.
func (s *session) trusted() {
	if s.srv.cfg.Refusals != nil && s.house == nil && s.secure.Load() {
		s.srv.cfg.Refusals.Trusted(s.flow)
	}
}

// certWanted tells of a destination that wants a certificate which only its client can have, and how it showed (DIP9).
func (s *session) certWanted(how string) {
	if s.srv.cfg.Refusals != nil && s.house == nil && s.starttls == policy.Terminate {
		s.srv.cfg.Refusals.Refused(s.flow, distrust.Wanted, "the destination asks for a certificate: "+how)
	}
}

// relayDenied tells of a recipient whom a relay, which takes mail for others and asked for a certificate, did not want from
// somebody without one. An exchanger refuses in the same words what is not its own: there the certificate is not missed.
func (s *session) relayDenied(r *smtp.Reply) {
	who := s.srv.cfg.Authority
	if r.Class() < 4 || !s.secure.Load() || s.authed || who == nil || s.remote == nil || !s.remote.Caps().AsksCert || !denies(r) {
		return
	}
	if exchanger, relays := who.Seen(s.flow.Target.Addr(), time.Now()); relays && !exchanger {
		s.certWanted(firstLine(r.Raw))
	}
}

// denies tells whether a reply refuses the sender, not the recipient: 5.7.x is about security or policy (RFC 3463), 530 wants
// him to say who he is (RFC 4954); the word alone has to do where a server is old, or puts off what it never takes, as
// Debian's Postfix does.
func denies(r *smtp.Reply) bool {
	return r.Code == 530 || r.Enh[0] == 5 && r.Enh[1] == 7 || bytes.Contains(bytes.ToLower(r.Raw), []byte("relay"))
}

// The TLS alerts about a certificate (RFC 8446 6.2): bad_certificate to unknown_ca, and access_denied.
const (
	firstCertificateAlert = 42
	lastCertificateAlert  = 49
	illegalParameter      = 47
)

// aboutCertificate tells whether the error is an alert of the peer about our certificate.
func aboutCertificate(err error) bool {
	n, ok := smtp.PeerAlert(err)
	return ok && firstCertificateAlert <= n && n <= lastCertificateAlert && n != illegalParameter
}
