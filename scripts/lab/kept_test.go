//go:build labtest

package lab

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// keepingConfig keeps what is withheld and what is put off; alice has somebody who can be told of a failure, and
// dave senders who can.
var keepingConfig = strings.NewReplacer(
	`mode = "managed"`, "mode = \"managed\"\nwithheld = \"spool\"\ndeferred = \"spool\"",
	`name = "{{.Name}}"`, "name = \"{{.Name}}\"{{if eq .Name \"alice\"}}\ncontact = \"alice@sink.example\"{{else if eq .Name \"dave\"}}\nsender = { from_domains = [\"dave.example\"] }{{else if eq .Name \"mallory\"}}\nwithheld = \"451\"\ndeferred = \"pass\"\ncontact = \"m@sink.example\"{{end}}",
).Replace(GatewayConfig)

// TestDeferredMailIsTriedAgain: a greylisted mail of alice is answered 250 and arrives later, once, from a delivery address;
// so is one of dave's from a domain of his;
// bob has nobody to be told of a failure, dave's other senders are not known to be his, and mallory's setting hands it back, so both hear the destination's own answer, as
// alice does where the destination she talks to is no exchanger of the recipient's domain.
func TestDeferredMailIsTriedAgain(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, keepingConfig+"\n[spool]\nfirst_retry = \"2s\"\n")
	send := func(host, server, to string) Output {
		t.Helper()
		out, err := l.Swaks(ctx, host, "--server", server, "--from", "a@"+host+".example", "--to", to, "--body", "kept for "+host)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := send("alice", "mx.grey.example", "u@grey.example"); out.Code != 0 || !strings.Contains(out.Stdout, "250 2.0.0 gw.example: kept as ") {
		t.Fatalf("alice: exit %d\n%s", out.Code, out.Stdout)
	}
	got, err := l.Sink("grey").Wait(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if m := got[0]; !bytes.Contains(m.Data, []byte("kept for alice")) || m.Sender() != "a@alice.example" || !DeliveryV4.Contains(m.Peer.Addr().Unmap()) && !DeliveryV6.Contains(m.Peer.Addr()) {
		t.Errorf("it arrived from %v: %q", m.Peer, m.Data)
	}
	untilQueue(ctx, t, g, "the queue is empty", func(q map[string]queued) bool { return len(q) == 0 })
	own, err := l.Swaks(ctx, "dave", "--server", "mx.grey.example", "--from", "d@dave.example", "--to", "own@grey.example", "--body", "kept")
	if err != nil || own.Code != 0 || !strings.Contains(own.Stdout, "250 2.0.0 gw.example: kept as ") {
		t.Errorf("dave, from a domain of his: exit %d, %v\n%s", own.Code, err, own.Stdout)
	}
	messageOf(ctx, t, l.Sink("grey"), "own@grey.example")
	untilQueue(ctx, t, g, "the queue is empty", func(q map[string]queued) bool { return len(q) == 0 })
	if out, err := l.Swaks(ctx, "dave", "--server", "mx.grey.example", "--from", "d@elsewhere.example", "--to", "w@grey.example"); err != nil || out.Code == 0 || !strings.Contains(out.Stdout, "451 4.7.1 Greylisted, try again later") {
		t.Errorf("dave, from another domain: exit %d, %v\n%s", out.Code, err, out.Stdout)
	}
	for _, c := range []struct{ host, server, to string }{
		{"bob", "mx.grey.example", "v@grey.example"},
		{"mallory", "mx.grey.example", "w@grey.example"},
		{"alice", "mx.grey.example", "x@sink.example"},
	} {
		if out := send(c.host, c.server, c.to); out.Code == 0 || !strings.Contains(out.Stdout, "451 4.7.1 Greylisted, try again later") {
			t.Errorf("%s to %s: exit %d\n%s", c.host, c.to, out.Code, out.Stdout)
		}
	}
	if q := queue(ctx, t, g); len(q) != 0 {
		t.Errorf("the queue has %+v", q)
	}
	if all := l.Sink("grey").Messages(); len(all) != 2 {
		t.Errorf("the greylisting server has %d messages", len(all))
	}
}

// TestWithheldMailIsReleased: what a rule withholds is answered 250 and waits on hold, through a restart, until somebody
// releases it, then arrives once at its exchanger, from a delivery address; what is deleted never does. Mallory's setting
// leaves his with him.
func TestWithheldMailIsReleased(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, keepingConfig+"\n[campaign]\nusers = 2\n")
	n := 0
	copyFrom := func(host string) string {
		n++
		return say(ctx, t, l, host, fmt.Sprintf("r%d@sink.example", n), parcelMail(fmt.Sprintf("Name%d", n)))
	}
	first := ""
	for range 8 { // until the rule takes it for a campaign
		if first = copyFrom([]string{"alice", "bob"}[n%2]); strings.Contains(first, "kept as") {
			break
		}
	}
	if !strings.HasPrefix(first, "250 2.0.0 gw.example: kept as ") || !strings.HasSuffix(first, "it is looked at before it is delivered") {
		t.Fatalf("copy %d of a burst hears %q", n, first)
	}
	passed, held := n-1, n
	if got := copyFrom("mallory"); !strings.HasPrefix(got, "451 4.7.1 gw.example: [CAMPAIGN]") {
		t.Errorf("mallory hears %q", got)
	}
	if got := copyFrom("bob"); !strings.HasPrefix(got, "250 2.0.0 gw.example: kept as ") {
		t.Errorf("another copy hears %q", got)
	}
	deleted := n
	sluice(t, g, "users", "set", "bob", "queued_messages=1")
	if got := say(ctx, t, l, "bob", "full@sink.example", parcelMail("Full")); !strings.HasPrefix(got, "451 4.7.1 gw.example: [CAMPAIGN]") {
		t.Errorf("with as many on hold as he may have, another copy hears %q", got)
	}
	sluice(t, g, "users", "set", "bob", "queued_messages=500")
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	var page struct{ Deliveries []queued }
	if err := sluiceJSON(ctx, g, &page, "queue", "list"); err != nil {
		t.Fatal(err)
	}
	for _, q := range page.Deliveries {
		if ids[q.Recipients[0].Address] = q.ID; !strings.HasPrefix(q.Hold, "hold: [CAMPAIGN] ") {
			t.Errorf("%v is on hold because of %q", q.Recipients, q.Hold)
		}
	}
	if len(page.Deliveries) != 2 {
		t.Fatalf("the queue has %+v", page.Deliveries)
	}
	before, err := l.Sink("sink").Wait(ctx, passed)
	if err != nil || len(before) != passed {
		t.Fatalf("%d copies arrived before anything was released, %v", len(before), err)
	}
	name := func(i int) string { return fmt.Sprintf("r%d@sink.example", i) }
	sluice(t, g, "queue", "delete", ids[name(deleted)], "--reason", "spam")
	burst := page.Deliveries[0].Campaign
	if burst == "" || page.Deliveries[1].Campaign != burst {
		t.Fatalf("copies of one burst have not one campaign: %+v", page.Deliveries)
	}
	if out, err := g.Sluice(ctx, "queue", "release", "--campaign", "nonsense"); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, "is not the id of a campaign") {
		t.Errorf("a campaign that is none: %v %+v", err, out)
	}
	if out := sluice(t, g, "queue", "release", "--campaign", strings.ToLower(burst)); !strings.Contains(out, "1 delivery is released") {
		t.Errorf("released by campaign: %s", out)
	}
	all, err := l.Sink("sink").Wait(ctx, passed+1)
	if err != nil {
		t.Fatal(err)
	}
	m := all[passed]
	if len(all) != passed+1 || len(m.Recipients()) != 1 || m.Recipients()[0] != name(held) || !strings.HasSuffix(string(m.Data), parcelMail(fmt.Sprintf("Name%d", held))) {
		t.Errorf("%d arrived, the last for %v", len(all), m.Recipients())
	}
	if from := m.Peer.Addr().Unmap(); !DeliveryV4.Contains(from) && !DeliveryV6.Contains(from) {
		t.Errorf("it left from %v", from)
	}
	untilQueue(ctx, t, g, "the queue is empty", func(q map[string]queued) bool { return len(q) == 0 })
	campaignReleasesAll(t, l, g, copyFrom, passed+1)
}

// campaignReleasesAll: one release of the campaign lets go all copies on hold, and those that come.
func campaignReleasesAll(t *testing.T, l *Lab, g *Gateway, copyFrom func(string) string, arrived int) {
	t.Helper()
	ctx := testContext(t)
	for _, host := range []string{"alice", "bob"} {
		if got := copyFrom(host); !strings.HasPrefix(got, "250 2.0.0 gw.example: kept as ") {
			t.Errorf("%s: another copy hears %q", host, got)
		}
	}
	var all []campaignSeen
	if err := sluiceJSON(ctx, g, &all, "campaign", "list"); err != nil || len(all) != 1 {
		t.Fatalf("campaigns: %+v, %v", all, err)
	}
	if out := sluice(t, g, "campaign", "release", all[0].ID, "--reason", "it is ours"); !strings.Contains(out, "2 held copies are delivered") {
		t.Errorf("release: %s", out)
	}
	if _, err := l.Sink("sink").Wait(ctx, arrived+2); err != nil {
		t.Fatal(err)
	}
	if got := copyFrom("alice"); !strings.HasPrefix(got, "250 ") || strings.Contains(got, "kept as") {
		t.Errorf("released, a copy hears %q", got)
	}
}
