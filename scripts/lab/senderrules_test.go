//go:build labtest

package lab

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// senderConfig has alice send as herself alone, bob from domains that take mail, and dave as DMARC allows.
var senderConfig = strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "alice"}}
sender = { require_from_domain = true, from_domains = ["alice.example"] }{{else if eq .Name "bob"}}
sender = { valid_sender_required = true, refuse_null_sender = true }{{else if eq .Name "dave"}}
sender = { dmarc_prediction = "refuse" }{{end}}`, 1)

// TestSenderRules: who may be the sender, by domain, by the DNS and by DMARC, and who is on a list.
func TestSenderRules(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{TXT: map[string]string{"_dmarc.reject.example": "v=DMARC1; p=reject"}})
	g := startGatewayWith(t, l, senderConfig)
	type letter struct{ host, from, header, to, want string }
	n := 0
	send := func(m letter) {
		t.Helper()
		n++
		if m.to == "" {
			m.to = "u" + strconv.Itoa(n) + "@sink.example"
		}
		c, err := l.Hello(ctx, m.host, "", "198.51.100.20:25")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r, err := c.Cmd("MAIL FROM:<" + m.from + ">")
		if err != nil {
			t.Fatal(err)
		}
		answer := r.String()
		if r.Code == 250 {
			if r, err = c.Cmd("RCPT TO:<" + m.to + ">"); err != nil {
				t.Fatal(err)
			}
			answer = r.String()
		}
		if r.Code == 250 {
			if _, err := c.Cmd("DATA"); err != nil {
				t.Fatal(err)
			}
			if r, err = c.Cmd(strings.TrimSuffix(m.header, "\r\n") + "\r\n\r\nhello\r\n."); err != nil {
				t.Fatal(err)
			}
			answer = r.String()
		}
		if !strings.HasPrefix(answer, m.want) {
			t.Errorf("%s as <%s> with %q hears %q, want %q", m.host, m.from, m.header, answer, m.want)
		}
	}
	const blocked = "550 5.7.1 gw.example: [LISTED] this "
	for _, m := range []letter{
		{"alice", "a@alice.example", "From: a@alice.example", "", "250 "},
		{"alice", "a@bank.example", "From: a@alice.example", "", "550 5.7.1 gw.example: [FROM-DOMAIN]"},
		{"alice", "a@alice.example", "From: a@bank.example", "", "550 5.7.1 gw.example: [FROM-DOMAIN]"},
		{"alice", "", "From: MAILER-DAEMON@alice.example", "", "250 "},
		{"alice", "l@alice.example", "List-Id: <l.alice.example>\r\nFrom: b@bank.example", "", "250 "},
		{"bob", "b@sink.example", "From: b@sink.example", "", "250 "},
		{"bob", "b@nomx.example", "From: b@sink.example", "", "250 "},
		{"bob", "b@nullmx.example", "From: b@sink.example", "", "550 5.7.27 gw.example: [SENDER-NULLMX]"},
		{"bob", "b@nowhere.example", "From: b@sink.example", "", "550 5.1.8 gw.example: [SENDER-DOMAIN]"},
		{"bob", "", "From: b@sink.example", "", "550 5.7.1 gw.example: [NULL-SENDER]"},
		{"dave", "d@dave.example", "From: d@dave.example", "", "250 "},
		{"dave", "d@dave.example", "From: d@reject.example", "", "550 5.7.1 gw.example: [DMARC] receivers would refuse this: reject.example"},
		{"dave", "d@reject.example", "From: d@reject.example", "", "250 "},
		{"mallory", "m@nowhere.example", "From: m@reject.example", "", "250 "}, // of whom nothing is asked
	} {
		send(m)
	}
	helloCounts(ctx, t, l, g)
	// Mailboxes that were met are confirmed by hand; one day's mail finds none by itself.
	var seen struct{ Mailboxes []struct{ Mailbox string } }
	if err := sluiceJSON(ctx, g, &seen, "users", "senders", "dave"); err != nil || len(seen.Mailboxes) != 2 || seen.Mailboxes[0].Mailbox != "d@dave.example" {
		t.Errorf("%+v, %v", seen, err)
	}
	sluice(t, g, "users", "senders", "dave", "--take")
	sluice(t, g, "users", "set", "dave", "require_from_mailbox=found")
	send(letter{"dave", "d@dave.example", "From: d@dave.example", "", "550 5.7.1 gw.example: [FROM-MAILBOX]"})
	sluice(t, g, "users", "senders", "dave", "d@dave.example", "--take", "--reason", "his own")
	send(letter{"dave", "d+x@dave.example", "From: D <d@dave.example>", "", "250 "})
	send(letter{"dave", "d@dave.example", "From: e@dave.example", "", "550 5.7.1 gw.example: [FROM-MAILBOX]"})
	sluice(t, g, "users", "set", "dave", "require_from_mailbox=off")
	sluice(t, g, "addresses", "block", "sender", "mallory.example", "--reason", "sells lists")
	sluice(t, g, "addresses", "block", "recipient", "/^all-staff@/", "--user", "bob", "--reason", "ask first")
	sluice(t, g, "addresses", "allow", "sender", "good@mallory.example", "--skip", "content,learned", "--reason", "known", "--for", "30d")
	sluice(t, g, "addresses", "allow", "sender", "a@partner.example", "--skip", "rules", "--user", "alice", "--reason", "contract")
	check := func() {
		t.Helper()
		for _, m := range []letter{
			{"mallory", "m@mallory.example", "From: m@mallory.example", "", blocked + "sender is blocked: sells lists"},
			{"mallory", "good@mallory.example", "Subject: " + gtubeLine, "", "250 "},
			{"mallory", "m@other.example", "Subject: x", "", "250 "},
			{"bob", "b@sink.example", "Subject: x", "all-staff@sink.example", blocked + "recipient is blocked: ask first"},
			{"dave", "d@dave.example", "From: d@dave.example", "all-staff@sink.example", "250 "},
			{"alice", "a@partner.example", "From: a@partner.example", "", "250 "},
		} {
			send(m)
		}
	}
	check()
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	check()
	out, err := g.Sluice(ctx, "addresses", "allow", "sender", "x.example", "--skip", "everything", "--reason", "x")
	if err != nil || out.Code != 1 || !strings.Contains(out.Stderr, `no check "everything"`) {
		t.Errorf("%+v, %v", out, err)
	}
	var all []struct {
		ID      int
		Pattern string
	}
	if err := sluiceJSON(ctx, g, &all, "addresses"); err != nil || len(all) != 4 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, a := range all {
		if a.Pattern == "mallory.example" {
			sluice(t, g, "addresses", "remove", strconv.Itoa(a.ID))
		}
	}
	send(letter{"mallory", "m@mallory.example", "Subject: x", "", "250 "})

	// A DNS that says nothing stops no mail, and holds it up for some seconds at most.
	if err := g.Configure(senderConfig, "[dns]\nservers = [\"192.0.2.254\"]\n"); err != nil {
		t.Fatal(err)
	}
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for _, m := range []letter{
		{"bob", "b@nowhere.example", "From: b@sink.example", "", "250 "},
		{"dave", "d@dave.example", "From: d@reject.example", "", "250 "},
	} {
		send(m)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("two messages took %v without a DNS", took)
	}
}

// helloCounts (FRM4): what a client calls itself stands in the log and refuses nothing; of good names, and by setting, nothing is said.
func helloCounts(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	t.Helper()
	names := []string{"mail.mallory.example", "DESKTOP-7Q2", "localhost", "192.0.2.66", "mx.gmail.com", "sink.example", "gw.example", "off.local"}
	for i, name := range names {
		if name == "off.local" {
			sluice(t, g, "user", "set", "mallory", "helo_checks=off")
		}
		c, err := l.SMTP(ctx, "mallory", "", "198.51.100.20:25")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if r, err := c.Cmd("EHLO " + name); err != nil || r.Code != 250 {
			t.Fatalf("EHLO %s is answered %v, %v", name, r, err)
		}
		if _, last, err := c.Send("m@mallory.example", []string{fmt.Sprintf("helo%d@sink.example", i)}, []byte(minutesMail)); err != nil || last.Code != 250 {
			t.Errorf("whoever says %s hears %v, %v", name, last, err)
		}
	}
	var log []struct {
		Helo string
		Hits []struct{ Code, Action, Evidence string }
	}
	seen := func() bool {
		log = nil
		return sluiceJSON(ctx, g, &log, "log", "--user", "mallory", "--from", "m@mallory.example") == nil && len(log) >= len(names)
	}
	if !eventually(ctx, seen) {
		t.Fatalf("the log has %+v", log)
	}
	want := map[string]string{"localhost": "own use", "192.0.2.66": "without brackets", "mx.gmail.com": "well-known", "sink.example": "recipient's own", "gw.example": "gateway's own"}
	for _, m := range log {
		switch w := want[m.Helo]; {
		case w == "" && len(m.Hits) > 0:
			t.Errorf("of %q is said %+v", m.Helo, m.Hits)
		case w != "" && (len(m.Hits) != 1 || m.Hits[0].Code != "HELO" || m.Hits[0].Action != "accept" || !strings.Contains(m.Hits[0].Evidence, w)):
			t.Errorf("of %q is said %+v, want %q", m.Helo, m.Hits, w)
		}
	}
}
