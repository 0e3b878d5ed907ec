//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sinkOf46 are the addresses of one MX.
var sinkOf46 = []string{"198.51.100.20:25", "[2001:db8:100::20]:25"}

// within leads a new session of host into a transaction: after the lines given.
func within(ctx context.Context, t *testing.T, l *Lab, host, to string, lines ...string) *Client {
	t.Helper()
	c, err := l.Hello(ctx, host, "", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for _, line := range lines {
		if r, err := c.Cmd(line); err != nil || r.Code/100 > 3 {
			t.Fatalf("%s: %s: %v %v", host, line, r, err)
		}
	}
	return c
}

// hears states that the gateway says just these replies to c, the last with the lock's ticket, and then leaves.
func hears(t *testing.T, what string, c *Client, ticket string, codes ...int) {
	t.Helper()
	for i, code := range codes {
		r, err := c.Reply()
		if err != nil || r.Code != code || i == len(codes)-1 && (!strings.Contains(r.String(), ticket) || !strings.Contains(r.String(), "abuse@gw.example") || !strings.Contains(r.String(), "reason: ")) {
			t.Errorf("%s: the client hears %v %v, want %d with ticket %s, contact and reason", what, r, err, code, ticket)
			return
		}
	}
	if r, err := c.Reply(); !errors.Is(err, io.EOF) {
		t.Errorf("%s: then %v %v, want the end", what, r, err)
	}
}

// ticketOf is the ticket of the only lock.
func ticketOf(ctx context.Context, t *testing.T, g *Gateway) string {
	t.Helper()
	var locks []struct{ Ticket string }
	if err := sluiceJSON(ctx, g, &locks, "locks"); err != nil || len(locks) != 1 {
		t.Fatalf("locks: %+v %v", locks, err)
	}
	return locks[0].Ticket
}

// sentTo waits until n messages have gone whole to their destinations and wait for the answer.
func sentTo(ctx context.Context, t *testing.T, g *Gateway, n int) {
	t.Helper()
	for {
		var flows []struct{ State string }
		if err := sluiceJSON(ctx, g, &flows, "flows"); err != nil {
			t.Fatal(err)
		}
		sent := 0
		for _, f := range flows {
			if f.State == "sent" {
				sent++
			}
		}
		if sent == n {
			return
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			t.Fatalf("flows are %+v, want %d that are sent", flows, n)
		}
	}
}

// TestLockEndsOpenSessions: in each state, in both families, by hand, with and without a cut, and by itself. alice is
// intercepted, bob in shadow.
func TestLockEndsOpenSessions(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "bob"}}
mode = "shadow"{{end}}`, 1))
	slow := l.Sink("sink") // its answer to the message comes late
	good, bad := Stuff([]byte("Subject: good\r\n\r\ngood\r\n")), Stuff([]byte("Subject: bad\r\n\r\n"+gtubeText+"\r\n"))
	envelope := func(host string) []string {
		return []string{"MAIL FROM:<a@" + host + ".example>", "RCPT TO:<" + host + "@sink.example>", "DATA"}
	}
	type open struct {
		what  string
		c     *Client
		say   []byte
		codes []int
	}
	// sessions opens one in each state but the last, and says how they end.
	sessions := func(host string) (all []open) {
		for _, to := range sinkOf46 {
			w := func(state string) string { return host + ", " + state + ", " + to }
			all = append(all,
				open{w("idle"), within(ctx, t, l, host, to), nil, []int{421}},
				open{w("after RCPT"), within(ctx, t, l, host, to, envelope(host)[:2]...), []byte("DATA\r\n"), []int{421}})
			after := []int{421} // in shadow no answer of ours stands before it
			spam := after
			if host == "alice" {
				after, spam = []int{451, 421}, []int{550, 421}
			}
			all = append(all,
				open{w("within good mail"), within(ctx, t, l, host, to, envelope(host)...), good, after},
				open{w("within bad mail"), within(ctx, t, l, host, to, envelope(host)...), bad, spam})
		}
		return all
	}
	// sending opens two sessions whose messages wait for the destination's answer.
	sending := func(host string) (all []open) {
		if err := slow.Script("dot: stall 3s | ok"); err != nil {
			t.Fatal(err)
		}
		for _, to := range sinkOf46 {
			c := within(ctx, t, l, host, to, envelope(host)...)
			if _, err := c.Write(good); err != nil {
				t.Fatal(err)
			}
			all = append(all, open{host + ", after the final dot, " + to, c, nil, []int{250, 421}})
		}
		sentTo(ctx, t, g, len(all))
		return all
	}
	arrived := 0
	for _, host := range []string{"alice", "bob"} {
		all := append(sessions(host), sending(host)...)
		bystander := within(ctx, t, l, "mallory", sinkOf46[0])
		if out := sluice(t, g, "lock", host, "--reason", "test"); strings.Contains(out, "cut") {
			t.Errorf("lock says %q", out)
		}
		ticket := ticketOf(ctx, t, g)
		for _, o := range all {
			if _, err := o.c.Write(o.say); err != nil {
				t.Errorf("%s: %v", o.what, err)
			}
			hears(t, o.what, o.c, ticket, o.codes...)
		}
		arrived += len(sinkOf46)
		if r, err := bystander.Cmd("NOOP"); err != nil || r.Code != 250 {
			t.Errorf("another user hears %v %v", r, err)
		}
		sluice(t, g, "unlock", host)

		// A cut spares only what has gone.
		all = sessions(host)
		sent := sending(host)
		if out := sluice(t, g, "lock", host, "--reason", "test", "--cut"); !strings.Contains(out, fmt.Sprintf("%d sessions cut, %d left", len(all), len(sent))) {
			t.Errorf("lock --cut says %q, want %d sessions cut", out, len(all))
		}
		ticket = ticketOf(ctx, t, g)
		for _, o := range sent {
			hears(t, o.what+", cut", o.c, ticket, o.codes...)
		}
		arrived += len(sent)
		for _, o := range all {
			if strings.Contains(o.what, "idle") {
				hears(t, o.what+", cut", o.c, ticket, 421)
			} else if r, err := o.c.Reply(); err == nil {
				t.Errorf("%s, cut: the client hears %v", o.what, r)
			}
		}
		var flows []struct{ User string }
		for {
			if err := sluiceJSON(ctx, g, &flows, "flows", "--user", host); err != nil {
				t.Fatal(err)
			}
			if len(flows) == 0 {
				break
			}
			if err := sleep(ctx, 20*time.Millisecond); err != nil {
				t.Fatalf("sessions of %s outlive the cut: %+v", host, flows)
			}
		}
		sluice(t, g, "unlock", host)
		if err := bystander.Quit(); err != nil {
			t.Error(err)
		}
	}
	if got := slow.Messages(); len(got) != arrived {
		t.Errorf("%d messages arrived, want the %d whose dot was on its way", len(got), arrived)
	}
	if err := slow.Script(""); err != nil {
		t.Fatal(err)
	}
	byItself(ctx, t, l, g)
}

// byItself: the lock that alice's spam brings ends her other sessions before she has read the answer.
func byItself(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	t.Helper()
	var idle []*Client
	for _, to := range sinkOf46 {
		idle = append(idle, within(ctx, t, l, "alice", to))
	}
	spammer := within(ctx, t, l, "alice", sinkOf46[0])
	for i := range 5 {
		if _, r, err := spammer.Send("a@alice.example", []string{"u@sink.example"}, fmt.Appendf(nil, "Subject: %d\r\n\r\n%d %s\r\n", i, i, gtubeText)); err != nil || r.Code != 550 {
			t.Fatalf("spam %d: %v %v", i+1, r, err)
		}
	}
	ticket := ticketOf(ctx, t, g)
	for _, c := range append(idle, spammer) {
		hears(t, "locked by itself", c, ticket, 421)
	}
}

// reset states that what c says next is answered with a RST.
func reset(t *testing.T, what string, c *Client) {
	t.Helper()
	r, err := c.Cmd("NOOP")
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("%s: %v %v, want a reset", what, r, err)
	}
}

// TestLockResetsPassedFlows: what goes past the proxy ends at its next packet, why ever it went past it.
func TestLockResetsPassedFlows(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	// A flow that is older than the gateway.
	older := within(ctx, t, l, "alice", sinkOf46[0])
	older6 := within(ctx, t, l, "alice", sinkOf46[1])
	g := startGatewayWith(t, l, strings.Replace(bobOpen, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "mallory"}}
mode = "pass"{{end}}{{if eq .Name "dave"}}
mode = "observe"{{end}}`, 1)+`
[[exempt]]
prefix = "198.51.100.23"
mode = "pass"
reason = "test"

[[exempt]]
prefix = "2001:db8:100::23"
mode = "pass"
reason = "test"

[[user]]
name = "keeper"
prefixes = ["192.0.2.99", "2001:db8:99::99"]
mode = "pass"
[user.lock]
keep_passed = true
`)
	keeper := Customer{Name: "keeper", V4: netip.MustParseAddr("192.0.2.99"), V6: netip.MustParseAddr("2001:db8:99::99")}
	if err := l.AddCustomer(ctx, keeper); err != nil {
		t.Fatal(err)
	}
	if r, err := older.Cmd("NOOP"); err != nil || r.Code != 250 {
		t.Fatalf("the gateway ended a flow that is older: %v %v", r, err)
	}
	lockedAndBack := func(user string, lock func(), flows map[string]*Client) {
		t.Helper()
		other := within(ctx, t, l, "mallory", sinkOf46[0])
		lock()
		for what, c := range flows {
			reset(t, user+", "+what, c)
		}
		if user != "mallory" {
			if r, err := other.Cmd("NOOP"); err != nil || r.Code != 250 {
				t.Errorf("another user's passed flow: %v %v", r, err)
			}
		}
		sluice(t, g, "unlock", user)
		for _, to := range sinkOf46 {
			served(t, l, user, "", to)
		}
	}
	byHand := func(user string, more ...string) func() {
		return func() { sluice(t, g, append([]string{"lock", user, "--reason", "test"}, more...)...) }
	}
	lockedAndBack("mallory", byHand("mallory"), map[string]*Client{
		"pass": within(ctx, t, l, "mallory", sinkOf46[0]), "pass, IPv6": within(ctx, t, l, "mallory", sinkOf46[1]),
		"pass, within a mail": within(ctx, t, l, "mallory", sinkOf46[0], "MAIL FROM:<m@mallory.example>", "RCPT TO:<u@sink.example>", "DATA"),
	})
	lockedAndBack("dave", byHand("dave", "--cut"), map[string]*Client{
		"observe": within(ctx, t, l, "dave", sinkOf46[0]),
	})
	// alice's lock comes by itself; what goes to an exempt destination, and what is older, goes past the proxy.
	lockedAndBack("alice", func() {
		spammer := within(ctx, t, l, "alice", sinkOf46[0])
		for i := range 5 {
			if _, r, err := spammer.Send("a@alice.example", []string{"u@sink.example"}, fmt.Appendf(nil, "Subject: %d\r\n\r\n%d %s\r\n", i, i, gtubeText)); err != nil || r.Code != 550 {
				t.Fatalf("spam %d: %v %v", i+1, r, err)
			}
		}
	}, map[string]*Client{
		"older": older, "older, IPv6": older6,
		"exempt destination": within(ctx, t, l, "alice", "198.51.100.23:25"), "exempt destination, IPv6": within(ctx, t, l, "alice", "[2001:db8:100::23]:25"),
	})
	// keeper's may end by themselves, unless they are cut.
	kept := within(ctx, t, l, "keeper", sinkOf46[0])
	sluice(t, g, "lock", "keeper", "--reason", "test")
	if r, err := kept.Cmd("NOOP"); err != nil || r.Code != 250 {
		t.Errorf("a flow that is kept: %v %v", r, err)
	}
	lockedAndBack("keeper", byHand("keeper", "--cut"), map[string]*Client{"kept, then cut": kept})

	// bob's mail goes past a proxy that is dead, and the lock finds it when the proxy is back.
	if err := g.Sluiced.Kill(); err != nil {
		t.Fatal(err)
	}
	open := pastTheDead(ctx, t, l, "bob", sinkOf46[0])
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	lockedAndBack("bob", byHand("bob"), map[string]*Client{"failed open": open})

	var detail struct{ Kernel map[string]uint64 }
	if err := sluiceJSON(ctx, g, &detail, "users", "show", "mallory"); err != nil || detail.Kernel["lock_cut"] < 3 {
		t.Errorf("mallory's counters are %v, %v; want 3 packets cut", detail.Kernel, err)
	}
}

// pastTheDead opens a session that goes past a proxy that is dead; those tried in its first second wait for it instead.
func pastTheDead(ctx context.Context, t *testing.T, l *Lab, host, to string) *Client {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		a, cancel := context.WithTimeout(ctx, time.Second)
		conn, err := l.Dial(a, host, "", to)
		cancel()
		if err != nil {
			continue
		}
		c := NewClient(conn)
		t.Cleanup(func() { _ = c.Close() })
		c.Timeout(time.Second)
		if r, err := c.Reply(); err == nil && !strings.Contains(r.String(), "gw.example") {
			c.Timeout(10 * time.Second)
			return c
		}
	}
	t.Fatalf("%s does not get past a dead proxy", host)
	return nil
}
