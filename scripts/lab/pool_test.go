//go:build labtest

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// pooled is the usual configuration with pools. One address, 203.0.113.30, is the host's own.
var pooled = func() string {
	before, rest, _ := strings.Cut(GatewayConfig, "prefixes =")
	_, after, _ := strings.Cut(rest, "{{end}}\n[lock]")
	var b strings.Builder
	fmt.Fprintf(&b, "%sprefixes = [\"203.0.113.16/29\", \"2001:db8:203:1::/64\"]\ncheck_every = \"1s\"\n", before)
	for _, a := range []string{"203.0.113.17", "203.0.113.18", "203.0.113.19", "203.0.113.20", "203.0.113.30", "2001:db8:203:1::17"} {
		last := a[strings.LastIndexAny(a, ".:")+1:]
		fmt.Fprintf(&b, "\n[[delivery.address]]\naddress = %q\nhelo = \"out%s.gw.example\"\n", a, last)
	}
	b.WriteString(`
[[delivery.list]]
zone = "bl.example"
codes = ["127.0.0.2-127.0.0.11"]

[[delivery.pool]]
name = "bounces"
class = "bounce"
addresses = ["203.0.113.18"]

[[delivery.pool]]
name = "bobs"
users = ["bob"]
addresses = ["203.0.113.30"]

[[delivery.pool]]
name = "theirs"
own = true
senders = ["only.alice.example"]
`)
	return b.String() + "\n[lock]" + after
}()

// poolMail sends one mail and returns the address from which it came; no answer but 250 is an error.
func poolMail(ctx context.Context, t *testing.T, l *Lab, host, from, to string) (netip.Addr, error) {
	t.Helper()
	s, err := l.SMTP(ctx, host, "", "198.51.100.20:25")
	if err != nil {
		return netip.Addr{}, err
	}
	defer s.Close()
	if r, err := s.Cmd("EHLO client.example"); err != nil || r.Code != 250 {
		return netip.Addr{}, fmt.Errorf("EHLO: %v %v", r, err)
	}
	if _, last, err := s.Send(from, []string{to}, []byte("Subject: pool\r\n\r\npool\r\n")); err != nil || last.Code != 250 {
		return netip.Addr{}, fmt.Errorf("%v %v", last, err)
	}
	return messageTo(ctx, t, l, to).Peer.Addr().Unmap(), nil
}

// awaitAddress waits until `sluice pool show` says that an address is in a state.
func awaitAddress(ctx context.Context, t *testing.T, g *Gateway, address, state, why string) {
	t.Helper()
	for {
		var a struct{ State, Why string }
		if err := sluiceJSON(ctx, g, &a, "pool", "show", address); err != nil {
			t.Fatal(err)
		}
		if a.State == state && strings.Contains(a.Why, why) {
			return
		}
		if err := sleep(ctx, logPoll); err != nil {
			t.Fatalf("%s is %+v, want %s because %q", address, a, state, why)
		}
	}
}

