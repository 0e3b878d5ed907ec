package proxy

import (
	"errors"
	"net"
	"reflect"
	"syscall"

	"sluice/intercept/flow"
	"sluice/proxy/distrust"
)

// Refusals learns which clients refuse the gateway's certificate, and which of their connections may pass unread (DEL12).
// None of its methods waits for a disk or the network.
type Refusals interface {
	// Refused tells that a client broke off, and how; text is for the log.
	Refused(f *flow.Flow, how distrust.Way, text string)
	// Trusted tells that a client began a transaction under the gateway's certificate.
	Trusted(f *flow.Flow)
	Passer
}

// Passer decides about connections of clients that refuse the certificate.
type Passer interface {
	// MayPass tells whether the flow's STARTTLS may be passed on now.
	MayPass(f *flow.Flow) bool
	// Pass books one such connection; spend then books bytes before they go on. Both are false when nothing is left.
	Pass(f *flow.Flow) (spend func(n int) bool, ok bool)
}

// refused tells of a handshake that failed.
func (s *session) refused(err error) {
	if s.srv.cfg.Refusals == nil || s.house != nil || s.ctx.Err() != nil {
		return
	}
	switch _, alert := alertOf(err); {
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

// The TLS alerts about a certificate (RFC 8446 6.2): bad_certificate to unknown_ca, and access_denied.
const (
	firstCertificateAlert = 42
	lastCertificateAlert  = 49
	illegalParameter      = 47
)

// aboutCertificate tells whether the error is an alert of the peer about our certificate.
func aboutCertificate(err error) bool {
	n, ok := alertOf(err)
	return ok && firstCertificateAlert <= n && n <= lastCertificateAlert && n != illegalParameter
}

// alertOf is the peer's alert in an error. The library gives its number as an unexported kind of uint8.
func alertOf(err error) (n uint64, ok bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" || op.Err == nil {
		return 0, false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, false
	}
	return v.Uint(), true
}
