//go:build labtest

package lab

import (
	"bytes"
	"context"
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

// underTLS says EHLO and STARTTLS on a new connection, and gives what was agreed; the session goes on under TLS.
func underTLS(ctx context.Context, t *testing.T, l *Lab, host, to string, cfg *tls.Config) (*Client, tls.ConnectionState, error) {
	t.Helper()
	c, err := l.Hello(ctx, host, "", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // it may be closed already
	if r, err := c.Cmd("STARTTLS"); err != nil || r.Code != 220 {
		t.Fatalf("STARTTLS is answered %v %v", r, err)
	}
	tc := tls.Client(c.Conn, cfg)
	if err := tc.Handshake(); err != nil {
		_ = c.Conn.Close()
		return nil, tls.ConnectionState{}, err
	}
	n := NewClient(tc)
	if r, err := n.Cmd("EHLO mail." + host + ".example"); err != nil || r.Code != 250 {
		return nil, tls.ConnectionState{}, errors.Join(errors.New(r.String()), err)
	}
	return n, tc.ConnectionState(), nil
}

var anyCertificate = &tls.Config{InsecureSkipVerify: true}

// whose is the name in the certificate that a client is shown.
func whose(st tls.ConnectionState) string { return strings.Join(st.PeerCertificates[0].DNSNames, ",") }

// TestStartTLSPolicies: what becomes of a client's STARTTLS is what was said of its destination, else of its user; each is
// seen at both ends, in the log, and in the figures.
func TestStartTLSPolicies(t *testing.T) { onEachPath(t, startTLSPoliciesBy) }

func startTLSPoliciesBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by(path, GatewayConfig))
	const to, to6 = "198.51.100.21:25", "[2001:db8:100::21]:25"
	send := func(host, to, rcpt string) (string, *Message) {
		t.Helper()
		c, st, err := underTLS(ctx, t, l, host, to, anyCertificate)
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		if _, r, err := c.Send("a@"+host+".example", []string{rcpt}, []byte("Subject: x\r\n\r\n"+rcpt+"\r\n")); err != nil || r.Code != 250 {
			t.Fatalf("%s: %v %v", rcpt, r, err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		return whose(st), messageOf(ctx, t, l.Sink("selfsigned"), rcpt)
	}
	who, m := send("alice", to, "terminated@selfsigned.example")
	if who != "gw.example" || !m.TLS || !strings.Contains(string(m.Data), "with ESMTPS id") || !DeliveryV4.Contains(m.Peer.Addr()) {
		t.Errorf("terminate: the certificate is that of %s, the message %+v", who, m)
	}
	sluice(t, g, "tls", "user", "alice", "pass", "--reason", "scans it herself")
	for _, f := range []struct{ to, own string }{{to, "192.0.2.10"}, {to6, "2001:db8:1::10"}} {
		who, m = send("alice", f.to, "passed"+f.own[:4]+"@selfsigned.example")
		if who != "mx.selfsigned.example" || !m.TLS || strings.Contains(string(m.Data), "gw.example") || m.Peer.Addr().String() != f.own {
			t.Errorf("pass: the certificate is that of %s, the message %+v", who, m)
		}
	}
	if who, _ = send("bob", to, "others@selfsigned.example"); who != "gw.example" {
		t.Errorf("another user's certificate is that of %s", who)
	}
	sluice(t, g, "tls", "set", "198.51.100.21", "strip", "--reason", "their appliance breaks in TLS")
	c, err := l.SMTP(ctx, "alice", "", to)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Cmd("EHLO mail.alice.example"); err != nil || strings.Contains(r.Raw, "STARTTLS") {
		t.Errorf("strip: EHLO is answered %v %v", r, err)
	}
	if r, err := c.Cmd("STARTTLS"); err != nil || r.Code != 502 {
		t.Errorf("strip: STARTTLS is answered %v %v", r, err)
	}
	if _, r, err := c.Send("a@alice.example", []string{"stripped@selfsigned.example"}, []byte("Subject: x\r\n\r\nx\r\n")); err != nil || r.Code != 250 {
		t.Errorf("strip: %v %v", r, err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	if m := messageOf(ctx, t, l.Sink("selfsigned"), "stripped@selfsigned.example"); !m.TLS {
		t.Error("strip: the onward leg is plain, too")
	}
	out, err := g.Sluice(ctx, "tls", "set", "198.51.100.0/24", "strip")
	if err != nil || out.Code == 0 || !strings.Contains(out.Stderr, "--reason") {
		t.Errorf("strip without a reason: %d %s", out.Code, out.Stderr)
	}
	checkStartTLSLog(ctx, t, g)
	// A lock ends what nobody reads.
	sluice(t, g, "tls", "remove", "198.51.100.21")
	n, _, err := underTLS(ctx, t, l, "alice", to, anyCertificate)
	if err != nil {
		t.Fatal(err)
	}
	if out := sluice(t, g, "flows"); !strings.Contains(out, "unread") {
		t.Errorf("flows: %s", out)
	}
	sluice(t, g, "lock", "alice", "--cut", "--reason", "test")
	if _, err := n.Cmd("MAIL FROM:<late@alice.example>"); err == nil {
		t.Error("a locked user's unread session goes on")
	}
	if slices.ContainsFunc(l.Sink("selfsigned").Sessions(), func(s Session) bool { return strings.Contains(strings.Join(s.Lines, "\n"), "late@") }) {
		t.Error("it reached the destination")
	}
	if n, st, err := underTLS(ctx, t, l, "alice", to, anyCertificate); err != nil || whose(st) != "gw.example" {
		t.Errorf("locked: %v", err)
	} else if _, r, err := n.Send("a@alice.example", []string{"u@selfsigned.example"}, []byte("Subject: x\r\n\r\nx\r\n")); err != nil || r.Code != 451 {
		t.Errorf("locked: %v %v", r, err)
	}
}

// messageOf waits for the message to a recipient.
func messageOf(ctx context.Context, t *testing.T, s *Sink, rcpt string) *Message {
	t.Helper()
	var found *Message
	_, err := s.WaitMatch(ctx, func(all []*Message) bool {
		for _, m := range all {
			if slices.Contains(m.Recipients(), rcpt) {
				found = m
			}
		}
		return found != nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// checkStartTLSLog: two connections of alice passed unread, one was stripped, and nothing of the first is called clean.
func checkStartTLSLog(ctx context.Context, t *testing.T, g *Gateway) {
	t.Helper()
	var all []struct {
		Status, Class, Source, Note string
		TLSIn                       string `json:"tls_in"`
		UnreadOut                   int64  `json:"unread_out"`
		UnreadIn                    int64  `json:"unread_in"`
	}
	if err := sluiceJSON(ctx, g, &all, "log", "--user", "alice"); err != nil {
		t.Fatal(err)
	}
	passed, stripped := 0, 0
	for _, m := range all {
		switch {
		case m.TLSIn == "opaque":
			passed++
			if m.Class != "opaque" || m.Status != "no-message" || m.UnreadOut < 500 || m.UnreadIn < 500 || m.Source == "" {
				t.Errorf("what passed is logged as %+v", m)
			}
		case strings.Contains(m.Note, "STARTTLS was not offered") && strings.Contains(m.Note, "their appliance"):
			stripped++
		}
	}
	if passed != 2 || stripped != 1 {
		t.Errorf("%d connections passed and %d were stripped by the log: %+v", passed, stripped, all)
	}
	var st struct{ Unread struct{ Flows int } }
	if err := sluiceJSON(ctx, g, &st, "status"); err != nil || st.Unread.Flows != 2 {
		t.Errorf("status says %+v %v", st, err)
	}
	if out := sluice(t, g, "users", "show", "alice"); !strings.Contains(out, "pass: scans it herself") || !strings.Contains(out, "2 connections passed encrypted") {
		t.Errorf("users show: %s", out)
	}
}

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