// TestPools: mail leaves through the pool of its class, sender and user, the queue's too, and the gate keeps what is bad out.
func TestPools(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	if out, err := l.Exec(ctx, HostGateway, "ip", "address", "add", "203.0.113.30/32", "dev", "lo"); err != nil || out.Code != 0 {
		t.Fatal(err, out.Stderr)
	}
	g := startGatewayWith(t, l, pooled)
	awaitAddress(ctx, t, g, "203.0.113.17", "in use", "")
	primary := []string{"203.0.113.17", "203.0.113.19", "203.0.113.20"}
	n := 0
	sends := func(host, from string, want ...string) {
		t.Helper()
		n++
		got, err := poolMail(ctx, t, l, host, from, fmt.Sprintf("p%d@d%02d.example", n, n%Domains+1))
		if err != nil || !slices.Contains(want, got.String()) {
			t.Errorf("%s as <%s> leaves from %v (%v), want %v", host, from, got, err, want)
		}
	}
	for range 6 {
		sends("alice", "a@alice.example", primary...)
	}
	sends("alice", "", "203.0.113.18")
	sends("bob", "", "203.0.113.18")
	sends("bob", "b@bob.example", "203.0.113.30")
	sends("alice", "a@only.alice.example", "192.0.2.10")
	queued := filepath.Join(t.TempDir(), "notice.eml")
	if err := os.WriteFile(queued, []byte("Subject: queued\n\nqueued\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string][]string{"": {"203.0.113.18", "2001:db8:203:1::17"}, "q@alice.example": append(primary, "2001:db8:203:1::17")} {
		to := fmt.Sprintf("queued%d@v4only.example", len(from))
		if out, err := g.Sluice(ctx, "queue", "submit", queued, "--from", from, "--to", to); err != nil || out.Code != 0 {
			t.Fatal(err, out)
		}
		if from := messageOf(ctx, t, l.Sink("v4only"), to).Peer.Addr().Unmap(); !slices.Contains(want, from.String()) {
			t.Errorf("the queue's mail leaves from %v, want %v", from, want)
		}
	}
	poolGate(ctx, t, l, g, sends)
	poolAbsent(ctx, t, l, g, sends)
}

// poolGate lists two of three addresses: one goes, half of the pool stays, and both come back.
func poolGate(ctx context.Context, t *testing.T, l *Lab, g *Gateway, sends func(host, from string, want ...string)) {
	t.Helper()
	if err := l.List(ctx, "203.0.113.17"); err != nil {
		t.Fatal(err)
	}
	awaitAddress(ctx, t, g, "203.0.113.17", "out", "is on the list bl.example (127.0.0.2)")
	for range 4 {
		sends("alice", "a@alice.example", "203.0.113.19", "203.0.113.20")
	}
	if err := l.List(ctx, "203.0.113.19"); err != nil {
		t.Fatal(err)
	}
	awaitAddress(ctx, t, g, "203.0.113.19", "failing", "is on the list")
	out, err := g.Sluice(ctx, "doctor")
	if err != nil || !strings.Contains(out.Stdout, "203.0.113.17") || !strings.Contains(out.Stdout, "is used though it should not be") {
		t.Errorf("doctor: %v\n%s", err, out.Stdout)
	}
	if out, err = g.Sluice(ctx, "status"); err != nil || !strings.Contains(out.Stdout, "not used: 203.0.113.17 is on the list") {
		t.Errorf("status: %v\n%s", err, out.Stdout)
	}
	for _, a := range []string{"203.0.113.17", "203.0.113.19"} {
		if err := l.Unlist(ctx, a); err != nil {
			t.Fatal(err)
		}
		awaitAddress(ctx, t, g, a, "in use", "")
	}
	// A person may take more than half; it holds over a restart.
	for _, a := range []string{"203.0.113.17", "203.0.113.19"} {
		if out, err := g.Sluice(ctx, "pool", "suspend", a, "--reason", "quiet"); err != nil || out.Code != 0 {
			t.Fatal(err, out)
		}
	}
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		sends("alice", "a@alice.example", "203.0.113.20")
	}
	for _, a := range []string{"203.0.113.17", "203.0.113.19"} {
		if out, err := g.Sluice(ctx, "pool", "resume", a); err != nil || out.Code != 0 {
			t.Fatal(err, out)
		}
	}
	if out, err := g.Sluice(ctx, "pool", "suspend", "192.0.2.1", "--reason", "x"); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, "is no delivery address") {
		t.Errorf("suspending an address of others: %v %+v", err, out)
	}
	if out, err := g.Sluice(ctx, "pool", "check"); err != nil || out.Code != 0 || strings.Count(out.Stdout, "in use") != 6 {
		t.Errorf("pool check: %v\n%s%s", err, out.Stdout, out.Stderr)
	}
}

