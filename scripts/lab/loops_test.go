//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestMailThatWasHere: a message that went this way comes again (DEL11). To the same recipient it is a loop, whoever the
// sender is now; to others, and of another customer, it is passed on. Too many trace fields are one, too. The log names it, and
// nobody is locked.
func TestMailThatWasHere(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGateway(t, l, "")
	const loop = "554 5.4.6 gw.example: [LOOP] "
	send := func(host, from, to, mail, want string) {
		t.Helper()
		if got, err := sendOne(ctx, l, host, from, to, mail); err != nil || !strings.HasPrefix(got, want) {
			t.Fatalf("%s from <%s> to %s hears %q, %v; want %q", host, from, to, got, err, want)
		}
	}
	first := string(letter("alice", "round"))
	send("alice", "a@alice.example", "one@sink.example two@sink.example", first, "250 ")
	again := string(messageTo(ctx, t, l, "one@sink.example").Data)
	folded := strings.Replace(again, " id ", "\r\n\tid\r\n\t", 1)
	for _, mail := range []string{again, folded, "Received: from x by y; now\r\n" + again} {
		send("alice", "a@alice.example", "one@sink.example", mail, loop)
		send("alice", "", "other@sink.example ONE@sink.example", mail, loop)
	}
	send("alice", "a@alice.example", "other@sink.example", again, "250 ")
	send("bob", "b@bob.example", "one@sink.example", again, "250 ")
	hops := func(n int) string { return strings.Repeat("Received: from x by y; now\r\n", n) + first }
	send("dave", "d@dave.example", "one@sink.example", hops(100), "250 ")
	send("dave", "d@dave.example", "one@sink.example", hops(101), loop)
	if n := len(l.Sink("sink").Messages()); n != 4 {
		t.Errorf("%d messages arrived, want 4", n)
	}
	for host, want := range map[string]int{"alice": 6, "bob": 0, "dave": 1} {
		looped(ctx, t, g, host, want)
	}
	unlocked(ctx, t, g)
}

// looped holds the log to n messages of a customer that were refused as loops.
func looped(ctx context.Context, t *testing.T, g *Gateway, host string, n int) {
	t.Helper()
	var all []struct{ Status, Class, Code, Reply string }
	if !eventually(ctx, func() bool {
		all = nil
		return sluiceJSON(ctx, g, &all, "log", "--user", host, "--status", "refused") != nil || len(all) >= n
	}) || len(all) != n {
		t.Errorf("the log has %d refused messages of %s, want %d: %+v", len(all), host, n, all)
	}
	for _, e := range all {
		if e.Code != "LOOP" || e.Class != "policy" || !strings.HasPrefix(e.Reply, "554 5.4.6 ") {
			t.Errorf("a loop of %s is in the log as %+v", host, e)
		}
	}
}

// unlocked holds the gateway to no lock.
func unlocked(ctx context.Context, t *testing.T, g *Gateway) {
	t.Helper()
	var locks []struct{ User, Code string }
	if err := sluiceJSON(ctx, g, &locks, "locks"); err != nil || len(locks) > 0 {
		t.Errorf("locked are %+v, %v", locks, err)
	}
}

// roundTrip is mail that servers pass round, each in good faith, through the gateway.
type roundTrip struct {
	name    string
	to      []string
	at      string   // the customer whose server sends it first, and hears of the loop
	by      []string // customers whose servers send it on by the gateway
	passed  int      // how often the gateway lets it go on
	notices int      // to the sender
}

