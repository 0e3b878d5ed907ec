//go:build labtest

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// parcelMail is a message of a burst, made for one recipient.
func parcelMail(name string) string {
	return "From: Parcel desk <desk@parcel.example>\r\nSubject: " + name + ", your parcel waits\r\nContent-Type: text/html\r\n\r\n" +
		"<p>Dear " + name + ", we tried to deliver your parcel today, and nobody was at home. Verify your account within 24 hours or the parcel goes back.</p>\r\n" +
		"<p>Confirm your password immediately to restore access. You have won a free gift card, claim your prize now, 100% guarantee!</p>\r\n" +
		"<a href=\"http://198.51.100.99/track/" + name + "8f3a77c1e2\">Confirm now</a>\r\n"
}

// say sends one mail and returns the reply to it, once the gateway has done what it does behind that: log, counts, what it learns.
func say(ctx context.Context, t *testing.T, l *Lab, host, rcpt, mail string) string {
	t.Helper()
	c, err := l.Hello(ctx, host, "", "198.51.100.20:25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, last, err := c.Send("a@"+host+".example", []string{rcpt}, []byte(mail))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Quit() // the session may be over
	return last.String()
}

// campaignSeen is a campaign as `sluice campaign --json` shows it.
type campaignSeen struct {
	ID, State, Rule    string
	Copies, Recipients int
	Users              []struct{ Name, Ticket string }
}

// TestCampaigns: one burst from two hosts is one campaign, which a rule holds before what was learnt may refuse anything; a
// person releases, refuses or locks it as one, and that holds over a restart. Other mail of the same hosts passes.
func TestCampaigns(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, GatewayConfig+"\n[campaign]\nusers = 2\n")
	let, n := 0, 0
	burst := func(copies int) (last string) {
		for range copies {
			n++
			host := []string{"alice", "bob"}[n%2]
			if last = say(ctx, t, l, host, fmt.Sprintf("r%d@sink.example", n), parcelMail(fmt.Sprintf("Name%d", n))); strings.HasPrefix(last, "250 ") {
				let++
			}
		}
		return last
	}
	if last := burst(8); !strings.HasPrefix(last, "451 4.7.1 gw.example: [CAMPAIGN]") || let > 3 {
		t.Fatalf("%d of 8 copies passed, the last heard %q", let, last)
	}
	if got := say(ctx, t, l, "alice", "minutes@sink.example", minutesMail); !strings.HasPrefix(got, "250 ") {
		t.Errorf("other mail hears %q", got)
	}
	find := func() campaignSeen {
		t.Helper()
		var all []campaignSeen
		if err := sluiceJSON(ctx, g, &all, "campaign", "list"); err != nil || len(all) != 1 {
			t.Fatalf("campaigns: %+v, %v", all, err)
		}
		return all[0]
	}
	c := find()
	if c.State != "held" || c.Rule != "users" || c.Copies != 8 || c.Recipients != 8 || len(c.Users) != 2 {
		t.Errorf("the campaign is %+v", c)
	}
	if out := sluice(t, g, "campaign", "show", c.ID); !strings.Contains(out, "parcel waits") || !strings.Contains(out, "alice") || !strings.Contains(out, "198.51.100.99") {
		t.Errorf("show: %s", out)
	}
	sluice(t, g, "campaign", "watch", c.ID, "--reason", "to look at it")
	sluice(t, g, "campaign", "hold", c.ID, "--reason", "until the desk is back")
	if last := burst(1); !strings.HasPrefix(last, "451 4.7.1 gw.example: [CAMPAIGN]") {
		t.Errorf("held by hand, a copy hears %q", last)
	}
	sluice(t, g, "campaign", "release", c.ID, "--reason", "it is ours")
	if last := burst(1); !strings.HasPrefix(last, "250 ") {
		t.Errorf("released, a copy hears %q", last)
	}
	sluice(t, g, "campaign", "refuse", c.ID, "--reason", "it is not")
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	if last := burst(1); !strings.HasPrefix(last, "550 5.7.1 gw.example: [CAMPAIGN]") {
		t.Errorf("refused, after a restart, a copy hears %q", last)
	}
	if out := sluice(t, g, "campaign", "lock", c.ID, "--for", "10m", "--reason", "two hacked hosts"); !strings.Contains(out, "2 users are locked") {
		t.Errorf("lock: %s", out)
	}
	if c := find(); c.Users[0].Ticket == "" || c.Users[1].Ticket == "" {
		t.Errorf("nobody is locked: %+v", c)
	}
	for _, host := range []string{"alice", "bob"} {
		if out := sluice(t, g, "unlock", host); !strings.Contains(out, "is unlocked") {
			t.Errorf("unlock: %s", out)
		}
	}
	if out, err := g.Sluice(ctx, "campaign", "hold", "C0000000", "--reason", "x"); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, "there is no campaign") {
		t.Errorf("a campaign that is none: %+v, %v", out, err)
	}
}

// TestListedDigest: a file that the operator has listed is refused in whatever message, and passes once it is off the list.
func TestListedDigest(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, GatewayConfig)
	mail := func(text string) string {
		return "Subject: " + text + "\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n" + text + "\r\n--b\r\n" +
			"Content-Type: application/pdf; name=plan.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nAAECAwQFBgcICQoLDA0ODw==\r\n--b--\r\n"
	}
	file := filepath.Join(t.TempDir(), "one.eml")
	if err := os.WriteFile(file, []byte(mail("the plan")), 0o644); err != nil {
		t.Fatal(err)
	}
	var of []struct{ Of, Hash string }
	if err := sluiceJSON(ctx, g, &of, "campaign", "digest", "of", file); err != nil || len(of) != 2 || of[1].Of != "plan.pdf" {
		t.Fatalf("%+v, %v", of, err)
	}
	if got := say(ctx, t, l, "alice", "x@sink.example", mail("here it is")); !strings.HasPrefix(got, "250 ") {
		t.Errorf("before it is listed: %q", got)
	}
	sluice(t, g, "campaign", "digest", "add", of[1].Hash, "--reason", "worm of the week")
	if got := say(ctx, t, l, "alice", "x@sink.example", mail("quite another text")); !strings.HasPrefix(got, "550 5.7.1 gw.example: [HASH]") {
		t.Errorf("listed: %q", got)
	}
	sluice(t, g, "campaign", "digest", "remove", of[1].Hash, "--reason", "mistaken")
	if got := say(ctx, t, l, "alice", "x@sink.example", mail("quite another text")); !strings.HasPrefix(got, "250 ") {
		t.Errorf("off the list: %q", got)
	}
}
