//go:build labtest

package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
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
