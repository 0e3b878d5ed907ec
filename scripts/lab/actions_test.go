//go:build labtest

package lab

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
)

// riskyConfig has a pool for risky mail and one for forwarded mail, of the same addresses, by which nothing else leaves, and lets
// mail be discarded.
const riskyConfig = smarthostConfig + `
[[delivery.pool]]
name = "risky"
class = "risk"
addresses = ["{{(index .Addresses 2).Address}}", "{{(index .Addresses 3).Address}}"]
[[delivery.pool]]
name = "passed"
class = "forwarded"
addresses = ["{{(index .Addresses 2).Address}}", "{{(index .Addresses 3).Address}}"]
[content]
learned = "always"
discard = true
[campaign]
act = "say"
`

// TestActionsOfSpam (CON1): what becomes of spam and of unsure mail is a user's setting, in force with his next mail: it is
// delivered, tagged, sent apart from his other mail, held, discarded or refused; his good mail notices nothing.
func TestActionsOfSpam(t *testing.T) {
	t.Parallel()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ctx, l := testContext(t), ForTest(t, Options{TXT: map[string]string{"s._domainkey.peer02.example": "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)}})
	g := startGatewayWith(t, l, riskyConfig)
	set := func(what ...string) {
		t.Helper()
		sluice(t, g, append([]string{"user", "set", "alice"}, what...)...)
	}
	hears := func(rcpt, mail, want string) {
		t.Helper()
		if got := say(ctx, t, l, "alice", rcpt, mail); !strings.HasPrefix(got, want) {
			t.Errorf("to %s he hears %q, want %q", rcpt, got, want)
		}
	}
	hears("good@sink.example", minutesMail, "250 ")
	usual := messageTo(ctx, t, l, "good@sink.example").Peer.Addr().Unmap()
	hears("refused@sink.example", pillMail, "550 5.7.1 gw.example: [SPAM]")
	forwardedApart(ctx, t, l, g, key, usual)
	set("content_on_spam=deliver")
	hears("plain@sink.example", pillMail, "250 ")
	if m := messageTo(ctx, t, l, "plain@sink.example"); bytes.Contains(m.Data, []byte("X-Spam")) || m.Peer.Addr().Unmap() != usual {
		t.Errorf("what is delivered comes from %v: %q", m.Peer, m.Data)
	}
	set("content_on_spam=tag")
	hears("tagged@sink.example", pillMail, "250 ")
	if m := messageTo(ctx, t, l, "tagged@sink.example"); !bytes.Contains(m.Data, []byte("\r\nX-Spam-Flag: YES\r\nX-Spam-Status: Yes, probability=")) || !bytes.HasSuffix(m.Data, []byte(pillMail)) {
		t.Errorf("what is tagged arrives as %q", m.Data)
	}
	set("content_on_spam=high-risk")
	hears("risky@sink.example", pillMail, "250 ")
	risky := messageTo(ctx, t, l, "risky@sink.example").Peer.Addr().Unmap()
	if risky == usual || !DeliveryV4.Contains(risky) {
		t.Errorf("risky mail comes from %v, good mail from %v", risky, usual)
	}
	riskyRefused(t, l, "alice")
	hears("good2@sink.example", minutesMail, "250 ")
	if from := messageTo(ctx, t, l, "good2@sink.example").Peer.Addr().Unmap(); from == risky {
		t.Error("good mail leaves beside risky mail")
	}
	if out, err := l.Swaks(ctx, "alice", "--server", "203.0.113.1:587", "--tls", "--from", "x@alice.example", "--to", "later@v4only.example", "--ehlo", "localhost", "--data", strings.ReplaceAll(pillMail, "\r\n", "\n")); err != nil || !strings.Contains(out.Stdout, "it is delivered from here") {
		t.Errorf("risky mail at the smarthost: %s, %v", out.Stdout, err)
	}
	if from := messageOf(ctx, t, l.Sink("v4only"), "later@v4only.example").Peer.Addr().Unmap(); from != risky {
		t.Errorf("from the smarthost it leaves from %v, want %v", from, risky)
	}
	var told []struct {
		Hits []struct{ Code, Evidence string }
	}
	if err := sluiceJSON(ctx, g, &told, "log", "--to", "later@v4only.example"); err != nil || !strings.Contains(fmt.Sprint(told), `{HELO "localhost" is a name for a host's own use}`) || !strings.Contains(fmt.Sprint(told), ", HELO +0.05") {
		t.Errorf("of a client that calls itself localhost the log has %+v, %v", told, err)
	}
	set("content_on_spam=quarantine")
	hears("held@sink.example", pillMail, "550 5.7.1 gw.example: [SPAM]")
	if held := heldMail(ctx, t, g); held["alice"].Code != "SPAM" {
		t.Errorf("held are %+v", held)
	}
	set("content_on_spam=discard")
	hears("nowhere@sink.example", pillMail, "250 2.0.0 gw.example: taken")
	set("content_spam=1", "content_unsure=0.9", "content_on_unsure=tag")
	hears("unsure@sink.example", pillMail, "451 4.7.1 gw.example: [HELD]") // since bad mail of his was found in these minutes
	hears("good3@sink.example", minutesMail, "250 ")
	sluice(t, g, "user", "set", "bob", "content_spam=1", "content_unsure=0.9", "content_on_unsure=tag")
	if got := say(ctx, t, l, "bob", "unsure@sink.example", pillMail); !strings.HasPrefix(got, "250 ") {
		t.Errorf("whose mail was never found bad hears %q", got)
	}
	if m := messageTo(ctx, t, l, "unsure@sink.example"); !bytes.Contains(m.Data, []byte("\r\nX-Spam-Status: Unsure, probability=")) || bytes.Contains(m.Data, []byte("X-Spam-Flag")) {
		t.Errorf("what is unsure arrives as %q", m.Data)
	}
	for _, m := range l.Sink("sink").Messages() {
		if to := m.Recipients()[0]; strings.HasPrefix(to, "nowhere@") || strings.HasPrefix(to, "held@") || strings.HasPrefix(to, "refused@") {
			t.Errorf("%s got a message", to)
		}
	}
	var log []struct{ Status, Way, Source, Campaign string }
	if err := sluiceJSON(ctx, g, &log, "log", "--status", "discarded"); err != nil || len(log) != 1 || log[0].Campaign == "" {
		t.Fatalf("the log has of discarded mail %+v, %v", log, err)
	}
	copies := log[0].Campaign
	if err := sluiceJSON(ctx, g, &log, "log", "--campaign", copies, "--status", "delivered"); err != nil || len(log) < 4 {
		t.Errorf("the log has of the copies that were delivered %+v, %v", log, err)
	}
	tellsBulk(ctx, t, l, g)
	reputationHolds(ctx, t, l, g)
	replayKnows(ctx, t, l, g)
	mostlyBad(ctx, t, l)
	for _, bad := range []string{"content_on_unsure=discard", "content_on_spam=burn"} {
		if out, err := g.Sluice(ctx, "user", "set", "alice", bad); err != nil || out.Code == 0 {
			t.Errorf("%s is taken: %+v, %v", bad, out, err)
		}
	}
}

// forwardedApart (ATT10): mail that a user only passes on leaves through the pool for it, told by a forwarder's field or by the
// signature of another domain; it is refused when it is bad, and counted apart. An altered signature tells nothing.
func forwardedApart(ctx context.Context, t *testing.T, l *Lab, g *Gateway, key crypto.Signer, usual netip.Addr) {
	t.Helper()
	sluice(t, g, "user", "set", "alice", "from_domains=alice.example")
	var out bytes.Buffer
	letter := strings.Replace(minutesMail, "a@alice.example", "y@peer02.example", 1)
	if err := dkim.Sign(&out, strings.NewReader(letter), &dkim.SignOptions{Domain: "peer02.example", Selector: "s", Signer: key}); err != nil {
		t.Fatal(err)
	}
	const field = "Delivered-To: x@alice.example\r\n"
	for i, c := range []struct {
		mail, want string
		apart      bool
	}{
		{minutesMail, "250 ", false}, {field + minutesMail, "250 ", true}, {out.String(), "250 ", true}, {field + pillMail, "550 5.7.1 gw.example: [SPAM]", true},
		{strings.Replace(out.String(), "y@peer02", "z@peer02", 1), "250 ", false},
	} {
		to := fmt.Sprintf("forwarded%d@sink.example", i)
		if got := say(ctx, t, l, "alice", to, c.mail); !strings.HasPrefix(got, c.want) {
			t.Errorf("mail %d hears %q, want %q", i, got, c.want)
		} else if c.want == "250 " {
			if from := messageTo(ctx, t, l, to).Peer.Addr().Unmap(); (from != usual) != c.apart || !DeliveryV4.Contains(from) {
				t.Errorf("mail %d comes from %v, usual mail from %v", i, from, usual)
			}
		}
	}
	var u struct {
		Forwarded struct{ Messages, Sent, Bad int }
	}
	if !eventually(ctx, func() bool {
		return sluiceJSON(ctx, g, &u, "user", "show", "alice") != nil || u.Forwarded.Messages >= 3
	}) || u.Forwarded.Messages != 3 || u.Forwarded.Sent != 2 || u.Forwarded.Bad != 1 {
		t.Errorf("of her forwarded mail is known %+v", u.Forwarded)
	}
}

// tellsBulk (CON10): of mail that may be bad the log says, too, that it goes to more strangers than its sender ever wrote to. Of mail
// that is good by its words it says nothing.
func tellsBulk(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	t.Helper()
	sluice(t, g, "user", "set", "dave", "content_on_spam=deliver")
	c, err := l.Hello(ctx, "dave", "", "198.51.100.20:25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	mails := []string{pillMail, minutesMail, minutesMail, minutesMail, pillMail} // to 50 each; 200 are many
	for i, text := range mails {
		if _, last, err := c.Send("d@dave.example", numbered(50, fmt.Sprintf("all%d-", i), "sink.example"), []byte(text)); err != nil || last.Code != 250 {
			t.Fatal(last, err)
		}
	}
	var log []struct {
		Hits []struct{ Code, Action string }
	}
	if !eventually(ctx, func() bool {
		log = nil
		return sluiceJSON(ctx, g, &log, "log", "--user", "dave") != nil || len(log) >= len(mails)
	}) || len(log) != len(mails) {
		t.Fatalf("the log has of mails to 250 people %+v", log)
	}
	for i, m := range log {
		bulk := false
		for _, h := range m.Hits {
			bulk = bulk || h.Code == "BULK"
		}
		if bulk != (i == 0) { // the newest first
			t.Errorf("mail %d from the last is said to be bulk: %v; %+v", i, bulk, m.Hits)
		}
	}
}

// reputationHolds (REP2): one bad message gives a reputation with its factors; it holds the next mail of who is held from so many
// points on, and of nobody else.
func reputationHolds(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	t.Helper()
	sluice(t, g, "user", "set", "bob", "lock_score_held=1")
	for host, want := range map[string]string{"bob": "451 4.7.1 gw.example: [HELD]", "mallory": "250 "} {
		if got := say(ctx, t, l, host, "x@sink.example", gtubeMail); !strings.HasPrefix(got, "550 ") {
			t.Errorf("%s hears %q to the test text", host, got)
		}
		if got := say(ctx, t, l, host, "y@sink.example", minutesMail); !strings.HasPrefix(got, want) {
			t.Errorf("behind one bad message %s hears %q, want %q", host, got, want)
		}
	}
	var u struct {
		Standing struct {
			Rung    string
			Score   int
			Factors []struct{ Name string }
		}
	}
	if err := sluiceJSON(ctx, g, &u, "user", "show", "bob"); err != nil || u.Standing.Score < 1 || len(u.Standing.Factors) != 1 || u.Standing.Factors[0].Name != "spam" {
		t.Errorf("bob's standing is %+v, %v", u.Standing, err)
	}
}

// mostlyBad (LCK1): where half of what a sender sent in these minutes was found bad, and that is half of what locks, his good mail waits,
// too; that of others, some of whose mail was bad, does not.
func mostlyBad(ctx context.Context, t *testing.T, l *Lab) {
	t.Helper()
	for _, c := range []struct{ mail, want string }{
		{pillMail, "550 5.7.1 gw.example: [SPAM]"}, {minutesMail, "250 "}, // two of four
		{strings.Replace(gtubeMail, "\r\n\r\n", "\r\n\r\nanother one, and not that of before\r\n", 1), "550 5.7.1 gw.example: [GTUBE]"}, {minutesMail, "451 4.7.1 gw.example: [HELD]"}, // three of five
	} {
		if got := say(ctx, t, l, "mallory", "z@sink.example", c.mail); !strings.HasPrefix(got, c.want) {
			t.Errorf("mallory hears %q, want %q", got, c.want)
		}
	}
	if got := say(ctx, t, l, "alice", "z@sink.example", minutesMail); !strings.HasPrefix(got, "250 ") {
		t.Errorf("alice, little of whose mail was bad, hears %q", got)
	}
}

// replayKnows (LCK10): over the real log, proposed settings lock who sent one message that was refused and one that went on although
// it looks bad, by their average; the settings in force would not, and what is proposed changes nothing.
func replayKnows(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	t.Helper()
	if got := say(ctx, t, l, "dave", "x@sink.example", gtubeMail); !strings.HasPrefix(got, "550 ") {
		t.Errorf("dave hears %q to the test text", got)
	}
	run := func(set ...string) (rules string) {
		var r struct {
			Messages int
			Locks    []struct{ User, Rule string }
		}
		if err := sluiceJSON(ctx, g, &r, append([]string{"replay"}, set...)...); err != nil || r.Messages == 0 {
			t.Errorf("replay %q: %+v, %v", set, r, err)
		}
		for _, x := range r.Locks {
			if x.User == "dave" {
				rules += x.Rule
			}
		}
		return rules
	}
	proposed := []string{"--set", "lock_average_count=1", "--set", "lock_average_score=0.1"}
	if !eventually(ctx, func() bool { return run(proposed...) == "score" }) {
		t.Errorf("by what is proposed dave would have been locked by %q", run(proposed...))
	}
	if rule := run(); rule != "" {
		t.Errorf("by the settings in force dave would have been locked by %q", rule)
	}
	if got := say(ctx, t, l, "dave", "y@sink.example", minutesMail); !strings.HasPrefix(got, "250 ") {
		t.Errorf("after the replay dave hears %q", got)
	}
}

// riskyRefused: a recipient who is told 250, and refused where risky mail comes from, costs a temporary error, and nothing is
// delivered.
func riskyRefused(t *testing.T, l *Lab, host string) {
	t.Helper()
	ctx := testContext(t)
	c, err := l.Hello(ctx, host, "", "198.51.100.20:25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, line := range []string{"MAIL FROM:<a@alice.example>", "RCPT TO:<picky@sink.example>"} {
		if r, err := c.Cmd(line); err != nil || r.Code != 250 {
			t.Fatalf("%s: %v %v", line, r, err)
		}
	}
	if err := l.Sink("sink").Script("rcpt@picky: reply 550 5.7.1 not from there"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Sink("sink").Script() }()
	if r, err := c.Cmd("DATA"); err != nil || r.Code != 354 {
		t.Fatalf("DATA: %v %v", r, err)
	}
	if r, err := c.Cmd(strings.TrimSuffix(pillMail, "\r\n") + "\r\n."); err != nil || r.Code != 451 || !strings.Contains(r.String(), "the destination answers otherwise") {
		t.Errorf("after 250 to a recipient whom the destination refuses now: %v %v", r, err)
	}
}

// TestActionsNeedWhatTheyRestOn: without a pool for risky mail, and without leave to discard, neither is a setting; a
// configuration that says so does not start.
func TestActionsNeedWhatTheyRestOn(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, GatewayConfig)
	for what, want := range map[string]string{"content_on_spam=discard": "does not allow to discard", "content_on_unsure=high-risk": "no delivery pool of class risk"} {
		if out, err := g.Sluice(ctx, "user", "set", "alice", what); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, want) {
			t.Errorf("user set %s: %+v, %v", what, out, err)
		}
		if out, err := g.Sluice(ctx, "accounts", "set", "plan", "basic", what); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, want) {
			t.Errorf("accounts set %s: %+v, %v", what, out, err)
		}
	}
}
