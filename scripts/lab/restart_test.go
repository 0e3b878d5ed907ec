//go:build labtest

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rounds is how often each thing happens: a few times in every test run, as often as SLUICE_SOAK says in a campaign.
func rounds(few int) int {
	if n, err := strconv.Atoi(os.Getenv("SLUICE_SOAK")); err == nil && n > 0 {
		return n
	}
	return few
}

// fleet is a customer's clients that send without a pause and keep book of every answer.
type fleet struct {
	lab  *Lab
	stop atomic.Bool
	wg   sync.WaitGroup
	seq  atomic.Int64
	mu   sync.Mutex
	told map[string]int    // by recipient: how often the client heard 250
	what map[string]string // by recipient: the last thing that was not a 250
}

const fleetSize = 12

func (f *fleet) start(host, target string) {
	for range fleetSize {
		f.wg.Go(func() {
			for !f.stop.Load() {
				f.message(host, target)
				time.Sleep(20 * time.Millisecond) // a pace, not a wait: about 500 messages a second in all would drown two cores
			}
		})
	}
}

// message sends one message until it is answered 250, as a mail server's queue does, at most for a minute.
func (f *fleet) message(host, target string) {
	rcpt := fmt.Sprintf("%s-%d@sink.example", host, f.seq.Add(1))
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		ok, what := f.try(host, target, rcpt)
		f.mu.Lock()
		if ok {
			f.told[rcpt]++
		} else {
			f.what[rcpt] = what
		}
		f.mu.Unlock()
		if ok || f.stop.Load() {
			return
		}
		time.Sleep(50 * time.Millisecond) // the queue's back-off
	}
}

func (f *fleet) try(host, target, rcpt string) (bool, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	c, err := f.lab.Hello(ctx, host, "", target)
	if err != nil {
		return false, "connect: " + err.Error()
	}
	defer c.Close()
	_, last, err := c.Send("a@"+host+".example", []string{rcpt}, fmt.Appendf(nil, "Subject: %s\r\n\r\n%s\r\n", rcpt, strings.Repeat("text ", 400)))
	if err != nil {
		return false, err.Error()
	}
	return last.Code == 250, last.String()
}

func (f *fleet) end() {
	f.stop.Store(true)
	f.wg.Wait()
}

// TestRestartsUnderLoad kills, restarts, upgrades and reloads the programs while customers send, and then asks the
// packets, the clients, the MX and the message log whether anything leaked, was cut, was lost or was doubled.
func TestRestartsUnderLoad(t *testing.T) { onEachPath(t, restartsUnderLoadBy) }

func restartsUnderLoadBy(t *testing.T, path string) {
	few := 3
	if path != "tcx" { // all of the programs' own steps are the same
		few = 2
	}
	ctx := testContext(t)
	l := ForTest(t, Options{})
	// The clients' pace is above a customer's usual limits and sessions; they are not what is tried here.
	g := startGatewayWith(t, l, by(path, GatewayConfig+"[limits]\nmessages_per_hour = 0\nrecipients_per_hour = 0\nconnections_per_second = 0\n"))
	up, err := l.Capture(ctx, HostGateway, "up0", "tcp port 25 and (tcp[tcpflags] & tcp-syn != 0 or ip6)")
	if err != nil {
		t.Fatal(err)
	}
	in, err := l.Capture(ctx, "alice", "eth0", "tcp port 25")
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{lab: l, told: map[string]int{}, what: map[string]string{}}
	f.start("alice", "198.51.100.20:25")
	f.start("bob", "[2001:db8:100::20]:25")

	step := func(what string, do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		// Let the load go over the new state: until as many messages were sent as there are clients.
		for want := f.seq.Load() + 2*fleetSize; f.seq.Load() < want; {
			if err := sleep(ctx, 10*time.Millisecond); err != nil {
				t.Fatalf("after %s nothing is sent any more: %v", what, err)
			}
		}
	}
	planned := func(n int) {
		for i := range n {
			step(fmt.Sprintf("planned restart %d", i+1), func() error { return g.RestartSluiced(ctx) })
		}
	}

	planned(rounds(few))
	if before := ambiguous(t, ctx, g); len(before) != 0 {
		t.Errorf("after planned restarts only, %d messages are ambiguous: %v", len(before), before)
	}
	for i := range rounds(few) {
		step(fmt.Sprintf("kill %d of sluiced", i+1), func() error {
			if err := g.Sluiced.Kill(); err != nil {
				return err
			}
			// Within five seconds somebody starts it again.
			if err := sleep(ctx, time.Duration(rand.IntN(4000))*time.Millisecond); err != nil {
				return err
			}
			return g.StartSluiced(ctx)
		})
	}
	for i := range rounds(few - 1) {
		step(fmt.Sprintf("kill %d of sluice-intercept", i+1), func() error {
			if err := g.Intercept.Kill(); err != nil {
				return err
			}
			if err := sleep(ctx, time.Duration(rand.IntN(1000))*time.Millisecond); err != nil {
				return err
			}
			return g.StartIntercept(ctx)
		})
	}
	step("upgrade of the binaries", func() error {
		if err := g.Install(g.Dir + "/bin"); err != nil {
			return err
		}
		if err := g.RestartIntercept(ctx); err != nil {
			return err
		}
		return g.RestartSluiced(ctx)
	})
	step("reload", g.Reload)
	step("interface that appears late", func() error {
		return l.AddCustomer(ctx, Customer{Name: "erin", V4: netip.MustParseAddr("192.0.2.40"), V6: netip.MustParseAddr("2001:db8:4::40")})
	})
	late := &fleet{lab: l, told: map[string]int{}, what: map[string]string{}}
	late.start("erin", "198.51.100.20:25")
	for late.seq.Load() < 4*fleetSize {
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			t.Fatal("the late customer does not get through: ", late.what)
		}
	}
	late.end()
	f.end()

	out, err := up.Stop()
	if err != nil {
		t.Fatal(err)
	}
	cust, err := in.Stop()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append(DefaultCustomers(), Customer{V4: netip.MustParseAddr("192.0.2.40"), V6: netip.MustParseAddr("2001:db8:4::40")}) {
		for _, a := range []netip.Addr{c.V4, c.V6} {
			if n := len(out.SYNs(From(a.String()), To("25"))); n != 0 {
				t.Errorf("%d SYNs to port 25 left %v unfiltered", n, a)
			}
		}
	}
	resets(t, cust)
	books(t, ctx, l, g, f, late)
}

