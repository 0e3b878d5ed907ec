//go:build labtest

package lab

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRefusedCertificate: a client that accepts its destination's certificate only is learnt when it refuses ours; that
// buys it nothing. A person lets it pass, from its own address, in bounds, counted as unread.
func TestRefusedCertificate(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGateway(t, l, "")
	const to = "198.51.100.21:25"
	pinning := &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
		c, err := x509.ParseCertificate(raw[0])
		if err == nil && !slices.Contains(c.DNSNames, "mx.selfsigned.example") {
			err = errors.New("not the certificate that is pinned")
		}
		return err
	}}
	refuses := func(when string) {
		t.Helper()
		if _, _, err := underTLS(ctx, t, l, "alice", to, pinning); err == nil {
			t.Errorf("%s: the client takes the gateway's certificate", when)
		}
	}
	type refusal struct {
		Source, Target, User, By, Why string
		Alerts, Connections           int
		Allowed                       bool
	}
	list := func() (all []refusal) {
		t.Helper()
		if err := sluiceJSON(ctx, g, &all, "tls", "refusals"); err != nil {
			t.Fatal(err)
		}
		return all
	}
	for range 3 {
		refuses("at first")
	}
	if all := list(); len(all) != 1 || all[0].Source != "192.0.2.10" || all[0].Target != to || all[0].User != "alice" || all[0].Alerts != 3 || all[0].Allowed {
		t.Errorf("learnt is %+v", all)
	}
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	refuses("after a restart")
	if all := list(); len(all) != 1 || all[0].Alerts != 4 {
		t.Errorf("after a restart learnt is %+v", all)
	}
	sluice(t, g, "tls", "refusals", "allow", "192.0.2.10", "198.51.100.21", "--reason", "ticket 4711")
	passed := 0
	for range 40 {
		c, st, err := underTLS(ctx, t, l, "alice", to, pinning)
		if err != nil {
			break
		}
		if passed++; passed == 1 {
			if _, r, err := c.Send("a@alice.example", []string{"pinned@selfsigned.example"}, []byte("Subject: x\r\n\r\nx\r\n")); err != nil || r.Code != 250 || whose(st) != "mx.selfsigned.example" {
				t.Errorf("allowed: %v %v", r, err)
			}
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	}
	if passed != 30 {
		t.Errorf("%d connections passed in an hour", passed)
	}
	if m := messageOf(ctx, t, l.Sink("selfsigned"), "pinned@selfsigned.example"); m.Peer.Addr().String() != "192.0.2.10" || !m.TLS {
		t.Errorf("it arrived as %+v", m)
	}
	if all := list(); len(all) != 1 || !all[0].Allowed || all[0].Connections != 0 || all[0].Why != "ticket 4711" || all[0].By == "" {
		t.Errorf("allowed is %+v", all)
	}
	// Others, and other destinations, gain nothing by it.
	if _, st, err := underTLS(ctx, t, l, "bob", to, anyCertificate); err != nil || whose(st) != "gw.example" {
		t.Errorf("bob: %v", err)
	}
	if _, st, err := underTLS(ctx, t, l, "alice", "198.51.100.22:25", anyCertificate); err != nil || whose(st) != "gw.example" {
		t.Errorf("another destination: %v", err)
	}
	sluice(t, g, "tls", "refusals", "forget", "192.0.2.10", "198.51.100.21")
	refuses("when forgotten")
	for _, want := range []string{"passes UNREAD", "refuses the gateway's certificate"} {
		if err := g.Sluiced.WaitLog(ctx, want); err != nil {
			t.Error(err)
		}
	}
}

// TestCertificateForTheNameAskedFor: a client that trusts the gateway's authority and nobody else verifies the name of the
// destination inside of the authority's domains, and no name outside.
func TestCertificateForTheNameAskedFor(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGateway(t, l, "[tls]\nca_domains = [\"selfsigned.example\"]\n")
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(sluice(t, g, "tls", "ca", "--pem"))) {
		t.Fatal("sluice tls ca --pem prints no certificate")
	}
	c, st, err := underTLS(ctx, t, l, "alice", "198.51.100.21:25", &tls.Config{RootCAs: roots, ServerName: "mx.selfsigned.example"})
	if err != nil || len(st.VerifiedChains) == 0 {
		t.Fatalf("a client that verifies: %v", err)
	}
	if _, r, err := c.Send("a@alice.example", []string{"verified@selfsigned.example"}, []byte("Subject: x\r\n\r\nx\r\n")); err != nil || r.Code != 250 {
		t.Errorf("%v %v", r, err)
	}
	if _, _, err := underTLS(ctx, t, l, "alice", "198.51.100.22:25", &tls.Config{RootCAs: roots, ServerName: "mx.tlsonly.example"}); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a name outside: %v", err)
	}
	if _, st, err := underTLS(ctx, t, l, "alice", "198.51.100.21:25", anyCertificate); err != nil || whose(st) != "gw.example" {
		t.Errorf("without a name: %v", err)
	}
}

// pins accepts one certificate, whoever it is from.
func pins(want *x509.Certificate) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
		if !bytes.Equal(raw[0], want.Raw) {
			return errors.New("not the certificate that is pinned")
		}
		return nil
	}}
}

