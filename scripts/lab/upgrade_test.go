//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// knocker is a customer who must never get through, and tries without a pause.
type knocker struct {
	stop   atomic.Bool
	wg     sync.WaitGroup
	tries  atomic.Int64
	mu     sync.Mutex
	opened []string
}

func (k *knocker) start(l *Lab, host string, targets ...string) {
	for _, to := range targets {
		k.wg.Go(func() {
			for !k.stop.Load() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				c, err := l.Dial(ctx, host, "", to)
				cancel()
				k.tries.Add(1)
				if err == nil {
					_ = c.Close()
				}
				if !errors.Is(err, syscall.ECONNREFUSED) {
					k.mu.Lock()
					k.opened = append(k.opened, fmt.Sprint(to, ": ", err))
					k.mu.Unlock()
				}
				time.Sleep(5 * time.Millisecond) // a pace
			}
		})
	}
}

func (k *knocker) end(t *testing.T) {
	t.Helper()
	k.stop.Store(true)
	k.wg.Wait()
	if len(k.opened) > 0 {
		t.Errorf("who is to be reset every time, %d of %d times was not: %v", len(k.opened), k.tries.Load(), k.opened[0])
	}
	if k.tries.Load() < 20 {
		t.Errorf("the reset customer tried %d times only", k.tries.Load())
	}
}

// TestHelperUpgradesUnderLoad puts another version of the helper in the place of the running one, whose kernel maps look
// different, and back, while customers send, one is locked and one is rejected: nothing is refused, cut, lost or doubled, and
// nobody gets through who may not.
func TestHelperUpgradesUnderLoad(t *testing.T) {
	t.Parallel()
	n := rounds(4)
	ctx := testContext(t)
	l := ForTest(t, Options{})
	config := strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "dave"}}
