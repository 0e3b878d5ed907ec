package relay

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/proxy/smtp"
	"sluice/proxy/tlspolicy"
)

func TestSessionsUnderPolicies(t *testing.T) {
	t.Parallel()
	soon := time.Now().Add(time.Hour)
	ca := newIdentity(t, nil, soon)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	right, other := newIdentity(t, ca, soon, "mx.a.example"), newIdentity(t, ca, soon, "mx.b.example")
	old, self := newIdentity(t, ca, time.Now().Add(-time.Hour), "mx.a.example"), newIdentity(t, nil, soon, "mx.a.example")
	required := &tlspolicy.Policy{Level: tlspolicy.Encrypt}
	verified := &tlspolicy.Policy{Level: tlspolicy.Verify, Names: []string{"mx.a.example"}, SNI: "mx.a.example"}
	dane := &tlspolicy.Policy{Level: tlspolicy.DANE, TLSA: tlsa(self), SNI: "mx.a.example"}
	ancient := serverOf(right)
	ancient.MinVersion, ancient.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	at := func(starttls string) func(*mx) { return func(m *mx) { m.starttls = starttls } }
	refuse := at("454 4.7.0 not now")
	const (
		opens = ""
		plain = "plain"
	)
	for _, c := range []struct {
		name   string
		server *tls.Config
		change func(*mx)
		policy *tlspolicy.Policy
		want   string // opens, plain, or part of why not
	}{
		{"any certificate does", serverOf(self), nil, nil, opens},
		{"nothing offered", nil, nil, nil, plain},
		{"TLS 1.1 at most: plain text is not worse", ancient, nil, nil, plain},
		{"refused when asked", serverOf(right), refuse, nil, plain},
		{"silent in the handshake", serverOf(right), func(m *mx) { m.silent = true }, nil, plain},
		{"silent when asked", serverOf(right), at(stalls), nil, plain},
		{"leaves when asked", serverOf(right), at(leaves), nil, plain},
		{"babbles when asked", serverOf(right), at("what is that"), nil, plain},
		{"not wanted", serverOf(right), nil, &tlspolicy.Policy{Level: tlspolicy.None}, plain},
		{"required, self-signed", serverOf(self), nil, required, opens},
		{"required, nothing offered", nil, nil, required, "does not offer it"},
		{"required, refused when asked", serverOf(right), refuse, required, "refuses it"},
		{"required, TLS 1.1 at most", ancient, nil, required, "handshake with the destination fails"},
		{"required, silent when asked", serverOf(right), at(stalls), required, "handshake with the destination fails"},
		{"required, leaves when asked", serverOf(right), at(leaves), required, "handshake with the destination fails"},
		{"required, silent", serverOf(right), func(m *mx) { m.silent = true }, required, "handshake with the destination fails"},
		{"verified", serverOf(right), nil, verified, opens},
		{"verified, other name", serverOf(other), nil, verified, "is for mx.b.example, not for mx.a.example"},
		{"verified, expired", serverOf(old), nil, verified, "not valid now"},
		{"verified, self-signed", serverOf(self), nil, verified, "self-signed"},
		{"verified, nothing offered", nil, nil, verified, "does not offer it"},
		{"DANE", serverOf(self), nil, dane, opens},
		{"DANE, another certificate", serverOf(right), nil, dane, "no TLSA record"},
		{"barred", serverOf(right), nil, &tlspolicy.Policy{Level: tlspolicy.Verify, Bar: "not in its list"}, "not in its list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMX(t, c.server)
			if c.change != nil {
				m.set(c.change)
			}
			patience := time.Minute
			if strings.Contains(c.name, "silent") {
				patience = 300 * time.Millisecond
			}
			d := NewDialer(Options{Roots: roots, Timeouts: Timeouts{Handshake: patience}})
			s, err := d.OpenUnder(context.Background(), Route{Target: m.addr, Helo: "gw.example"}, c.policy)
			if c.want != opens && c.want != plain {
				var f *Failure
				if !errors.As(err, &f) || f.Code != 451 || f.Enh != errUnmet || f.Close || !strings.Contains(f.Text+f.Error(), c.want) {
					t.Fatalf("got %#v, %v; want %q", s, err, c.want)
				}
				if d.legs.Unmet.Load() != 1 {
					t.Error("not counted")
				}
				return
			}
			must(t, err)
			defer s.Close()
			if s.Caps().Encrypted != (c.want == opens) || s.Protected() != (c.want == opens) || s.Caps().Has(smtp.ExtStartTLS) {
				t.Errorf("caps %+v", s.Caps())
			}
			if c.policy != nil && c.policy.SNI != m.told() {
				t.Errorf("told %q", m.told())
			}
			for _, p := range []*tlspolicy.Policy{nil, c.policy, c.policy} {
				if err := s.Meets(p); err != nil {
					t.Errorf("opened, and not met: %v", err)
				}
			}
			if err := s.Meets(&tlspolicy.Policy{Level: tlspolicy.Verify, Names: []string{"mx.c.example"}}); err == nil {
				t.Error("it meets what it does not")
			}
		})
	}
}

