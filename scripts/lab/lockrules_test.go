//go:build labtest

package lab

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// lockedBy drives one customer into a lock, or not.
type lockedBy struct {
	t    *testing.T
	l    *Lab
	g    *Gateway
	host string
}

// sends sends one mail and wants its answer.
func (x *lockedBy) sends(ctx context.Context, what, mail, want string) {
	x.t.Helper()
	if got := say(ctx, x.t, x.l, x.host, "u@sink.example", mail); !strings.HasPrefix(got, want) {
		x.t.Errorf("%s of %s hears %q, want %q", what, x.host, got, want)
	}
}

// lock is the customer's, nil where there is none.
func (x *lockedBy) lock(ctx context.Context) *brief {
	x.t.Helper()
	var all []brief
	if err := sluiceJSON(ctx, x.g, &all, "locks"); err != nil {
		x.t.Fatal(err)
	}
	for i := range all {
		if all[i].User == x.host {
			return &all[i]
		}
	}
	return nil
}

// brief is what a test looks at of a lock.
type brief struct {
	User, Rule string
	Until      *time.Time
}

const lockedAnswer = "451 4.7.1 gw.example: [LOCKED]"

// TestWhatLocks: two phishing mails lock, and one does not; where nobody is to be locked by a rule bad mail is refused and an
// operator is told, and who is never to be locked is not by a person either; a lock ends by itself as often as set, and the next one by a person alone, until he sets the number back.
func TestWhatLocks(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGateway(t, l, "[content]\nlearned = \"always\"\n")
	for host, test := range map[string]func(*lockedBy, context.Context){"alice": phishLocks, "bob": nothingLocks, "mallory": neverLocked, "dave": locksEndSoOften} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			test(&lockedBy{t, l, g, host}, ctx)
		})
	}
}

// otherPhish is no copy of phishMail.
const otherPhish = "From: \"Sparkasse Online\" <kundendienst@konto-pruefung.example>\r\nSubject: Ihr Konto wurde eingeschraenkt\r\nContent-Type: text/html\r\n\r\n" +
	"<h1>Wichtige Mitteilung</h1><p>Sehr geehrter Kunde, wir mussten Ihr Online-Banking voruebergehend sperren.</p>\r\n" +
	"<p>Bitte bestaetigen Sie Ihre Zugangsdaten und Ihre PIN innerhalb von 48 Stunden: " +
	"<a href=\"http://203.0.113.200/sparkasse.de/anmelden\">https://www.sparkasse.de/anmelden</a></p>\r\n"

func phishLocks(x *lockedBy, ctx context.Context) {
	x.sends(ctx, "phish", phishMail, "550 5.7.1 gw.example: [PHISH]")
	if k := x.lock(ctx); k != nil {
		x.t.Errorf("one phishing mail locks: %+v", k)
	}
	x.sends(ctx, "phish of another wording", otherPhish, "550 5.7.1 gw.example: [PHISH]")
	if k := x.lock(ctx); k == nil || k.Rule != "phish" || k.Until == nil {
		x.t.Errorf("two phishing mails: %+v", k)
	}
	x.sends(ctx, "good mail", minutesMail, lockedAnswer)
}

func nothingLocks(x *lockedBy, ctx context.Context) {
	sluice(x.t, x.g, "users", "set", x.host, "lock_automatic=false")
	for i := range 8 {
		x.sends(ctx, "spam", plainMail(fmt.Sprint(i), words(i)+gtubeText), "550 5.7.1 gw.example: [GTUBE]")
	}
	if k := x.lock(ctx); k != nil {
		x.t.Errorf("it locks by itself: %+v", k)
	}
	if err := x.g.Sluiced.WaitLog(ctx, "a user sends bad mail and is not locked by itself"); err != nil {
		x.t.Error(err)
	}
}

