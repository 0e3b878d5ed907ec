package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"sluice/proxy/smtp"
	"sluice/proxy/tlspolicy"
)

// Servers knows servers by their addresses, as domains whose mail they take publish them.
type Servers interface {
	// PolicyAt returns what is known of the server at an address, nil for nothing; sure tells that its name is vouched
	// for by DNSSEC or by an MTA-STS policy. It waits for nothing.
	PolicyAt(a netip.Addr) (p *tlspolicy.Policy, sure bool)
}

// errHandshake: the destination offers STARTTLS, but the handshake with it fails.
var errHandshake = errors.New("TLS handshake failed")

// unmet: the connection is not what is required. The client may try again later; by then it may be.
func unmet(text string, err error) *Failure {
	return &Failure{Code: 451, Enh: errUnmet, Text: text, Err: err}
}

var errUnmet = smtp.Enhanced{4, 7, 5} // RFC 3463: cryptographic failure

// terms are how one session is to be encrypted.
type terms struct {
	policy *tlspolicy.Policy
	plain  bool   // not at all
	simple bool   // with as little in the handshake as will do
	name   string // to give in the handshake
	asked  bool   // the destination asked for a certificate of ours
	wanted bool   // and went on with nobody who had none: short handshakes do not ask again
}

// onward are the general settings of the onward leg. Which certificate does, the session's policy says: by itself any is
// better than plain text, since plain text is what would be sent instead (RFC 7435), and the customer's server chose the
// address, not a name.
func onward() *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		InsecureSkipVerify:          true,
		CipherSuites:                suites(),
		ClientSessionCache:          tls.NewLRUClientSessionCache(2048),
		DynamicRecordSizingDisabled: true, // a body leaves in few writes
	}
}

// suites are all that TLS 1.2 may use: those that are held safe, and AES under RSA's key exchange, which lacks forward
// secrecy and is all that some old servers have.
func suites() (ids []uint16) {
	for _, s := range tls.CipherSuites() {
		ids = append(ids, s.ID)
	}
	return append(ids, tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA)
}

// config makes the settings of one handshake.
func (t *terms) config(base *tls.Config) *tls.Config {
	c := base.Clone()
	c.ServerName = t.name
	if t.simple { // the keys of newer exchanges make a hello of more than one packet, which some break at
		c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		t.asked = true
		return &tls.Certificate{}, nil // none: ours would prove nothing of the customer
	}
	return c
}

// Open connects, reads the greeting, says EHLO and encrypts where it can. The error is a *Failure.
func (d *Dialer) Open(ctx context.Context, r Route) (*Session, error) {
	return d.OpenUnder(ctx, r, nil)
}

// OpenUnder opens a session that meets a policy; nil takes what it can get. A handshake that fails is tried once more with
// less in it, which may help; after that the destination is spoken to in plain text where that may be, and for a while the
// handshake is not tried again. The error is a *Failure, of code
// 451 4.7.5 where the destination is there and does not meet the policy.
func (d *Dialer) OpenUnder(ctx context.Context, r Route, p *tlspolicy.Policy) (*Session, error) {
	t := terms{policy: p, simple: d.shakes.simple(r.Target, time.Now()), wanted: d.shakes.wantsCert(r.Target)}
	if t.name = p.ServerName(); t.name == "" && d.servers != nil && !t.simple {
		at, _ := d.servers.PolicyAt(r.Target.Addr())
		t.name = at.ServerName()
	}
	avoided := !p.Must() && d.shakes.skip(r.Target, time.Now())
	t.plain = avoided || p != nil && p.Level == tlspolicy.None
	s, f := d.open(ctx, r, &t)
	if f != nil && errors.Is(f, errHandshake) && !t.simple && !f.Cert && !errors.Is(f, smtp.ErrTimeout) {
		t.simple, t.name = true, p.ServerName()
		if s, f = d.open(ctx, r, &t); f == nil {
			d.shakes.onlySimple(r.Target, time.Now())
		}
	}
	if f != nil && (f.Cert || errors.Is(f, errHandshake)) {
		d.legs.Failed.Add(1)
		d.shakes.failed(r.Target, f, time.Now())
		if p.Must() {
			cert := f.Cert
			f = unmet("encryption is required, and the handshake with the destination fails", f.Err)
			f.Cert = cert
		} else {
			avoided, t.plain = true, true
			s, f = d.open(ctx, r, &t)
		}
	}
	if f != nil {
		if f.Enh == errUnmet {
			d.legs.Unmet.Add(1)
		} else {
			d.cache.drop(r.place())
		}
		return nil, f
	}
	d.opened(s, &t, avoided)
	return s, nil
}

// opened remembers and counts a session.
func (d *Dialer) opened(s *Session, t *terms, avoided bool) {
	now := time.Now()
	switch {
	case s.caps.Encrypted:
		d.legs.Encrypted.Add(1)
		if d.shakes.worked(s.route.Target) {
			d.cache.dropAll(s.route.Target) // other sources have seen it without
		}
		if st, _ := s.conn.TLS(); st.DidResume {
			d.legs.Resumed.Add(1)
			if k := d.cache.get(s.route.place(), now); k != nil {
				t.asked = t.asked || k.caps.AsksCert // it asked at the full handshake
			}
		}
		d.prove(s, t.policy, now)
	case avoided:
		s.avoided = true
		d.legs.Avoided.Add(1)
		s.caps.WantsCert = d.shakes.wantsCert(s.route.Target)
	default:
		d.legs.Plain.Add(1)
	}
	if s.refusedTLS {
		d.legs.Refused.Add(1)
	}
	if s.caps.AsksCert = t.asked; t.asked {
		d.legs.Asked.Add(1)
	}
	s.caps = d.cache.put(s.route.place(), s.caps, now)
	if d.chunks && s.caps.Has(smtp.ExtChunking) {
		s.taker = d.takers.of(site{s.route.Target, s.caps.Name, s.caps.Encrypted}, now)
	}
}

