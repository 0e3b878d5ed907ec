//go:build labtest

package lab

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestObserveByQueue: on the path without BPF mail does not wait for an observer that is dead or stopped, and what a flood
// costs is counted.
func TestObserveByQueue(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, strings.Replace(watched, "[intercept]", "[intercept]\npath = \"nftables\"", 1))
	p, err := g.StartObserve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	unprivileged(t, readerOf(t, p))
	send := func(name string, within time.Duration) {
		t.Helper()
		begin := time.Now()
		c, err := l.Hello(ctx, "alice", "", "198.51.100.20:25")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, last, err := c.Send(name+"@alice.example", []string{name + "@sink.example"}, []byte("Subject: x\r\n\r\nx\r\n")); err != nil || last.Code != 250 {
			t.Fatalf("%s: %v %v", name, last, err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > within {
			t.Errorf("%s: it took %v", name, took)
		}
	}
	seen := func(name string) {
		t.Helper()
		observedRecords(ctx, t, g, 1, func(r observedRecord) bool { return r.From == name+"@alice.example" })
	}
	send("watched", 10*time.Second)
	seen("watched")
	manyAtOnce(ctx, t, l, g)

	// Stopped: what it holds comes again, and that goes on.
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	send("stopped", 15*time.Second)
	send("unwatched", 5*time.Second)
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for name := ""; ; { // until it reads again
		name = fmt.Sprintf("again%d", time.Now().UnixNano())
		send(name, 15*time.Second)
		var all []observedRecord
		if err := sluiceJSON(ctx, g, &all, "log", "--status", "observed", "--from", name+"@alice.example"); err != nil {
			t.Fatal(err)
		}
		if len(all) > 0 {
			break
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			t.Fatal("it was never observed again")
		}
	}

	// Dead.
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	send("dead", 5*time.Second)
	if p, err = g.StartObserve(ctx); err != nil {
		t.Fatal(err)
	}
	send("successor", 10*time.Second)
	seen("successor")
	if err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
	out, err := l.Exec(ctx, HostGateway, "nft", "list", "chain", "inet", "sluice", "observe")
	if err != nil || strings.Contains(out.Stdout, "goto") {
		t.Errorf("after the end the rules are still there: %v %s", err, out.Stdout)
	}
	send("after", 5*time.Second)
}

// manyAtOnce: many sessions at once all end well, and each is in the log, or its loss in the counters.
func manyAtOnce(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	const clients, each = 20, 10
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for j := range each {
				c, err := l.Hello(ctx, "bob", "", "198.51.100.20:25")
				if err != nil {
					t.Error(err)
					return
				}
				if _, last, err := c.Send(fmt.Sprintf("f%d-%d@bob.example", i, j), []string{"flood@sink.example"}, []byte("Subject: x\r\n\r\nx\r\n")); err != nil || last.Code != 250 {
					t.Errorf("in the flood: %v %v", last, err)
				}
				if err := c.Quit(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for {
		var r struct {
			Observer struct {
				LostPieces uint64 `json:"lost_pieces"`
			}
			Users []struct {
				User     string
				Messages int
				Flows    int
			}
		}
		if err := sluiceJSON(ctx, g, &r, "observe", "bob"); err != nil {
			t.Fatal(err)
		}
		if len(r.Users) == 1 && (r.Users[0].Messages == clients*each || r.Observer.LostPieces > 0 && r.Users[0].Flows > 0) {
			t.Logf("in the flood %d of %d messages were seen, %d packets lost", r.Users[0].Messages, clients*each, r.Observer.LostPieces)
			return
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			t.Fatalf("the flood is told as %+v", r)
		}
	}
}
