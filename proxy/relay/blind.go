package relay

import (
	"context"
	"net"

	"sluice/proxy/smtp"
)

// OpenBlind opens a session that stays in plain text: its STARTTLS is left to the client, see StartTLS. What the
// destination can do is not remembered, since it is not what it can do under TLS. The error is a *Failure.
func (d *Dialer) OpenBlind(ctx context.Context, r Route) (*Session, error) {
	s, f := d.lead(ctx, r, (*Session).begin)
	if f != nil {
		return nil, f
	}
	return s, nil
}

// OffersTLS tells whether the destination offered STARTTLS in a session of OpenBlind.
func (s *Session) OffersTLS() bool { return s.caps.Has(smtp.ExtStartTLS) }

// StartTLS says STARTTLS and returns the destination's reply. After 220 the connection is the caller's, to be handed to
// the client for its handshake, and the session is of no further use; plain text that came behind the 220 is thrown away.
// After any other reply conn is nil and the session goes on. The error is a *Failure.
func (s *Session) StartTLS() (r smtp.Reply, conn net.Conn, err error) {
	if f := s.command("STARTTLS"); f != nil {
		return r, nil, f
	}
	r = s.rep.Clone()
	if r.Code != 220 {
		return r, nil, nil
	}
	if conn, err = s.conn.Detach(); err != nil {
		return r, nil, failed(err)
	}
	return r, conn, nil
}
