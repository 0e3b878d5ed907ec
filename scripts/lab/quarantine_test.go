//go:build labtest

package lab

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// heldSeen is a held message as `sluice quarantine list --json` shows it.
type heldSeen struct {
	ID, User, Sender, Code, State string
	Tries                         int
}

func heldMail(ctx context.Context, t *testing.T, g *Gateway) map[string]heldSeen {
	t.Helper()
	var all []heldSeen
	if err := sluiceJSON(ctx, g, &all, "quarantine", "list"); err != nil {
		t.Fatal(err)
	}
	by := map[string]heldSeen{}
	for _, h := range all {
		by[h.User] = h
	}
	return by
}

// TestQuarantineHoldsMail: spam of alice is refused and of bob, whom another setting tells to come again, put off, and a copy
// of each held, over a kill; nobody reads it on the disk. A release delivers it with its own envelope and teaches the
// filter; bob's next try hears 250 and nothing arrives twice. Good mail passes.
func TestQuarantineHoldsMail(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, GatewayConfig+"\n[content]\nlearned = \"always\"\non_spam = \"quarantine\"\n[quarantine]\nanswer = \"451\"\n")
	for _, c := range []struct{ host, rcpt, mail, want string }{
		{"alice", "good@sink.example", minutesMail, "250 "},
		{"bob", "pills@sink.example", pillMail, "451 4.7.1 gw.example: [SPAM]"},
		{"bob", "pills@sink.example", pillMail, "451 4.7.1 gw.example: [SPAM]"},
		{"alice", "phish@sink.example", phishMail, "451 4.7.1 gw.example: [PHISH]"},
	} {
		if got := say(ctx, t, l, c.host, c.rcpt, c.mail); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s to %s hears %q, want %q", c.host, c.rcpt, got, c.want)
		}
	}
	if err := g.Sluiced.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	held := heldMail(ctx, t, g)
	if b := held["bob"]; len(held) != 2 || b.Code != "SPAM" || b.Sender != "a@bob.example" || b.Tries != 2 || b.State != "held" {
		t.Fatalf("held are %+v", held)
	}
	files, _ := filepath.Glob(filepath.Join(g.Dir, "state", "quarantine", "*"))
	if len(files) != 2 {
		t.Errorf("files: %q", files)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || len(b) == 0 || bytes.Contains(b, []byte("Viagra")) || bytes.Contains(b, []byte("PayPal")) || bytes.Contains(b, []byte("sink.example")) {
			t.Errorf("%s can be read, or not found: %v", f, err)
		}
	}
	if out := sluice(t, g, "quarantine", "show", held["bob"].ID); !strings.Contains(out, "p****@sink.example") || !strings.Contains(out, "pills.example") || !strings.Contains(out, "Lowest prices") || strings.Contains(out, "pills@sink") {
		t.Errorf("show: %s", out)
	}
	if out := sluice(t, g, "quarantine", "show", held["bob"].ID, "--message"); strings.ReplaceAll(out, "\r\n", "\n") != strings.ReplaceAll(pillMail, "\r\n", "\n") {
		t.Errorf("the message is %q", out)
	}
	if out := sluice(t, g, "quarantine", "rotate"); !strings.Contains(out, "2 messages are under it") {
		t.Errorf("rotate: %s", out)
	}
	if out := sluice(t, g, "quarantine", "release", held["bob"].ID, "--reason", "a pharmacy with a licence", "--train"); !strings.Contains(out, "1 message released, 1 learnt") {
		t.Errorf("release: %s", out)
	}
	if m := messageTo(ctx, t, l, "pills@sink.example"); !bytes.Contains(m.Data, []byte("Lowest prices")) || m.Sender() != "a@bob.example" {
		t.Errorf("it arrived as %q", m.Data)
	}
	if got := say(ctx, t, l, "bob", "pills@sink.example", pillMail); !strings.HasPrefix(got, "250 2.0.0 gw.example: released before as "+held["bob"].ID) {
		t.Errorf("bob's next try hears %q", got)
	}
	n := 0
	for _, m := range l.Sink("sink").Messages() {
		if bytes.Contains(m.Data, []byte("Lowest prices")) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("it arrived %d times", n)
	}
	if out, err := g.Sluice(ctx, "quarantine", "release", held["bob"].ID, "--reason", "x"); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, "released already") {
		t.Errorf("released twice: %+v, %v", out, err)
	}
	if out := sluice(t, g, "quarantine", "delete", "--user", "alice", "--reason", "phishing", "--train"); !strings.Contains(out, "1 message deleted") {
		t.Errorf("delete: %s", out)
	}
	if held := heldMail(ctx, t, g); len(held) != 0 {
		t.Errorf("held are %+v", held)
	}
}

