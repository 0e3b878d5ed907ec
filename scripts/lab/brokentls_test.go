//go:build labtest

package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// brokenConfig keeps no sessions, so that each mail shows what is remembered, and has a domain whose mail must be encrypted.
var brokenConfig = strings.Replace(soonGoodbye, "[delivery]\n", "[delivery]\nreuse = \"0s\"\n", 1) + `
[[delivery.protect]]
domain = "required.example"
level = "required"
reason = "contract"
`

// TestBrokenTLSIsRemembered: a destination whose handshake fails, in whatever way, gets the mail of those who may in plain text,
// and is not tried again at the next one; who has encrypted his own leg is put off instead. Where it works again, a mail that
// must be encrypted finds that out, or the operator.
func TestBrokenTLSIsRemembered(t *testing.T) {
	t.Parallel()
	l := ForTest(t, Options{})
	g := startGatewayWith(t, l, brokenConfig)
	old := newIssuer(t).server(t, "mx.peer.example", time.Hour)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for i, c := range []struct {
		name, rule string
		cfg        *tls.Config
	}{
		{name: "closes instead of 220", rule: "starttls: close"},
		{name: "closes behind 220", rule: "starttls: reply 220 go | close"},
		{name: "resets behind 220", rule: "starttls: reply 220 go | reset"},
		{name: "no TLS", rule: `starttls: reply 220 go | raw 250-this is\r\n250 no TLS\r\n | close`},
		{name: "half a record", rule: `starttls: reply 220 go | raw \x16\x03\x03\x02\x00\x02 | close`},
		{name: "an alert", rule: `starttls: reply 220 go | raw \x15\x03\x03\x00\x02\x02\x28 | close`},
		{name: "versions that are too old", cfg: old},
		{name: "no certificate", cfg: &tls.Config{}},
		{name: "silence", rule: "starttls: reply 220 go | stall"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := &brokenTLS{l: l, g: g, s: l.Sink(fmt.Sprintf("peer%02d", i+1)), at: fmt.Sprintf("198.51.100.%d", 101+i), rule: c.rule, cfg: c.cfg}
			b.play(testContext(t), t)
		})
	}
}

// brokenTLS is one destination, which breaks the handshake by a rule of its script, or by other settings.
type brokenTLS struct {
	l    *Lab
	g    *Gateway
	s    *Sink
	at   string
	rule string
	cfg  *tls.Config
}

func (b *brokenTLS) mend(t *testing.T) {
	t.Helper()
	b.s.Encrypt(nil)
	if err := b.s.Script(); err != nil {
		t.Fatal(err)
	}
}

func (b *brokenTLS) play(ctx context.Context, t *testing.T) {
	b.mend(t)
	b.encrypted(ctx, t, "before@peer.example")
	b.s.Encrypt(b.cfg)
	if err := b.s.Script(b.rule); err != nil {
		t.Fatal(err)
	}
	b.promised(ctx, t)
	for i := range 3 {
		before, began := len(b.s.Sessions()), time.Now()
		b.plain(ctx, t, fmt.Sprintf("plain%d@peer.example", i))
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("mail %d waits %v", i, took)
		}
		if n := len(b.s.Sessions()) - before; n > 2 || b.tried(before) {
			t.Errorf("mail %d: the destination is tried again, %d connections", i, n)
		}
	}
	b.swaks(ctx, t)
	if r := b.send(ctx, t, "u@required.example"); r.Code != 451 || !strings.HasPrefix(r.Raw, "451 4.7.5 gw.example: encryption is required, and the handshake with the destination fails") {
		t.Errorf("a mail that must be encrypted: %s", r)
	}
	if out := sluice(t, b.g, "tls", "broken"); !strings.Contains(out, b.at+":25") {
		t.Errorf("sluice tls broken: %s", out)
	}
	// It is mended: those who may go in plain text still do, until a mail goes that must be encrypted.
	b.mend(t)
	b.plain(ctx, t, "still@peer.example")
	if r := b.send(ctx, t, "u@required.example"); r.Code != 250 || !messageOf(ctx, t, b.s, "u@required.example").TLS {
		t.Errorf("mended, a mail that must be encrypted: %s", r)
	}
	b.encrypted(ctx, t, "again@peer.example")
	if out := sluice(t, b.g, "tls", "broken"); strings.Contains(out, b.at+":25") {
		t.Errorf("mended, sluice tls broken: %s", out)
	}
	// And once more by the operator.
	b.s.Encrypt(b.cfg)
	if err := b.s.Script(b.rule); err != nil {
		t.Fatal(err)
	}
	b.send(ctx, t, "anew@peer.example")
	b.mend(t)
	b.plain(ctx, t, "anew2@peer.example")
	sluice(t, b.g, "tls", "retry", b.at)
	b.encrypted(ctx, t, "retried@peer.example")
}

