//go:build labtest

package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// certifying starts the Postfix that asks for certificates and trusts one, which is its own, and gives a client's settings with it.
func certifying(ctx context.Context, t *testing.T, l *Lab, settings ...string) *tls.Config {
	t.Helper()
	const cert, key = "etc/ssl/certs/ssl-cert-snakeoil.pem", "etc/ssl/private/ssl-cert-snakeoil.key"
	m, err := l.MXWith(ctx, "postfix", append(settings, "smtpd_tls_CAfile = /"+cert)...)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(m.Root(), cert), filepath.Join(m.Root(), key))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}
}

// certified is what the gateway has learnt of a source and a destination.
type certified struct {
	Source, Target, User, Text, Why string
	Wanted, Connections             int
	Allowed                         bool
}

// TestDestinationNeedsAClientCertificate: a Postfix that talks to nobody without a certificate is left to its clients: who
// has one gets through at the first try, from his own address; who has none hears what he would hear without a gateway.
func TestDestinationNeedsAClientCertificate(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	mine := certifying(ctx, t, l, "smtpd_tls_security_level = encrypt", "smtpd_tls_req_ccert = yes")
	without := func() string {
		t.Helper()
		c, _, err := underTLS(ctx, t, l, "bob", "198.51.100.10:25", anyCertificate)
		if err != nil {
			return err.Error()
		}
		_, r, err := c.Send("b@bob.example", []string{"archive@postfix.example"}, []byte("Subject: x\r\n\r\nx\r\n"))
		return fmt.Sprint(r, err)
	}
	direct := without()
	g := startGateway(t, l, "")
	for _, to := range []string{"198.51.100.10:25", "[2001:db8:100::10]:25"} {
		c, st, err := underTLS(ctx, t, l, "alice", to, mine)
		if err != nil {
			t.Fatalf("%s: %v", to, err)
		}
		if _, r, err := c.Send("a@alice.example", []string{"archive@postfix.example"}, []byte("Subject: certified\r\n\r\nx\r\n")); err != nil || r.Code != 250 || whose(st) != "mx.postfix.example" {
			t.Errorf("%s: %v %v, under the certificate of %s", to, r, err, whose(st))
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	}
	if through := without(); through != direct || strings.HasPrefix(direct, "250") {
		t.Errorf("without a certificate the client hears %q, without a gateway %q", through, direct)
	}
	var all []certified
	if err := sluiceJSON(ctx, g, &all, "tls", "refusals"); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all, func(c certified) bool {
		return c.Source == "192.0.2.10" && c.Target == "198.51.100.10:25" && c.User == "alice" && c.Allowed && c.Wanted > 0 && c.Connections < 30 && strings.Contains(c.Why, "certificate")
	}) {
		t.Errorf("learnt is %+v", all)
	}
	var log []struct{ Note, Source, Class string }
	eventually(ctx, func() bool { // what passed is logged at its end, which the gateway sees behind the clients
		log = nil
		return sluiceJSON(ctx, g, &log, "log", "--user", "alice") != nil || len(log) >= 2
	})
	if len(log) != 2 {
		t.Fatalf("the log has %+v", log)
	}
	for _, m := range log {
		if m.Class != "opaque" || !strings.Contains(m.Note, "the destination wants the client's certificate") || m.Source != "192.0.2.10" && m.Source != "2001:db8:1::10" {
			t.Errorf("the log has %+v", m)
		}
	}
	if err := g.Sluiced.WaitLog(ctx, "passes UNREAD"); err != nil {
		t.Error(err)
	}
}

// TestDestinationAsksForAClientCertificate: a Postfix that asks everybody, takes mail for its own from all, and relays for
// certificates alone: the first is read as ever; the second passes once it was seen to be refused.
func TestDestinationAsksForAClientCertificate(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	mine := certifying(ctx, t, l, "smtpd_tls_ask_ccert = yes", "smtpd_relay_restrictions = permit_tls_all_clientcerts defer_unauth_destination")
	g := startGatewayWith(t, l, autoDelivery)
	send := func(to, rcpt string, code int) string {
		t.Helper()
		c, st, err := underTLS(ctx, t, l, "alice", to, mine)
		if err != nil {
			t.Fatalf("%s: %v", rcpt, err)
		}
		if rs, r, err := c.Send("a@alice.example", []string{rcpt}, []byte("Subject: x\r\n\r\n"+rcpt+"\r\n")); err != nil || r.Code != code && rs[0].Code != code {
			t.Errorf("%s: %v, %v, %v; want %d", rcpt, rs, r, err, code)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		return whose(st)
	}
	const relay, exchanger = "198.51.100.10:25", "[2001:db8:100::10]:25" // addresses that know nothing of each other
	if who := send(exchanger, "archive@postfix.example", 250); who != "gw.example" {
		t.Errorf("mail for its own goes under the certificate of %s", who)
	}
	if who := send(relay, "first@sink.example", 454); who != "gw.example" {
		t.Errorf("the first mail to relay goes under the certificate of %s", who)
	}
	for _, rcpt := range []string{"second@sink.example", "third@sink.example"} {
		if who := send(relay, rcpt, 250); who != "mx.postfix.example" {
			t.Errorf("%s goes under the certificate of %s", rcpt, who)
		}
		messageOf(ctx, t, l.Sink("sink"), rcpt)
	}
	if who := send(exchanger, "archive@postfix.example", 250); who != "gw.example" {
		t.Errorf("later mail for its own goes under the certificate of %s", who)
	}
	if out := sluice(t, g, "tls", "refusals"); !strings.Contains(out, "1 certificate wanted") || !strings.Contains(out, "198.51.100.10:25") {
		t.Errorf("sluice tls refusals says\n%s", out)
	}
}