mode = "reject"{{end}}`, 1)
	config += "\n[limits]\nmessages_per_hour = 0\nrecipients_per_hour = 0\nconnections_per_second = 0\n"
	g := startGatewayWith(t, l, config)
	helpers := helperVersions(t, g)
	up, err := l.Capture(ctx, HostGateway, "up0", "tcp port 25 and (tcp[tcpflags] & tcp-syn != 0 or ip6)")
	if err != nil {
		t.Fatal(err)
	}
	in, err := l.Capture(ctx, "alice", "eth0", "tcp port 25")
	if err != nil {
		t.Fatal(err)
	}
	sluice(t, g, "lock", "mallory", "--reason", "a test")
	f := &fleet{lab: l, told: map[string]int{}, what: map[string]string{}}
	f.start("alice", "198.51.100.20:25")
	f.start("bob", "[2001:db8:100::20]:25")
	knocks := &knocker{}
	knocks.start(l, "dave", "198.51.100.20:25", "[2001:db8:100::20]:25")
	run := func(what string) {
		t.Helper()
		for want := f.seq.Load() + 2*fleetSize; f.seq.Load() < want; {
			if err := sleep(ctx, 10*time.Millisecond); err != nil {
				t.Fatalf("after %s nothing is sent any more: %v", what, err)
			}
		}
	}
	run("the start")
	for i := range n {
		what := fmt.Sprintf("upgrade %d", i+1)
		if err := g.installHelper(helpers[(i+1)%2]); err != nil {
			t.Fatal(err)
		}
		end := func() error { return g.Intercept.Stop(ctx) }
		if i%4 > 1 {
			end = g.Intercept.Kill
		}
		h, err := hold(ctx, l, "alice", fmt.Sprintf("held-%d@sink.example", i))
		if err != nil {
			t.Fatal(err)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		old, handing := g.Sluiced, make(chan error, 1)
		if i%2 == 1 { // both programs at once
			go func() { handing <- g.StartSluiced(ctx) }()
		} else {
			handing <- nil
		}
		if err := g.StartIntercept(ctx); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := <-handing; err != nil {
			t.Fatalf("%s and hand-over: %v", what, err)
		}
		if old != g.Sluiced {
			if err := old.WaitLog(ctx, "handed over"); err != nil {
				t.Fatalf("%s and hand-over: %v", what, err)
			}
		}
		if err := g.Intercept.WaitLog(ctx, "carried over"); err != nil {
			t.Errorf("%s: the maps were not carried over: %v", what, err)
		}
		run(what)
		if err := h.finish(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		stillLocked(ctx, t, l, what)
	}
	// Killed at any moment of a start, in any version, it leaves what the next start goes on from; now by the other hook.
	if err := g.Configure(strings.Replace(config, "[intercept]\n", "[intercept]\npath = \"clsact\"\n", 1), ""); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * n {
		what := fmt.Sprintf("killed start %d", i+1)
		if err := g.installHelper(helpers[i%2]); err != nil {
			t.Fatal(err)
		}
		if err := g.Intercept.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := startAndKill(ctx, l, g, time.Duration(rand.IntN(160))*time.Millisecond); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		run(what)
		if i%3 == 2 { // else the next version finds what this one left
			if err := g.StartIntercept(ctx); err != nil {
				t.Fatalf("after %s: %v", what, err)
			}
			stillLocked(ctx, t, l, what)
		}
	}
	if err := g.Intercept.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.installHelper(helpers[0]); err != nil {
		t.Fatal(err)
	}
	if err := g.StartIntercept(ctx); err != nil {
		t.Fatal(err)
	}
	run("the last start")
	st := ""
	if !eventually(ctx, func() bool { // sluiced looks for a helper at intervals
		st = sluice(t, g, "status")
		return strings.Contains(st, "path clsact")
	}) {
		t.Errorf("the last helper took another path:\n%s", st)
	}
	f.end()
	knocks.end(t)
	if len(f.what) > 0 {
		t.Errorf("clients heard something other than 250: %v", f.what)
	}
	if sets, err := filepath.Glob(filepath.Join(pinsOf(g), "set-*")); err != nil || len(sets) != 1 {
		t.Errorf("pinned sets of maps: %v, %v; want one", sets, err)
	}

	out, err := up.Stop()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range DefaultCustomers() {
		for _, a := range []netip.Addr{c.V4, c.V6} {
			if n := len(out.SYNs(From(a.String()), To("25"))); n != 0 {
				t.Errorf("%d SYNs to port 25 left %v unfiltered", n, a)
			}
		}
	}
	cust, err := in.Stop()
	if err != nil {
		t.Fatal(err)
	}
	resets(t, cust)
	if rcpts := ambiguous(t, ctx, g); len(rcpts) != 0 {
		t.Errorf("%d messages are ambiguous: %v", len(rcpts), rcpts)
	}
	books(t, ctx, l, g, f)
}

// pinsOf is the folder of the pins, as the test's own mount namespace reaches it.
func pinsOf(g *Gateway) string {
	return fmt.Sprintf("/proc/%d/root%s/bpf/sluice", g.Intercept.Pid(), g.Dir)
}

// startAndKill starts a helper and kills it after d, wherever it is by then.
func startAndKill(ctx context.Context, l *Lab, g *Gateway, d time.Duration) error {
	p, err := l.Start(HostGateway, Command{Args: []string{g.bin("sluice-intercept"), "--config", g.Config}})
	if err != nil {
		return err
	}
	g.Intercept = p
	if err := sleep(ctx, d); err != nil {
		return err
	}
	select {
	case <-p.Done():
		log, _ := os.ReadFile(p.LogPath())
		return fmt.Errorf("the helper ended by itself: %v: %s", p.Err(), log)
	default:
	}
	return p.Kill()
}

// stillLocked states that mallory is told of his lock, or reset, and never greeted by the MX.
func stillLocked(ctx context.Context, t *testing.T, l *Lab, what string) {
	t.Helper()
	stillLockedAs(ctx, t, l, "mallory", what)
}

func stillLockedAs(ctx context.Context, t *testing.T, l *Lab, host, what string) {
	t.Helper()
	c, err := l.Hello(ctx, host, "", "198.51.100.20:25")
	if errors.Is(err, syscall.ECONNREFUSED) {
		return
	}
	if err != nil {
		t.Errorf("%s: the locked customer: %v", what, err)
		return
	}
	defer c.Close()
	_, r, err := c.Send("m@"+host+".example", []string{"u@sink.example"}, []byte("Subject: u@sink.example\r\n\r\nlocked\r\n"))
	if err != nil || r.Code != 451 {
		t.Errorf("%s: the locked customer was answered %v, %v", what, r, err)
	}
}