// poolAbsent takes an address from the host: bob's mail waits at his server, and leaves from no other address.
func poolAbsent(ctx context.Context, t *testing.T, l *Lab, g *Gateway, sends func(host, from string, want ...string)) {
	t.Helper()
	if out, err := l.Exec(ctx, HostGateway, "ip", "address", "del", "203.0.113.30/32", "dev", "lo"); err != nil || out.Code != 0 {
		t.Fatal(err, out.Stderr)
	}
	before := len(l.Sink("sink").Messages())
	if from, err := poolMail(ctx, t, l, "bob", "b@bob.example", "absent@d09.example"); err == nil {
		t.Errorf("bob's mail left from %v", from)
	}
	awaitAddress(ctx, t, g, "203.0.113.30", "out", "is not on this host")
	if from, err := poolMail(ctx, t, l, "bob", "b@bob.example", "absent@d10.example"); err == nil || !strings.Contains(err.Error(), "421") {
		t.Errorf("bob's mail left from %v (%v), want 421", from, err)
	}
	if got := len(l.Sink("sink").Messages()); got != before {
		t.Errorf("%d messages came", got-before)
	}
	if out, err := l.Exec(ctx, HostGateway, "ip", "address", "add", "203.0.113.30/32", "dev", "lo"); err != nil || out.Code != 0 {
		t.Fatal(err, out.Stderr)
	}
	awaitAddress(ctx, t, g, "203.0.113.30", "in use", "")
	sends("bob", "b@bob.example", "203.0.113.30")
}

// TestWarmUp: a new address sends to one provider what its first day allows, the others of its pool the rest; with none
// left the client keeps its mail, and a restart forgets nothing.
func TestWarmUp(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	text := strings.Replace(pooled, `check_every = "1s"`, `warm_up = [2, 100]`, 1)
	for _, a := range []string{"17", "19", "20"} {
		text = strings.Replace(text, fmt.Sprintf("helo = \"out%s.gw.example\"", a), fmt.Sprintf("helo = \"out%s.gw.example\"\nnew_since = %s", a, time.Now().UTC().Format(time.RFC3339)), 1)
	}
	g := startGatewayWith(t, l, text)
	spendsTwoEach(ctx, t, l, g)
	if a, err := poolMail(ctx, t, l, "alice", "", "notice@sink.example"); err != nil || a.String() != "203.0.113.18" {
		t.Errorf("from a warm address: %v %v", a, err)
	}
}

// TestMessagesOfADeliveryAddress: what an hour allows from an address to one provider, the others of its pool take over; with
// none left the client keeps its mail, and another provider's goes on.
func TestMessagesOfADeliveryAddress(t *testing.T) {
	t.Parallel()
	if left := time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)); left < time.Minute {
		time.Sleep(left) // an hour of the clock is meant, and is not to end in the midst
	}
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, strings.Replace(pooled, `check_every = "1s"`, `messages_per_address_and_hour = 2`, 1))
	spendsTwoEach(ctx, t, l, g)
	c, err := l.Hello(ctx, "alice", "", "198.51.100.27:25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, r, err := c.Send("a@alice.example", []string{"u@v4only.example"}, letter("alice", "elsewhere")); err != nil || r.Code != 250 {
		t.Errorf("to another provider: %v, %v", r, err)
	}
}

// spendsTwoEach: three addresses send two mails each to one provider, over a restart, and then no more.
func spendsTwoEach(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	t.Helper()
	// The exchangers' provider is known before the first mail is counted.
	for i := range 2 {
		if _, err := poolMail(ctx, t, l, "alice", "", fmt.Sprintf("known%d@sink.example", i)); err != nil {
			t.Fatal(err)
		}
	}
	from := map[netip.Addr]int{}
	for i := range 6 {
		a, err := poolMail(ctx, t, l, "alice", fmt.Sprintf("a%d@alice.example", i), fmt.Sprintf("w%d@sink.example", i))
		if err != nil {
			t.Fatalf("mail %d: %v", i, err)
		}
		from[a]++
		if i == 3 {
			if err := g.RestartSluiced(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	for a, n := range from {
		if n != 2 {
			t.Errorf("%v sent %d to one provider, want 2: %v", a, n, from)
		}
	}
	if _, err := poolMail(ctx, t, l, "alice", "a@alice.example", "w6@sink.example"); err == nil || !strings.Contains(err.Error(), "451") {
		t.Errorf("with all spent: %v", err)
	}
}