// TestLoopsOfServersEnd: a destination that gives its mail back to the customer's server, which takes the domain's exchanger for
// the next place to go: by port 25, by the smarthost, and by way of another customer. Each ends where the gateway knows its own
// trace field again, or, where the recipient is another one each time, at the bound of such fields. The sender hears of it.
func TestLoopsOfServersEnd(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, strings.Replace(smarthostConfig, "[delivery]", "[delivery]\nhop_limit = 10", 1))
	servers := map[string]*MTA{}
	for host, settings := range map[string][]string{
		HostInternet: {"mydestination = localhost", "relay_domains = tls4.postfix.example, tls6.postfix.example, bare4.postfix.example",
			"transport_maps = inline:{ tls4.postfix.example=smtp:[192.0.2.10], tls6.postfix.example=smtp:[192.0.2.10], bare4.postfix.example=smtp:[192.0.2.30] }",
			"recipient_canonical_maps = regexp:{{/^(.*)@(tls6.postfix.example)$$/ $${1}x@$${2}}}", "smtp_destination_recipient_limit = 1"},
		"alice":   {"relay_domains = tls4.postfix.example, tls6.postfix.example"},
		"dave":    {"relay_domains = bare4.postfix.example", "relayhost = [203.0.113.1]:587"},
		"bob":     {"relay_domains = round.example", "transport_maps = inline:{ round.example=smtp:[192.0.2.66] }"},
		"mallory": {"relay_domains = round.example", "transport_maps = inline:{ round.example=smtp:[192.0.2.20] }"},
	} {
		start := l.Postfix
		if host == HostInternet {
			start = func(ctx context.Context, _ string, settings ...string) (*MTA, error) {
				return l.MXWith(ctx, "postfix", settings...)
			}
		}
		m, err := start(ctx, host, settings...)
		if err != nil {
			t.Fatal(err)
		}
		servers[host] = m
	}
	notices := 0
	var wg sync.WaitGroup
	for i, r := range []roundTrip{
		{"port 25", []string{"one@tls4.postfix.example"}, "alice", []string{"alice"}, 1, 1},
		// The field of the first pass is for the first recipient, and they come back one by one.
		{"two recipients", []string{"two@tls4.postfix.example", "three@tls4.postfix.example"}, "alice", []string{"alice"}, 2, 2},
		{"the smarthost", []string{"four@bare4.postfix.example"}, "dave", []string{"dave"}, 1, 1},
		{"another customer", []string{"five@round.example"}, "bob", []string{"bob", "mallory"}, 2, 1},
		// 1, 4, 7 and 10 fields pass, 13 do not.
		{"other recipients", []string{"six@tls6.postfix.example"}, "alice", []string{"alice"}, 4, 1},
	} {
		notices += r.notices
		from := fmt.Sprintf("sender%d@sink.example", i)
		if err := servers[r.at].Send(ctx, Mail{From: from, To: r.to, Data: letter(r.at, fmt.Sprint("round-", i))}); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := r.ends(ctx, l, g, from); err != nil {
				t.Errorf("%s: %v", r.name, err)
			}
		})
	}
	wg.Wait()
	for host, m := range servers {
		if err := m.WaitEmpty(ctx); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	untilQueue(ctx, t, g, "the gateway's queue is empty", func(q map[string]queued) bool { return len(q) == 0 })
	if n := len(l.Sink("sink").Messages()); n != notices {
		t.Errorf("%d notices, want %d", n, notices)
	}
	unlocked(ctx, t, g)
}

// ends waits for the notices to the sender and counts in the log how often the mail went on.
func (r *roundTrip) ends(ctx context.Context, l *Lab, g *Gateway, from string) error {
	var said []string
	if _, err := l.Sink("sink").WaitMatch(ctx, func(all []*Message) bool {
		said = nil
		for _, m := range all {
			if m.Sender() == "" && slices.Contains(m.Recipients(), from) {
				said = append(said, strings.Join(strings.Fields(string(m.Data)), " "))
			}
		}
		return len(said) >= r.notices
	}); err != nil {
		return err
	}
	var errs []error
	for i, notice := range said {
		name, _, _ := strings.Cut(r.to[i], "@")
		if !strings.Contains(notice, "554 5.4.6 gw.example: [LOOP]") || !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, " <"+name) }) {
			errs = append(errs, fmt.Errorf("no loop of %s in the notices: %s", name, notice))
		}
	}
	passed := 0
	for _, host := range r.by {
		var all []struct{ From, Status string }
		if err := sluiceJSON(ctx, g, &all, "log", "--user", host, "--limit", "1000"); err != nil {
			return err
		}
		for _, e := range all {
			if e.From == from && e.Status == "delivered" {
				passed++
			}
		}
	}
	if passed != r.passed {
		errs = append(errs, fmt.Errorf("it was passed on %d times, not %d", passed, r.passed))
	}
	return errors.Join(errs...)
}

// TestTheGatewayIsNoDestination: a connection to one of its own addresses, by which mail would come round to it, is refused.
func TestTheGatewayIsNoDestination(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGateway(t, l, "")
	for _, to := range []string{"203.0.113.16:25", "[2001:db8:203:1::1]:25", "203.0.113.1:25", "[2001:db8:203::1]:25", "192.0.2.1:25"} {
		if conn, err := l.Dial(ctx, "alice", "", to); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s is answered: %v, %v", to, conn, err)
		}
	}
}
