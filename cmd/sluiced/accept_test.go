package main

import (
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/intercept/flow"
)

// TestRearIsBehindWhoeverHasWork holds that others for whom something has come, which the runtime has not looked at, go
// first. It is not parallel: with one processor the runtime has an order.
func TestRearIsBehindWhoeverHasWork(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r, err := newRear()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	first := 0
	for range 20 {
		var woken atomic.Int32
		var others sync.WaitGroup
		var ends []io.WriteCloser
		for range 8 {
			in, out, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, out)
			others.Go(func() {
				defer in.Close()
				if _, err := in.Read(make([]byte, 1)); err == nil {
					woken.Add(1)
				}
			})
		}
		r.stand() // until they all wait
		for _, out := range ends {
			if _, err := out.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			defer out.Close()
		}
		if r.stand(); woken.Load() == 8 {
			first++
		}
		others.Wait()
	}
	if first < 10 { // now and then the runtime takes whoever has yielded before others
		t.Errorf("in %d of 20 cases the others went first", first)
	}
}

// rush is an acceptor before which n connections wait.
func rush(t *testing.T, n int) (a *acceptor, dial func()) {
	t.Helper()
	g := newGateway(t, "")
	f, port := g.socket()
	t.Cleanup(func() { _ = f.Close() })
	l := listener(t, f, port)
	dial = func() {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	for range n {
		dial()
	}
	waitFor(t, func() bool { waiting, _, err := l.Queue(); return err == nil && waiting == n })
	a = &acceptor{
		l: l, log: slog.New(slog.DiscardHandler), full: func() bool { return false }, done: make(chan struct{}),
		serve: func(c *flow.Conn, done func()) { defer done(); defer c.Close(); _, _ = io.Copy(io.Discard, c) },
	}
	return a, dial
}

func TestWhoComesAtOnceLetsOthersGoFirst(t *testing.T) {
	t.Parallel()
	a, dial := rush(t, calm)
	var yielded atomic.Int32
	a.yield = func() { yielded.Add(1) }
	go a.run()
	defer a.stop()
	waitFor(t, func() bool { return a.accepted.Load() == calm && yielded.Load() == calm })
	const alone = 20
	for n := range uint64(alone) {
		dial()
		waitFor(t, func() bool { return a.accepted.Load() == calm+n+1 })
	}
	if n := yielded.Load() - calm; n > alone/2 { // one may come before the loop waits for it
		t.Errorf("%d of %d connections that came alone made the loop yield", n, alone)
	}
}

// TestQueueThatGrowsLetsNobodyGoFirst holds that a gateway whose processors are never free goes on to accept, and to beat.
func TestQueueThatGrowsLetsNobodyGoFirst(t *testing.T) {
	t.Parallel()
	a, _ := rush(t, 2*calm)
	a.yield = func() { time.Sleep(time.Hour) }
	go a.run()
	waitFor(t, func() bool { return a.accepted.Load() == 2*calm })
	a.stop()
}
