package relay

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/proxy/smtp"
	"sluice/proxy/tlspolicy"
)

// identity is a certificate of a test.
type identity struct {
	cert *x509.Certificate
	pair tls.Certificate
}

func newIdentity(t *testing.T, signer *identity, until time.Time, names ...string) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, DNSNames: names,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until, IsCA: signer == nil, BasicConstraintsValid: true}
	parent, sign := tmpl, key
	if signer != nil {
		parent, sign = signer.cert, signer.pair.PrivateKey.(*ecdsa.PrivateKey)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, sign)
	must(t, err)
	c, err := x509.ParseCertificate(der)
	must(t, err)
	return &identity{c, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

// mx is a destination that can encrypt, or not.
type mx struct {
	addr netip.AddrPort

	mu       sync.Mutex
	tls      *tls.Config // nil: STARTTLS is not offered
	starttls string      // another reply to STARTTLS than 220
	silent   bool        // it says nothing in the handshake
	under    []string    // extensions under TLS
	conns    int
	names    []string // that it was told
}

func newMX(t *testing.T, cfg *tls.Config) *mx {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	m := &mx{addr: ln.Addr().(*net.TCPAddr).AddrPort(), tls: cfg}
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { nc.Close() })
			go m.serve(nc)
		}
	}()
	return m
}

func (m *mx) set(change func(*mx)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

func (m *mx) serve(nc net.Conn) {
	defer nc.Close()
	m.mu.Lock()
	m.conns++
	cfg, starttls, silent, under := m.tls, m.starttls, m.silent, m.under
	m.mu.Unlock()
	br := bufio.NewReader(nc)
	lines := []string{"mx", "PIPELINING"}
	if cfg != nil {
		lines = append(lines, "STARTTLS")
	}
	fmt.Fprint(nc, "220 mx\r\n")
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
		case "EHLO":
			fmt.Fprintf(nc, "250-%s\r\n250 HELP\r\n", strings.Join(lines, "\r\n250-"))
		case "STARTTLS":
			if starttls != "" {
				fmt.Fprint(nc, starttls+"\r\n")
				continue
			}
			fmt.Fprint(nc, "220 go\r\n")
			if silent {
				_, _ = br.ReadString(0)
				return
			}
			tc := tls.Server(nc, cfg)
			if tc.Handshake() != nil {
				return
			}
			m.set(func(m *mx) { m.names = append(m.names, tc.ConnectionState().ServerName) })
			nc, br, lines = tc, bufio.NewReader(tc), append([]string{"mx", "PIPELINING"}, under...)
		case "QUIT":
			fmt.Fprint(nc, "221 bye\r\n")
			return
		default:
			fmt.Fprint(nc, "250 ok\r\n")
		}
	}
}

func (m *mx) opened() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conns
}

func (m *mx) told() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.names, " ")
}

func serverOf(ids ...*identity) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, i := range ids {
		c.Certificates = append(c.Certificates, i.pair)
	}
	return c
}

func tlsa(i *identity) []tlspolicy.TLSA {
	sum := sha256.Sum256(i.cert.RawSubjectPublicKeyInfo)
	return []tlspolicy.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: sum[:]}}
}

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
	refuse := func(m *mx) { m.starttls = "454 4.7.0 not now" }
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
		{"not wanted", serverOf(right), nil, &tlspolicy.Policy{Level: tlspolicy.None}, plain},
		{"required, self-signed", serverOf(self), nil, required, opens},
		{"required, nothing offered", nil, nil, required, "does not offer it"},
		{"required, refused when asked", serverOf(right), refuse, required, "refuses it"},
		{"required, TLS 1.1 at most", ancient, nil, required, "handshake with the destination fails"},
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
			d := NewDialer(Options{Roots: roots, Timeouts: Timeouts{Handshake: 300 * time.Millisecond}})
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