// TestUnsureMailIsJudgedAgain (CON9): what is unsure is put off once, comes again after the wait, and passes; at the smarthost
// it is taken, and waits in the queue. A restart in between makes it wait no longer.
// What a list has by then is held.
func TestUnsureMailIsJudgedAgain(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	config := smarthostConfig + "\n[content]\nlearned = \"always\"\nunsure = 0.05\nspam = 0.9999\non_unsure = \"delay\"\nwait = \"10s\"\n"
	g := startGatewayWith(t, l, config)
	if err := l.dns.write("links", "127.0.1.2 late.example.links.example\n127.0.1.2 test.links.example\n"); err != nil {
		t.Fatal(err)
	}
	const mail = "From: Offers <x@offers.example>\r\nSubject: prices for the summer\r\n\r\nHere are our prices for the summer. Order in our shop, delivery is free for orders above 50 EUR.\r\nhttp://offers.example/now\r\n"
	first := say(ctx, t, l, "alice", "one@sink.example", mail)
	if !strings.HasPrefix(first, "451 4.7.1 gw.example: [UNSURE]") {
		t.Fatalf("the first try hears %q", first)
	}
	if again := say(ctx, t, l, "alice", "one@sink.example", mail); !strings.HasPrefix(again, "451 4.7.1 gw.example: [UNSURE]") {
		t.Errorf("a try that comes at once hears %q", again)
	}
	for to, mail := range map[string]string{"two@sink.example": mail, "three@sink.example": strings.ReplaceAll(mail, "offers.example/now", "late.example/now")} {
		out, err := l.Swaks(ctx, "bob", "--server", "203.0.113.1:587", "--tls", "--from", "x@bob.example", "--to", to, "--ehlo", "client.example", "--data", strings.ReplaceAll(mail, "\r\n", "\n"))
		if err != nil || !strings.Contains(out.Stdout, "250 2.0.0 gw.example: kept as ") {
			t.Errorf("at the smarthost: %s, %v", out.Stdout, err)
		}
	}
	if err := g.Configure(config+"[[dnslist]]\nname = \"links\"\nzone = \"links.example\"\nof = \"link\"\nrefuse = [\"127.0.1.0/24\"]\n", ""); err != nil {
		t.Fatal(err)
	}
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	messageTo(ctx, t, l, "two@sink.example") // by itself, once it was judged again
	if again := say(ctx, t, l, "alice", "one@sink.example", mail); !strings.HasPrefix(again, "250 ") {
		t.Errorf("after the wait it hears %q", again)
	}
	if !eventually(ctx, func() bool { return heldMail(ctx, t, g)["bob"].Code == "LISTED" }) {
		t.Errorf("what a list has by now is not held: %+v", heldMail(ctx, t, g))
	}
	for _, m := range l.Sink("sink").Messages() {
		if m.Recipients()[0] == "three@sink.example" {
			t.Error("what a list has by now arrived")
		}
	}
}

// TestHeldAtTheSmarthost: who hands in what is to be held hears 250, and his contact a notice; the message goes nowhere.
func TestHeldAtTheSmarthost(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	config := strings.Replace(smarthostConfig, `name = "{{.Name}}"`, "name = \"{{.Name}}\"\ncontact = \"desk-{{.Name}}@sink.example\"", 1)
	g := startGatewayWith(t, l, config+"\n[content]\nlearned = \"always\"\non_spam = \"quarantine\"\n")
	out, err := l.Swaks(ctx, "bob", "--server", "203.0.113.1:587", "--tls", "--from", "x@bob.example", "--to", "pills@sink.example", "--ehlo", "client.example", "--data", strings.ReplaceAll(pillMail, "\r\n", "\n"))
	held := heldMail(ctx, t, g)["bob"]
	if err != nil || held.ID == "" || !strings.Contains(out.Stdout, "250 2.0.0 gw.example: kept as "+held.ID+" until somebody has looked at it") {
		t.Fatalf("%s, %v, held is %+v", out.Stdout, err, held)
	}
	if m := messageTo(ctx, t, l, "desk-bob@sink.example"); m.Sender() != "" || !bytes.Contains(m.Data, []byte("Its number: "+held.ID)) || bytes.Contains(m.Data, []byte("Viagra")) {
		t.Errorf("the notice is %q", m.Data)
	}
	for _, m := range l.Sink("sink").Messages() {
		if bytes.Contains(m.Data, []byte("Lowest prices")) {
			t.Error("what is held arrived")
		}
	}
}