// resets states that no RST went to a SYN or to a connection that still waited for its greeting.
func resets(t *testing.T, ps Packets) {
	type flow struct{ client, server netip.AddrPort }
	greeted := map[flow]bool{}
	for _, p := range ps {
		k := flow{p.Dst, p.Src}
		switch {
		case p.SYN && !p.ACK:
			greeted[flow{p.Src, p.Dst}] = false
		case p.Src.Port() == 25 && len(p.Payload) > 0:
			greeted[k] = true
		case p.Src.Port() == 25 && p.RST:
			if done, known := greeted[k]; known && !done {
				t.Errorf("at %v a RST went to %v, which waited for its connection or its greeting", p.Time.Format(time.StampMicro), p.Dst)
			}
		}
	}
	if len(greeted) < 50 {
		t.Errorf("the capture saw %d connections only", len(greeted))
	}
}

// books compares what clients were told with what the MX has.
func books(t *testing.T, ctx context.Context, l *Lab, g *Gateway, fleets ...*fleet) {
	listed := map[string]bool{}
	for _, rcpt := range ambiguous(t, ctx, g) {
		listed[rcpt] = true
	}
	arrived := map[string]int{}
	for _, m := range l.Sink("sink").Messages() {
		arrived[m.Recipients()[0]]++
		if !bytes.Contains(m.Data, []byte("Subject: "+m.Recipients()[0]+"\r\n")) {
			t.Errorf("the message to %s is not the one that was sent to it", m.Recipients()[0])
		}
	}
	sent := 0
	for _, f := range fleets {
		for rcpt, n := range f.told {
			sent++
			if arrived[rcpt] < n {
				t.Errorf("%s was answered 250 and is not at the MX", rcpt)
			}
			if arrived[rcpt] > n && !listed[rcpt] {
				t.Errorf("%s is %d times at the MX, was answered 250 once, and is not listed as ambiguous", rcpt, arrived[rcpt])
			}
		}
		for rcpt, what := range f.what {
			if f.told[rcpt] == 0 && arrived[rcpt] > 0 && !listed[rcpt] {
				t.Errorf("%s is at the MX, its client heard %q, and it is not listed as ambiguous", rcpt, what)
			}
		}
	}
	t.Logf("%d messages answered 250, %d at the MX, %d ambiguous", sent, len(l.Sink("sink").Messages()), len(listed))
	if sent < 100 {
		t.Errorf("only %d messages were sent: no load", sent)
	}
}

// ambiguous lists the recipients of messages whose fate the gateway does not know.
func ambiguous(t *testing.T, ctx context.Context, g *Gateway) []string {
	t.Helper()
	out, err := g.Sluice(ctx, "log", "--status", "ambiguous", "--limit", "10000", "--json")
	if err != nil || out.Code != 0 {
		t.Fatal(err, out.Stderr)
	}
	var records []struct {
		To []struct{ Address string }
	}
	if err := json.Unmarshal([]byte(out.Stdout), &records); err != nil {
		t.Fatalf("sluice log --json: %v: %.300s", err, out.Stdout)
	}
	var rcpts []string
	for _, r := range records {
		for _, to := range r.To {
			rcpts = append(rcpts, to.Address)
		}
	}
	return rcpts
}