func TestMemoryOfBrokenTLS(t *testing.T) {
	t.Parallel()
	m := newMX(t, serverOf(newIdentity(t, nil, time.Now().Add(time.Hour), "mx.a.example")))
	good := m.tls
	ancient := serverOf()
	ancient.MaxVersion = tls.VersionTLS11
	m.set(func(m *mx) { m.tls = ancient })
	d := NewDialer(Options{})
	r := Route{Target: m.addr, Helo: "gw.example"}
	open := func(want bool, conns int) {
		t.Helper()
		before := m.opened()
		s, err := d.Open(context.Background(), r)
		must(t, err)
		s.Close()
		if s.Caps().Encrypted != want || m.opened()-before != conns {
			t.Fatalf("encrypted %v after %d connections, want %v after %d", s.Caps().Encrypted, m.opened()-before, want, conns)
		}
	}
	later := func(by time.Duration) { // as if so much time had passed
		d.shakes.mu.Lock()
		defer d.shakes.mu.Unlock()
		for _, b := range d.shakes.m {
			b.Again, b.Last, b.Since = b.Again.Add(-by), b.Last.Add(-by), b.Since.Add(-by)
		}
	}
	open(false, 3) // with all, with little, without
	open(false, 1) // not tried again
	other := r
	other.Source = netip.MustParseAddr("127.0.0.5")
	if s, err := d.Open(context.Background(), other); err != nil || s.Caps().Encrypted || m.opened() != 5 {
		t.Errorf("from another address: %v, %d connections", err, m.opened())
	}
	all := d.Broken()
	if len(all) != 1 || all[0].Target != m.addr || all[0].Failures != 1 || !strings.Contains(all[0].Why, "protocol version") {
		t.Fatalf("remembered %+v", all)
	}
	for i, pause := range []time.Duration{firstPause, 2 * firstPause, 4 * firstPause} {
		later(pause - time.Minute)
		open(false, 1)
		later(2 * time.Minute)
		open(false, 3) // tried again, and failed again
		if got := d.Broken()[0]; got.Failures != i+2 || got.Again.Sub(got.Last) != 2*pause {
			t.Fatalf("after %d failures it waits for %v", got.Failures, got.Again.Sub(got.Last))
		}
	}
	if _, err := d.OpenUnder(context.Background(), r, &tlspolicy.Policy{Level: tlspolicy.Encrypt}); err == nil {
		t.Error("what is required is lifted by the memory")
	}
	m.set(func(m *mx) { m.tls = good })
	open(false, 1) // not yet
	if !d.TryAgain(m.addr) || d.TryAgain(m.addr) {
		t.Error("forgetting by hand")
	}
	open(true, 1)
	open(true, 1)
	if len(d.Broken()) != 0 {
		t.Errorf("remembered after success: %+v", d.Broken())
	}
	if l := d.Legs(); l.Failed.Load() < 4 || l.Avoided.Load() < 8 || l.Encrypted.Load() != 2 || l.Plain.Load() != 0 {
		t.Errorf("%d failed, %d avoided, %d encrypted, %d plain", l.Failed.Load(), l.Avoided.Load(), l.Encrypted.Load(), l.Plain.Load())
	}
}

func TestOneSessionTriesABrokenHandshakeAgain(t *testing.T) {
	t.Parallel()
	var h shakes
	at, now := netip.MustParseAddrPort("192.0.2.1:25"), time.Now()
	if h.skip(at, now) {
		t.Error("skipped without a failure")
	}
	h.failed(at, errHandshake, now)
	h.failed(at, errHandshake, now.Add(time.Second)) // began at once
	now = now.Add(firstPause)
	if h.m[at].Failures != 1 || h.skip(at, now) || !h.skip(at, now) || !h.skip(at, now.Add(probeTime-time.Second)) || h.skip(at, now.Add(probeTime)) {
		t.Errorf("%+v", h.m[at])
	}
	for range 30 {
		now = h.m[at].Again
		h.failed(at, errHandshake, now)
	}
	if got := h.m[at].Again.Sub(now); got != mostPause {
		t.Errorf("it waits for %v at most", got)
	}
	for i := range 3 * mostBroken {
		h.failed(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), uint16(i>>16)+25), errHandshake, now)
	}
	if len(h.m) > mostBroken {
		t.Errorf("%d are remembered", len(h.m))
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
		s, err := d.Open(context.Background(), Route{Target: m.addr, Helo: "gw.example"})
		must(t, err)
		s.Close()
		if s.Caps().Encrypted || len(d.Broken()) != 1 {
			t.Errorf("%s: %+v, %v", tls.VersionName(version), s.Caps(), d.Broken())
		}
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