// prove finds whether the certificate proves who the destination is, where that matters: to who asks for REQUIRETLS, which
// the destination has to know (RFC 8689 4.2.1).
func (d *Dialer) prove(s *Session, p *tlspolicy.Policy, now time.Time) {
	if !s.caps.Has(smtp.ExtRequireTLS) {
		return
	}
	sure := p.Sure()
	if !sure && d.servers != nil {
		p, sure = d.servers.PolicyAt(s.route.Target.Addr())
	}
	if !sure || p == nil {
		return
	}
	if p.Level < tlspolicy.Verify { // its name is known for sure, and nothing more is asked of it
		p = &tlspolicy.Policy{Level: tlspolicy.Verify, Names: []string{p.SNI}}
	}
	s.caps.Verified = s.check(p, now) == nil
}

// proveLater does as prove for a session that was opened before it was known what would prove it.
func (d *Dialer) proveLater(s *Session) {
	now := time.Now()
	if !d.provable(s.caps, s.route.Target) {
		return
	}
	caps := *s.caps // the others' are not to be changed
	s.caps = &caps
	if d.prove(s, nil, now); caps.Verified {
		s.caps = d.cache.put(s.route.place(), s.caps, now)
	}
}

// provable tells whether what is known of a destination lacks nothing but the proof of who it is, which was not to be had then.
func (d *Dialer) provable(c *Caps, target netip.AddrPort) bool {
	if d.servers == nil || !c.Encrypted || c.Verified || !c.Has(smtp.ExtRequireTLS) {
		return false
	}
	p, sure := d.servers.PolicyAt(target.Addr())
	return sure && p != nil
}

// check compares the session with a policy.
func (s *Session) check(p *tlspolicy.Policy, now time.Time) error {
	st, encrypted := s.conn.TLS()
	if !encrypted {
		return p.Check(nil, s.roots, now)
	}
	return p.Check(&st, s.roots, now)
}

// Meets tells why the session may not carry mail under a policy, or nil. The error is a *Failure.
func (s *Session) Meets(p *tlspolicy.Policy) error {
	if f := s.meets(p); f != nil {
		return f
	}
	return nil
}

func (s *Session) meets(p *tlspolicy.Policy) *Failure {
	if p == nil || p == s.met {
		return nil
	}
	err := s.check(p, time.Now())
	if err == nil {
		s.met = p
		return nil
	}
	switch {
	case errors.Is(err, tlspolicy.ErrPlain) && s.refusedTLS:
		return unmet("encryption is required, and the destination refuses it", err)
	case errors.Is(err, tlspolicy.ErrPlain):
		return unmet("encryption is required, and the destination does not offer it", err)
	}
	return unmet(fmt.Sprintf("the destination's certificate is not what is required: %v", err), err)
}

// encrypt tries STARTTLS. A server that offers it and then refuses it is spoken to in plain text, where that may be; one that
// is silent then, or leaves, fails in the handshake.
func (s *Session) encrypt(cfg *tls.Config) *Failure {
	s.caps.Set &^= smtp.ExtStartTLS
	plain := s.caps.Auth
	s.conn.SetReadTimeout(s.timeouts.Handshake)
	if f := s.command("STARTTLS"); f != nil {
		if f.Raw == nil {
			f = unreachable("the destination offers STARTTLS and fails at it", fmt.Errorf("%w: %w", errHandshake, f.Err))
		}
		return f
	}
	s.conn.SetReadTimeout(s.timeouts.Greeting)
	if s.rep.Code != 220 {
		s.refusedTLS = true
		return nil
	}
	if err := s.conn.StartClientTLS(cfg); err != nil {
		return unreachable("the destination failed in the TLS handshake", fmt.Errorf("%w: %w", errHandshake, err))
	}
	if f := s.hello(); f != nil {
		if f.Raw == nil { // with TLS 1.3 the server tells only now what it did not like
			f.Err = fmt.Errorf("%w: %w", errHandshake, f.Err)
		}
		return f
	}
	s.caps.Encrypted, s.caps.PlainAuth = true, plain
	s.caps.Set &^= smtp.ExtStartTLS
	return nil
}

// bars tells whether a server that asked for a certificate, and got none, fails for that: by an alert, which says it more or
// less clearly, or by its refusal of the first command under TLS.
func bars(f *Failure) bool {
	switch n, alert := smtp.PeerAlert(f); {
	case alert: // handshake_failure, no_certificate, bad_certificate, certificate_required (RFC 8446 6.2)
		return n >= 40 && n <= 42 || n == 116
	case errors.Is(f, errHandshake):
		return false
	}
	return f.Raw != nil
}

// start leads the session to where a transaction can begin.
func (s *Session) start(base *tls.Config, t *terms) *Failure {
	if f := s.begin(); f != nil {
		return f
	}
	if !t.plain && s.caps.Has(smtp.ExtStartTLS) {
		if f := s.encrypt(t.config(base)); f != nil {
			f.Cert = (t.asked || t.wanted) && bars(f)
			return f
		}
	}
	s.caps.Set &^= smtp.ExtStartTLS
	return s.meets(t.policy)
}

// Leg describes the session's encryption, for a report. It is made once.
func (s *Session) Leg() *tlspolicy.Leg {
	if s.leg == nil {
		l := tlspolicy.NewLeg(nil)
		if st, encrypted := s.conn.TLS(); encrypted {
			l = tlspolicy.NewLeg(&st)
		}
		s.leg = &l
	}
	return s.leg
}