// neverLocked: neither a rule nor a person locks him, until that is taken back.
func neverLocked(x *lockedBy, ctx context.Context) {
	sluice(x.t, x.g, "users", "set", x.host, "lock_never=true")
	for range 2 {
		x.sends(ctx, "a virus", virusMail, "550 5.7.1 gw.example: [EICAR]")
	}
	if out, err := x.g.Sluice(ctx, "lock", x.host, "--reason", "a report"); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, "never") {
		x.t.Errorf("a person locks: %+v, %v", out, err)
	}
	if k := x.lock(ctx); k != nil {
		x.t.Errorf("locked is %+v", k)
	}
	x.sends(ctx, "good mail", minutesMail, "250 ")
	sluice(x.t, x.g, "users", "unset", x.host, "lock_never")
	sluice(x.t, x.g, "lock", x.host, "--reason", "a report")
	x.sends(ctx, "good mail under a lock", minutesMail, lockedAnswer)
}

const virusMail = "Subject: invoice\r\n\r\n" + eicar + "\r\n"

func locksEndSoOften(x *lockedBy, ctx context.Context) {
	sluice(x.t, x.g, "users", "set", x.host, "lock_minutes=1", "lock_max_unlocks=1")
	x.sends(ctx, "a virus", virusMail, "550 5.7.1 gw.example: [EICAR]")
	k := x.lock(ctx)
	if k == nil || k.Rule != "virus" || k.Until == nil {
		x.t.Fatalf("a virus: %+v", k)
	}
	x.sends(ctx, "good mail", minutesMail, lockedAnswer)
	if !eventually(ctx, func() bool { return x.lock(ctx) == nil }) {
		x.t.Fatal("the lock does not end")
	}
	if early := time.Until(*k.Until); early > 0 {
		x.t.Errorf("it ended %v before its time", early)
	}
	x.sends(ctx, "good mail behind the lock", minutesMail, "250 ")
	x.sends(ctx, "a virus again", virusMail, "550 5.7.1 gw.example: [EICAR]")
	if k = x.lock(ctx); k == nil || k.Until != nil {
		x.t.Errorf("the second lock ends by itself: %+v", k)
	}
	sluice(x.t, x.g, "unlock", x.host, "--reset")
	x.sends(ctx, "good mail behind a person's word", minutesMail, "250 ")
	x.sends(ctx, "a virus for the third time", virusMail, "550 5.7.1 gw.example: [EICAR]")
	if k = x.lock(ctx); k == nil || k.Until == nil {
		x.t.Errorf("with the number set back the lock does not end by itself: %+v", k)
	}
}

// TestTheAdministratorIsWrittenTo twenty times an hour by a locked customer, and not more often.
func TestTheAdministratorIsWrittenTo(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, strings.Replace(GatewayConfig, "contact = ", "admin_address = \"postmaster@sink.example\"\ncontact = ", 1))
	sluice(t, g, "lock", "alice", "--for", "1h", "--reason", "compromised")
	c, err := l.Hello(ctx, "alice", "", "198.51.100.20:25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 22 {
		want := "250 "
		if i >= 20 {
			want = lockedAnswer
		}
		if _, r, err := c.Send("a@alice.example", []string{"postmaster@sink.example"}, letter("alice", fmt.Sprint(i))); err != nil || !strings.HasPrefix(r.Raw, want) {
			t.Errorf("letter %d hears %s, %v; want %s", i+1, r, err, want)
		}
	}
	if n := len(l.Sink("sink").Messages()); n != 20 {
		t.Errorf("%d letters arrived", n)
	}
}

// TestNewIdentitiesOfAnHour: fifty that were never heard of have names of their own; the next ones share one.
func TestNewIdentitiesOfAnHour(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, identityConfig)
	c, err := l.Hello(ctx, "alice", "", "198.51.100.20:25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 60 {
		if _, r, err := c.Send("a@alice.example", []string{"u@sink.example"}, fmt.Appendf(nil, "X-AuthUser: script%d\r\nSubject: %d\r\n\r\nhello\r\n", i%55, i)); err != nil || r.Code != 250 {
			t.Fatalf("message %d: %v %v", i, r, err)
		}
	}
	var all []struct {
		Identity string
		Messages int
	}
	if err := sluiceJSON(ctx, g, &all, "identities", "alice"); err != nil {
		t.Fatal(err)
	}
	sent := map[string]int{}
	for _, x := range all {
		sent[x.Identity] = x.Messages
	}
	if len(all) != 51 || sent["script4"] != 2 || sent["script49"] != 1 || sent["other"] != 5 {
		t.Errorf("of 55 new identities %d are listed: %v", len(all), sent)
	}
}