// servers knows one policy.
type servers struct {
	p    *tlspolicy.Policy
	sure bool
}

func (s *servers) PolicyAt(netip.Addr) (*tlspolicy.Policy, bool) { return s.p, s.sure }

func TestNameOfTheServerIsTold(t *testing.T) {
	t.Parallel()
	i := newIdentity(t, nil, time.Now().Add(time.Hour), "mx.a.example")
	cfg := serverOf()
	cfg.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if h.ServerName == "vain.example" {
			return nil, errors.New("not my name")
		}
		return &i.pair, nil
	}
	m := newMX(t, cfg)
	know := &servers{p: &tlspolicy.Policy{SNI: "mx.a.example"}}
	d := NewDialer(Options{Servers: know})
	r := Route{Target: m.addr, Helo: "gw.example"}
	open := func(conns int) {
		t.Helper()
		before := m.opened()
		s, err := d.Open(context.Background(), r)
		must(t, err)
		s.Close()
		if !s.Caps().Encrypted || m.opened()-before != conns {
			t.Fatalf("encrypted %v, %d connections, want %d", s.Caps().Encrypted, m.opened()-before, conns)
		}
	}
	open(1)
	know.p = &tlspolicy.Policy{SNI: "vain.example"}
	open(2) // it does not like the name, so it is told none
	open(1)
	if got := m.told(); got != "mx.a.example  " {
		t.Errorf("told %q", got)
	}
	if len(d.Broken()) != 0 {
		t.Error("a name that it does not like passes for broken TLS")
	}
}

func TestWhoProvesItself(t *testing.T) {
	t.Parallel()
	soon := time.Now().Add(time.Hour)
	ca := newIdentity(t, nil, soon)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	right, self := newIdentity(t, ca, soon, "mx.a.example"), newIdentity(t, nil, soon, "mx.a.example")
	for _, c := range []struct {
		name   string
		id     *identity
		know   servers
		policy *tlspolicy.Policy
		want   bool
	}{
		{"nothing known", right, servers{}, nil, false},
		{"the name only from the DNS as it is", right, servers{&tlspolicy.Policy{SNI: "mx.a.example"}, false}, nil, false},
		{"the name by DNSSEC", right, servers{&tlspolicy.Policy{SNI: "mx.a.example"}, true}, nil, true},
		{"the name by DNSSEC, self-signed", self, servers{&tlspolicy.Policy{SNI: "mx.a.example"}, true}, nil, false},
		{"DANE, self-signed", self, servers{&tlspolicy.Policy{Level: tlspolicy.DANE, TLSA: tlsa(self)}, true}, nil, true},
		{"DANE, another", right, servers{&tlspolicy.Policy{Level: tlspolicy.DANE, TLSA: tlsa(self)}, true}, nil, false},
		{"MTA-STS, as the policy of the session", right, servers{}, &tlspolicy.Policy{Level: tlspolicy.Verify, Source: tlspolicy.MTASTS, Names: []string{"mx.a.example"}}, true},
		{"a setting proves nothing to others", right, servers{}, &tlspolicy.Policy{Level: tlspolicy.Verify, Source: tlspolicy.Setting, Names: []string{"mx.a.example"}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, offers := range []bool{true, false} {
				m := newMX(t, serverOf(c.id))
				if offers {
					m.set(func(m *mx) { m.under = []string{"REQUIRETLS"} })
				}
				d := NewDialer(Options{Roots: roots, Servers: &c.know})
				s, err := d.OpenUnder(context.Background(), Route{Target: m.addr, Helo: "gw.example"}, c.policy)
				must(t, err)
				defer s.Close()
				if got := s.Caps().Verified; got != (c.want && offers) {
					t.Errorf("verified %v, REQUIRETLS offered %v", got, offers)
				}
			}
		})
	}
}

// TestProofThatIsFoundLater: what would prove a destination is found out by its first mail. The session that had that mail is
// then offered to be proven, and what is known of a destination that lacks the proof is asked again.
func TestProofThatIsFoundLater(t *testing.T) {
	t.Parallel()
	roots := x509.NewCertPool()
	ca := newIdentity(t, nil, time.Now().Add(time.Hour))
	roots.AddCert(ca.cert)
	for _, c := range []struct {
		name  string
		knows servers
		want  bool
	}{
		{"its name", servers{&tlspolicy.Policy{SNI: "mx.a.example"}, true}, true},
		{"another name", servers{&tlspolicy.Policy{SNI: "mx.b.example"}, true}, false},
		{"its name, unsure", servers{&tlspolicy.Policy{SNI: "mx.a.example"}, false}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMX(t, serverOf(newIdentity(t, ca, time.Now().Add(time.Hour), "mx.a.example")))
			m.set(func(m *mx) { m.under = []string{"REQUIRETLS"} })
			var know servers
			d, r := NewDialer(Options{Roots: roots, Servers: &know, Keep: wait}), Route{Target: m.addr, Helo: "gw.example"}
			defer d.Close()
			s := spoken(t, d, r)
			if caps, known := d.Known(&r); !known || caps.Verified || !d.Keep(7, s) {
				t.Fatal("verified before anything is known, or not kept")
			}
			know = c.knows
			if _, known := d.Known(&r); known == know.sure {
				t.Errorf("known %v", known)
			}
			if s = d.Take(7, r); s == nil || s.Caps().Verified != c.want {
				t.Fatalf("%v", s)
			}
			defer s.Close()
			if caps, known := d.Known(&r); known != (c.want || !know.sure) || caps.Verified != c.want {
				t.Errorf("known %v: %+v", known, caps)
			}
		})
	}
}

