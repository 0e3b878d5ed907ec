package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"

	"sluice/filter/policy"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// TLSRules knows destinations whose STARTTLS is treated otherwise than the user's setting says.
type TLSRules interface {
	// Towards returns the rule for a destination and why it was made; ok is false where there is none.
	Towards(target netip.AddrPort) (p policy.StartTLS, why string, ok bool)
}

// decideTLS finds what becomes of the client's STARTTLS: by the destination's rule, else the user's setting, else by what
// was learnt of the client. A locked user's session is led by us, so that he is told.
func (s *session) decideTLS() {
	s.starttls, s.why, s.learnt = s.user.StartTLS, s.user.StartTLSWhy, ""
	ruled := false
	if s.srv.cfg.StartTLS != nil {
		var p policy.StartTLS
		var why string
		if p, why, ruled = s.srv.cfg.StartTLS.Towards(s.flow.Target); ruled {
			s.starttls, s.why = p, why
		}
	}
	if s.starttls == policy.Terminate && !ruled && s.srv.cfg.Refusals != nil {
		if s.learnt = s.srv.cfg.Refusals.MayPass(s.flow); s.learnt != "" {
			s.starttls = policy.Pass
		}
	}
	if s.starttls == policy.Pass && (s.secure.Load() || s.authed || s.locked()) {
		s.starttls, s.learnt = policy.Terminate, ""
	}
}

func (s *session) locked() bool {
	_, is := s.srv.cfg.Locks.Locked(s.flow.User.ID)
	return is
}

// withhold notes that the destination's offer of STARTTLS was kept from the client.
func (s *session) withhold() {
	if s.withheld = "STARTTLS was not offered, though the destination does: strip"; s.why != "" {
		s.withheld += ", " + s.why
	}
}

// askBlind returns what the destination can do in plain text, from a session that waits for the client's own STARTTLS. It
// leaves from the customer's own address: nobody here answers for what goes by unread.
func (s *session) askBlind() (relay.Caps, error) {
	if s.blind != nil && s.blind.Alive() {
		return *s.blind.Caps(), nil
	}
	s.closeBlind()
	s.dropEarly()
	s.dropRemote()
	ctx, end := s.ctx.brief()
	defer end()
	r, err := s.srv.cfg.Dialer.OpenBlind(ctx, relay.Route{Target: s.flow.Target, Source: s.flow.Client.Addr(), Own: true, Helo: s.helo})
	if err != nil {
		return relay.Caps{}, err
	}
	s.blind = r
	s.cut.Store(r)
	if s.ctx.Err() != nil {
		r.Cut() // killed in between
	}
	return *r.Caps(), nil
}

// dropBlind says goodbye to a destination whose STARTTLS was not asked for.
func (s *session) dropBlind() {
	if s.blind != nil {
		s.blind.Quit()
		s.closeBlind()
	}
}

func (s *session) closeBlind() {
	if s.blind != nil {
		s.blind.Close()
		s.blind = nil
	}
}

// startTLS encrypts the client leg with our certificate and forgets what was said before (RFC 3207 4.2), or leaves both to
// the destination.
func (s *session) startTLS(cmd *smtp.Command) {
	switch {
	case s.secure.Load():
		s.say(tlsAlready)
		return
	case !s.offer.Has(smtp.ExtStartTLS):
		s.say(notImplemented)
		return
	case len(cmd.Arg) > 0:
		s.say(noArgument)
		return
	}
	if s.tx.open {
		s.finish(ending{status: s.tx.outcome(), note: "client began TLS within the transaction"})
	}
	if n := s.conn.Buffered(); n > 0 {
		s.note = fmt.Sprintf("client sent %d bytes behind STARTTLS, which were thrown away", n)
	}
	if s.starttls == policy.Pass && s.passTLS() {
		return
	}
	if err := s.conn.StartServerTLS(s.ourTLS(), s.set.Name+": go ahead"); err != nil {
		s.note = "TLS handshake with the client failed: " + err.Error()
		s.block, s.gone = NoHandshake, true
		s.refused(err)
		if s.sent.Load() > 0 {
			s.logEmpty() // the end of the session logs only those without a message
		}
		return
	}
	s.secure.Store(true)
	s.helo, s.offer = "", smtp.Extensions{}
}

// ourTLS are the settings of the client's leg.
func (s *session) ourTLS() *tls.Config {
	if s.house != nil {
		return s.house.TLS
	}
	return s.srv.cfg.TLS
}

// passTLS has the destination answer STARTTLS, and leaves the connection to both once it agrees. False when it is ours to
// answer after all: there is no room left for what passes unread.
func (s *session) passTLS() bool {
	var spend func(int) bool
	if s.learnt != "" {
		var ok bool
		if spend, ok = s.srv.cfg.Refusals.Pass(s.flow); !ok {
			s.dropBlind()
			return false
		}
	}
	if s.blind == nil { // a transaction in plain text came between
		if _, err := s.askBlind(); err != nil {
			s.tellFailure(asFailure(err))
			return true
		}
	}
	r, far, err := s.blind.StartTLS()
	if err != nil {
		s.closeBlind()
		s.tellFailure(asFailure(err))
		return true
	}
	s.heard = firstLine(r.Raw)
	if far == nil {
		s.pass(r.Raw) // it goes on in plain text, as without us
		return true
	}
	s.blind = nil
	s.pass(r.Raw)
	s.passOn(far, spend)
	return true
}

// The notes of sessions that went by unread.
const (
	unreadNote = "encrypted: STARTTLS was passed on to the destination"
	noTLSNote  = "ended: what the client said behind STARTTLS was no TLS"
	spentNote  = "encrypted, and ended: the source has used up what may pass unread"
)

// passOn leaves the rest of the connection to client and destination: metered, and ended by a lock, but not read.
func (s *session) passOn(far net.Conn, spend func(int) bool) {
	s.gone, s.opaque = true, true
	if s.note == "" {
		s.note = unreadNote
	}
	if s.learnt != "" {
		s.note += "; " + s.learnt
	}
	if _, err := s.conn.Detach(); err != nil {
		_ = far.Close() // nobody has heard anything from it
		return
	}
	defer context.AfterFunc(&s.ctx, func() { _ = far.Close() })() // a second close is harmless
	w := &shadow{session: s, far: far, spend: spend, onlyTLS: true, tap: tap{blind: unreadNote}}
	w.restage()
	w.pump()
	w.noteEnd()
	if s.sent.Load() > 0 {
		s.logEmpty() // the end of the session logs only those without a message
	}
}