// TestRefusedCertificateWhereDANEDemandsIt: whose destination publishes TLSA records has to refuse our certificate; once
// that was learnt and found out its mail passes, from its own address, and an operator is told. The same client gains
// nothing at a destination that publishes nothing, however often it refuses, nor where the records are not vouched for.
func TestRefusedCertificateWhereDANEDemandsIt(t *testing.T) {
	t.Parallel()
	ctx, p := testContext(t), startProtectLab(t)
	certs := map[int]*x509.Certificate{}
	for n := range 3 {
		s, domain, _ := p.peer(t, n+1)
		cfg := p.ca.server(t, "mx."+domain, time.Hour)
		s.Encrypt(cfg)
		c, err := x509.ParseCertificate(cfg.Certificates[0].Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		certs[n+1] = c
		p.records(t, fmt.Sprintf("%d.100.51.198.in-addr.arpa. 60 IN PTR mx.%s.", 101+n, domain))
		switch n + 1 {
		case 1: // in order
			p.pub.Sign(domain)
			p.records(t, tlsaOf("mx."+domain, c))
		case 2: // records that anybody could have forged
			p.records(t, tlsaOf("mx."+domain, c))
		}
	}
	try := func(n int) *Client {
		t.Helper()
		c, _, err := underTLS(ctx, t, p.l, "alice", fmt.Sprintf("198.51.100.%d:25", 100+n), pins(certs[n]))
		if err != nil {
			return nil
		}
		return c
	}
	if try(1) != nil {
		t.Fatal("the client takes the gateway's certificate, or passed at once")
	}
	var c *Client
	for c = try(1); c == nil; c = try(1) {
		if err := sleep(ctx, logPoll); err != nil {
			t.Fatalf("it never passes: %v", err)
		}
	}
	if _, r, err := c.Send("a@alice.example", []string{"u@peer01.example"}, letter("alice", "pinned")); err != nil || r.Code != 250 {
		t.Errorf("%v %v", r, err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	if m := messageOf(ctx, t, p.l.Sink("peer01"), "u@peer01.example"); m.Peer.Addr().String() != "192.0.2.10" || !m.TLS {
		t.Errorf("it arrived as %+v", m)
	}
	if err := p.g.Sluiced.WaitLog(ctx, "passes UNREAD"); err != nil {
		t.Error(err)
	}
	for range 8 {
		for _, n := range []int{2, 3} {
			if try(n) != nil {
				t.Errorf("at %d an aborted handshake bought a tunnel", n)
			}
		}
		if err := sleep(ctx, logPoll); err != nil {
			t.Fatal(err)
		}
	}
	out := sluice(t, p.g, "tls", "refusals")
	if strings.Count(out, "until ") != 1 || !strings.Contains(out, "TLSA records at _25._tcp.mx.peer01.example") || strings.Count(out, "alerts") < 2 {
		t.Errorf("sluice tls refusals: %s", out)
	}
}

// TestPostfixThatRefusesTheCertificate: a stock mail server that insists on its destination's key, by fingerprint, keeps
// its mail when it meets our certificate; after three attempts it is learnt; allowed, its mail arrives.
func TestPostfixThatRefusesTheCertificate(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGateway(t, l, "")
	spki, err := x509.MarshalPKIXPublicKey(&l.certs.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	print := strings.ReplaceAll(fmt.Sprintf("% X", sha256.Sum256(spki)), " ", ":")
	m, err := l.Postfix(ctx, "alice", "inet_protocols = ipv4", "smtp_tls_security_level = fingerprint", "smtp_tls_fingerprint_digest = sha256", "smtp_tls_fingerprint_cert_match = "+print)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Send(ctx, Mail{From: "a@alice.example", To: []string{"u@selfsigned.example"}, Data: letter("alice", "pinned")}); err != nil {
		t.Fatal(err)
	}
	attempts := func(n int) []Delivery {
		t.Helper()
		all, err := m.WaitDeliveries(ctx, func(all []Delivery) bool { return len(all) >= n })
		if err != nil {
			t.Fatal(err, all)
		}
		return all
	}
	for n := 1; n <= 3; n++ {
		if d := attempts(n)[n-1]; d.Status != Deferred {
			t.Errorf("attempt %d: %+v", n, d)
		}
		if err := m.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	attempts(4)
	if out := sluice(t, g, "tls", "refusals"); !strings.Contains(out, "left without mail") || !strings.Contains(out, " no ") {
		t.Errorf("sluice tls refusals: %s", out)
	}
	var all []struct{ Obstacle, Note string }
	if err := sluiceJSON(ctx, g, &all, "log"); err != nil || len(all) != 4 || all[0].Obstacle != "tls" || !strings.Contains(all[0].Note, "may refuse the certificate") {
		t.Errorf("logged is %+v, %v", all, err)
	}
	sluice(t, g, "tls", "refusals", "allow", "192.0.2.10", "198.51.100.21", "--reason", "pins the key")
	if err := m.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if d := attempts(5)[4]; d.Status != Sent {
		t.Errorf("allowed: %+v", d)
	}
	if got := messageOf(ctx, t, l.Sink("selfsigned"), "u@selfsigned.example"); got.Peer.Addr().String() != "192.0.2.10" || !got.TLS {
		t.Errorf("it arrived as %+v", got)
	}
}