// tried tells whether the destination heard STARTTLS in a session that began after the first so many.
func (b *brokenTLS) tried(after int) bool {
	return slices.ContainsFunc(b.s.Sessions()[after:], func(s Session) bool { return slices.Contains(s.Lines, "C: STARTTLS") })
}

// send sends a mail in plain text, and gives the reply to its recipient, or to the message where he was accepted.
func (b *brokenTLS) send(ctx context.Context, t *testing.T, to string) Reply {
	t.Helper()
	c, err := b.l.Hello(ctx, "alice", "", b.at+":25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Timeout(2 * time.Minute)
	_, last, err := c.Send("a@alice.example", []string{to}, letter("alice", "broken"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	return last
}

// encrypted sends a mail under TLS, which goes so all the way.
func (b *brokenTLS) encrypted(ctx context.Context, t *testing.T, to string) {
	t.Helper()
	c, _, err := underTLS(ctx, t, b.l, "alice", b.at+":25", anyCertificate)
	if err != nil {
		t.Fatal(err)
	}
	if _, r, err := c.Send("a@alice.example", []string{to}, letter("alice", "broken")); err != nil || r.Code != 250 || !messageOf(ctx, t, b.s, to).TLS {
		t.Errorf("%s: %v %v", to, r, err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
}

// promised is a client who was offered STARTTLS, as the destination is remembered: under it he is put off, and nothing of his
// goes in plain text.
func (b *brokenTLS) promised(ctx context.Context, t *testing.T) {
	t.Helper()
	before := len(b.s.Sessions())
	c, err := b.l.SMTP(ctx, "alice", "", b.at+":25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Timeout(2 * time.Minute)
	r, err := c.Cmd("EHLO mail.alice.example")
	if err != nil || r.Code != 250 {
		t.Fatalf("EHLO is answered %v, %v", r, err)
	}
	if slices.Contains(r.Lines, "STARTTLS") {
		if _, err := c.StartTLS(); err != nil {
			t.Fatal(err)
		}
		r, err = c.Cmd("EHLO mail.alice.example")
		if err == nil && r.Code == 250 {
			_, r, err = c.Send("sealed@alice.example", []string{"u@peer.example"}, letter("alice", "sealed"))
		}
		if err != nil || r.Code != 451 || !strings.HasPrefix(r.Raw, "451 4.7.5 gw.example: the destination does not encrypt any more, and your connection does") {
			t.Errorf("who has encrypted hears %v, %v", r, err)
		}
	} else if r, err = c.Cmd("STARTTLS"); err != nil || r.Code != 502 {
		t.Errorf("STARTTLS that is not offered is answered %v, %v", r, err)
	}
	for _, s := range b.s.Sessions()[before:] {
		if strings.Contains(strings.Join(s.Lines, "\n"), "sealed@") {
			t.Errorf("in plain text went %q", s.Lines)
		}
	}
}

// plain is a client who would encrypt: he is offered nothing, and goes on as he is.
func (b *brokenTLS) plain(ctx context.Context, t *testing.T, to string) {
	t.Helper()
	c, err := b.l.Hello(ctx, "alice", "", b.at+":25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if r, err := c.Cmd("EHLO mail.alice.example"); err != nil || slices.Contains(r.Lines, "STARTTLS") {
		t.Errorf("%s: EHLO is answered %v, %v", to, r, err)
	}
	if r, err := c.Cmd("STARTTLS"); err != nil || r.Code != 502 {
		t.Errorf("%s: STARTTLS is answered %v, %v", to, r, err)
	}
	if _, r, err := c.Send("a@alice.example", []string{to}, letter("alice", "broken")); err != nil || r.Code != 250 || messageOf(ctx, t, b.s, to).TLS {
		t.Errorf("%s: %v %v", to, r, err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
}

// swaks is a real client: one that encrypts where it can gets through, one that insists does not.
func (b *brokenTLS) swaks(ctx context.Context, t *testing.T) {
	t.Helper()
	for option, want := range map[string]bool{"--tls-optional": true, "--tls": false} {
		before := len(b.s.Messages())
		out, err := b.l.Swaks(ctx, "bob", "--server", b.at, "--from", "b@bob.example", "--to", "u@peer.example", option)
		if err != nil || (out.Code == 0) != want {
			t.Errorf("swaks %s: %v, exit %d\n%s", option, err, out.Code, out.Stdout)
		}
		if n := len(b.s.Messages()) - before; (n == 1) != want || n > 1 {
			t.Errorf("swaks %s: %d messages arrived", option, n)
		}
	}
}