func TestHandshakesAreResumedAndRequestsNoted(t *testing.T) {
	t.Parallel()
	cfg := serverOf(newIdentity(t, nil, time.Now().Add(time.Hour), "mx.a.example"))
	cfg.ClientAuth = tls.RequestClientCert
	m := newMX(t, cfg)
	d := NewDialer(Options{})
	r := Route{Target: m.addr, Helo: "gw.example"}
	for range 3 {
		s, err := d.Open(context.Background(), r)
		must(t, err)
		if !s.Caps().AsksCert {
			t.Error("that it asks for a certificate is not noted")
		}
		if st, _ := s.TLS(); len(st.PeerCertificates) != 1 {
			t.Error("a resumed session does not know the certificate")
		}
		must(t, s.Noop()) // the ticket is read with the first reply
		s.Close()
	}
	if l := d.Legs(); l.Resumed.Load() != 2 || l.Asked.Load() != 3 {
		t.Errorf("%d resumed, %d asked", l.Resumed.Load(), l.Asked.Load())
	}
}

func TestServerThatNeedsACertificateIsBrokenToUs(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cfg := serverOf(newIdentity(t, nil, time.Now().Add(time.Hour), "mx.a.example"))
		cfg.ClientAuth, cfg.MaxVersion = tls.RequireAnyClientCert, version
		m := newMX(t, cfg)
		d := NewDialer(Options{})
		r := Route{Target: m.addr, Helo: "gw.example"}
		for try := range 2 { // the second one asks for no handshake any more
			s, err := d.Open(context.Background(), r)
			must(t, err)
			s.Close()
			if s.Caps().Encrypted || !s.Caps().WantsCert || len(d.Broken()) != 1 || m.opened() != 2+try {
				t.Errorf("%s: %+v, %v, %d connections", tls.VersionName(version), s.Caps(), d.Broken(), m.opened())
			}
		}
		var f *Failure
		if _, err := d.OpenUnder(context.Background(), r, &tlspolicy.Policy{Level: tlspolicy.Encrypt}); !errors.As(err, &f) || f.Enh != errUnmet || !f.Cert {
			t.Errorf("%s, encryption required: %v", tls.VersionName(version), err)
		}
	}
}

// TestServerThatRefusesWithoutACertificate: one that tells only behind the handshake is known, too, and still is when a later
// handshake is short, and so without a question.
func TestServerThatRefusesWithoutACertificate(t *testing.T) {
	t.Parallel()
	cfg := serverOf(newIdentity(t, nil, time.Now().Add(time.Hour), "mx.a.example"))
	cfg.ClientAuth = tls.RequestClientCert
	m := newMX(t, cfg)
	m.set(func(m *mx) { m.bar = "421 4.7.1 No client certificate presented" })
	d := NewDialer(Options{})
	r := Route{Target: m.addr, Helo: "gw.example"}
	for try := range 3 {
		s, err := d.Open(context.Background(), r)
		must(t, err)
		s.Close()
		if s.Caps().Encrypted || !s.Caps().WantsCert || len(d.Broken()) != 1 || d.Broken()[0].Why == "" {
			t.Errorf("try %d: %+v, %v", try, s.Caps(), d.Broken())
		}
		d.shakes.m[m.addr].Again = time.Time{}
	}
	if m.opened() != 6 {
		t.Errorf("%d connections, want one more of each try", m.opened())
	}
}

func TestOldServersAreMetHalfWay(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.a.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	must(t, err)
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	for name, c := range map[string]struct {
		cfg   *tls.Config
		conns int
	}{
		"RSA key exchange only": {&tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, 1},
		"breaks at newer keys": {&tls.Config{Certificates: []tls.Certificate{pair}, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(h.SupportedCurves, tls.X25519MLKEM768) {
				return nil, errors.New("what is this")
			}
			return nil, nil
		}}, 2},
	} {
		m := newMX(t, c.cfg)
		d := NewDialer(Options{})
		for i, conns := range []int{c.conns, c.conns + 1} {
			s, err := d.Open(context.Background(), Route{Target: m.addr, Helo: "gw.example"})
			must(t, err)
			s.Close()
			if !s.Caps().Encrypted || m.opened() != conns {
				t.Errorf("%s, time %d: encrypted %v, %d connections, want %d", name, i, s.Caps().Encrypted, m.opened(), conns)
			}
		}
		if len(d.Broken()) != 0 {
			t.Errorf("%s: %+v", name, d.Broken())
		}
	}
}
