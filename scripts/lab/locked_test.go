//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// atOnce is the usual configuration where a locked user's connections are reset from the first one on.
var atOnce = strings.Replace(GatewayConfig, "[lock]\n", "[lock]\nexplained_per_minute = 0\n", 1)

// refused states that the kernel resets host's connection to raddr.
func refused(t *testing.T, l *Lab, host, laddr, raddr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := l.Dial(ctx, host, laddr, raddr)
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%s to %s: %v, not reset", host, raddr, err)
	}
}

// served states that host's mail to raddr's MX arrives, answered 250.
func served(t *testing.T, l *Lab, host, laddr, raddr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := l.Hello(ctx, host, laddr, raddr)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	rcpts, last, err := c.Send("m@"+host+".example", []string{"u@sink.example"}, []byte("Subject: good\r\n\r\ngood\r\n"))
	if err != nil || last.Code != 250 {
		t.Errorf("mail from %s: %v %v %v", host, rcpts, last, err)
	}
}

// TestLockedCustomerGoesOnReceiving: the lock is for what he sends.
func TestLockedCustomerGoesOnReceiving(t *testing.T) { onEachPath(t, lockedCustomerGoesOnReceivingBy) }

func lockedCustomerGoesOnReceivingBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by(path, atOnce))
	mx, err := l.SinkAt("alice", "alice-mx", "192.0.2.10:25", "[2001:db8:1::10]:25")
	if err != nil {
		t.Fatal(err)
	}
	inbound := map[string]string{"198.51.100.20": "192.0.2.10:25", "2001:db8:100::20": "[2001:db8:1::10]:25"}
	open := map[string]*Client{}
	for from, to := range inbound {
		if open[from], err = l.Hello(ctx, HostInternet, from, to); err != nil {
			t.Fatal(err)
		}
	}
	out, err := l.Hello(ctx, "alice", "", "198.51.100.20:25")
	if err != nil {
		t.Fatal(err)
	}
	sluice(t, g, "lock", "alice", "--for", "1h", "--reason", "compromised")

	if r, err := out.Reply(); err != nil || r.Code != 421 || !strings.Contains(r.String(), "LOCK") {
		t.Errorf("a session that was open hears %v %v, not 421 with the reason", r, err)
	}
	n := 0
	for from, to := range inbound {
		refused(t, l, "alice", "", map[bool]string{true: "198.51.100.20:25", false: "[2001:db8:100::20]:25"}[from == "198.51.100.20"])
		fresh, err := l.Hello(ctx, HostInternet, from, to)
		if err != nil {
			t.Errorf("a new connection from %s to the locked customer: %v", from, err)
			continue
		}
		for _, c := range []*Client{open[from], fresh} {
			n++
			body := []byte("Subject: in\r\n\r\n" + strings.Repeat("in and in again\r\n", 20000))
			if _, last, err := c.Send("u@sink.example", []string{"you@alice.example"}, body); err != nil || last.Code != 250 {
				t.Errorf("mail to the locked customer from %s: %v %v", from, last, err)
			}
			if err := c.Quit(); err != nil {
				t.Error(err)
			}
		}
	}
	if got, err := mx.Wait(ctx, n); err != nil || len(got) != n {
		t.Errorf("%d of %d messages arrived at the locked customer: %v", len(got), n, err)
	}
	if got := l.Sink("sink").Messages(); len(got) != 0 {
		t.Errorf("%d messages of a locked customer arrived", len(got))
	}
}

// TestLockOutlivesThePrograms: it is the kernel that resets, whoever is dead.
func TestLockOutlivesThePrograms(t *testing.T) { onEachPath(t, lockOutlivesTheProgramsBy) }

func lockOutlivesTheProgramsBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by(path, atOnce))
	targets := []string{"198.51.100.20:25", "[2001:db8:100::20]:25"}
	all := func(when string) {
		t.Helper()
		for _, to := range targets {
			refused(t, l, "mallory", "", to)
		}
		if t.Failed() {
			t.Fatal(when)
		}
	}
	sluice(t, g, "lock", "192.0.2.66", "--for", "1h", "--reason", "abuse report 4711")
	all("after the lock")
	if err := g.Sluiced.Kill(); err != nil {
		t.Fatal(err)
	}
	all("without sluiced")
	if err := g.Intercept.Kill(); err != nil {
		t.Fatal(err)
	}
	all("without both")
	if err := g.StartIntercept(ctx); err != nil {
		t.Fatal(err)
	}
	all("with a new sluice-intercept")
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	all("with a new sluiced")
	served(t, l, "bob", "", targets[0])

	var locks []struct{ Ticket, User, Reason string }
	if err := sluiceJSON(ctx, g, &locks, "locks"); err != nil || len(locks) != 1 || locks[0].User != "mallory" || locks[0].Reason != "abuse report 4711" {
		t.Fatalf("locks: %+v %v", locks, err)
	}
	if out := sluice(t, g, "unlock", "mallory", "--reason", "cleaned"); !strings.Contains(out, locks[0].Ticket) {
		t.Errorf("unlock says %q", out)
	}
	for _, to := range targets {
		served(t, l, "mallory", "", to)
	}
	if out := sluice(t, g, "locks"); !strings.Contains(out, "nobody is locked") {
		t.Errorf("locks says %q", out)
	}
	if out := sluice(t, g, "locks", "--history"); !strings.Contains(out, locks[0].Ticket) || !strings.Contains(out, "abuse report 4711") {
		t.Errorf("the history says %q", out)
	}
	for _, args := range [][]string{
		{"unlock", "mallory"},
		{"lock", "nobody", "--reason", "x"},
		{"lock", "alice"},
		{"lock", "alice", "--reason", "x", "--for", "forever"},
		{"lock", "alice", "--reason", "x", "--for", "8d"},
	} {
		if out, err := g.Sluice(ctx, args...); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, "help:") {
			t.Errorf("sluice %v: exit %d, %q, %v", args, out.Code, out.Stderr, err)
		}
	}
}

// TestLockEndsByItself also while the program that set it is being replaced.
func TestLockEndsByItself(t *testing.T) { onEachPath(t, lockEndsByItselfBy) }

func lockEndsByItselfBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by(path, atOnce))
	for _, during := range []func() error{
		func() error { return nil },
		func() error { return g.RestartSluiced(ctx) },
	} {
		began := time.Now()
		sluice(t, g, "lock", "alice", "--for", "3s", "--reason", "a pause")
		refused(t, l, "alice", "", "198.51.100.20:25")
		if err := during(); err != nil {
			t.Fatal(err)
		}
		for {
			c, err := l.SMTP(ctx, "alice", "", "198.51.100.20:25")
			if err == nil {
				_ = c.Close()
				break
			}
			if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) > 10*time.Second {
				t.Fatalf("%v after the lock: %v", time.Since(began), err)
			}
			if err := sleep(ctx, 20*time.Millisecond); err != nil { // the client's pace
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 2900*time.Millisecond || took > 5*time.Second {
			t.Errorf("a lock of 3 s ended after %v", took)
		}
		for !strings.Contains(sluice(t, g, "locks"), "nobody is locked") { // the kernel's clock may be a moment before the proxy's
			if err := sleep(ctx, 20*time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		served(t, l, "alice", "", "[2001:db8:100::20]:25")
	}
}

// TestLockHitsItsUserOnly: a customer inside a locked one's prefix is another customer.
func TestLockHitsItsUserOnly(t *testing.T) { onEachPath(t, lockHitsItsUserOnlyBy) }

func lockHitsItsUserOnlyBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by(path, atOnce+`
[[user]]
name = "estate"
prefixes = ["192.0.2.0/24", "2001:db8::/32"]
`))
	erin := Customer{Name: "erin", V4: netip.MustParseAddr("192.0.2.77"), V6: netip.MustParseAddr("2001:db8:77::77")}
	if err := l.AddCustomer(ctx, erin); err != nil {
		t.Fatal(err)
	}
	targets := []string{"198.51.100.20:25", "[2001:db8:100::20]:25"}
	for _, to := range targets {
		served(t, l, "erin", "", to)
	}
	sluice(t, g, "lock", "estate", "--reason", "all of them")
	for _, to := range targets {
		refused(t, l, "erin", "", to)
		served(t, l, "alice", "", to)
	}
	// And a locked one inside a free one.
	sluice(t, g, "unlock", "estate")
	sluice(t, g, "lock", "alice", "--reason", "only her")
	for _, to := range targets {
		served(t, l, "erin", "", to)
		refused(t, l, "alice", "", to)
	}
	// Both at once, and each lock is its own.
	sluice(t, g, "lock", "estate", "--reason", "all of them")
	sluice(t, g, "unlock", "alice")
	for _, to := range targets {
		refused(t, l, "erin", "", to)
		served(t, l, "alice", "", to)
		served(t, l, "bob", "", to)
	}
	// A user made by command inside the locked prefix is free at once.
	sluice(t, g, "users", "add", "erin", "192.0.2.77/32", "2001:db8:77::/64")
	for _, to := range targets {
		served(t, l, "erin", "", to)
	}
	if got := fmt.Sprint(lockedUsers(ctx, t, g)); got != "[estate]" {
		t.Errorf("locked are %s", got)
	}
}

func lockedUsers(ctx context.Context, t *testing.T, g *Gateway) []string {
	t.Helper()
	var locks []struct{ User string }
	if err := sluiceJSON(ctx, g, &locks, "locks"); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, k := range locks {
		names = append(names, k.User)
	}
	return names
}
