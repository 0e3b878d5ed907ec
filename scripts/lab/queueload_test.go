//go:build labtest

package lab

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// queueLoadConfig is a smarthost at port 25 that takes mail of users' addresses, and tries again soon.
var queueLoadConfig = strings.Replace(GatewayConfig, `mode = "managed"`, "mode = \"managed\"\nconnect_timeout = \"5s\"", 1) + `
[smarthost]
name = "smtp.provider.example"
sessions_per_source = 100
[[smarthost.listener]]
address = "203.0.113.1:25"

[limits]
messages_per_hour = 1000000
recipients_per_hour = 1000000
queued_messages = 0
invalid_recipients_percent = 0

[spool]
first_retry = "2s"
`

// handIn sends a message to each recipient in one session with the smarthost, and fails unless all are kept.
func handIn(ctx context.Context, l *Lab, rcpts ...string) error {
	c, err := l.Hello(ctx, "bob", "", "203.0.113.1:25")
	if err != nil {
		return err
	}
	defer func() { c.Close() }()
	for i := range rcpts {
		_, r, err := c.Send("a@bob.example", []string{rcpts[i]}, []byte("Subject: to "+rcpts[i]+"\r\n\r\nfor "+rcpts[i]+"\r\n"))
		if err != nil {
			return fmt.Errorf("to %s: %v: %w", rcpts[i], r, err)
		}
		if r.Code != 250 {
			return fmt.Errorf("to %s: %v", rcpts[i], r)
		}
	}
	return c.Quit()
}

// numbered are n addresses at domains in turn.
func numbered(n int, what string, domains ...string) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("%s%d@%s", what, i, domains[i%len(domains)]))
	}
	return all
}

// allArrived waits until each of rcpts has a message at the sink, and fails where one has two.
func allArrived(ctx context.Context, t *testing.T, s *Sink, rcpts []string) {
	t.Helper()
	want := map[string]int{}
	for _, r := range rcpts {
		want[r] = 0
	}
	_, err := s.WaitMatch(ctx, func(all []*Message) bool {
		n := 0
		for _, m := range all {
			if _, ok := want[m.Recipients()[0]]; ok {
				n++
			}
		}
		return n >= len(rcpts)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Messages() {
		to := m.Recipients()[0]
		if k, ok := want[to]; ok {
			if want[to] = k + 1; k > 0 {
				t.Errorf("%s came twice", to)
			}
		}
	}
}

// TestQueueIsHandedOver: three times another process takes over while mail comes in, goes out and waits; each message that
// was answered 250 arrives once, and what waits for a dead destination waits on; nobody is told meanwhile that nothing does, and
// no message is put off.
func TestQueueIsHandedOver(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, queueLoadConfig)
	waiting := numbered(150, "w", "refused.example")
	if err := handIn(ctx, l, waiting...); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	sent, ended := []string{}, make(chan error, 1)
	go func() {
		for n := 0; !stop.Load(); n++ {
			some := numbered(4, fmt.Sprintf("g%d-", n), "d01.example", "d02.example", "d03.example")
			if err := handIn(ctx, l, some...); err != nil {
				ended <- err
				return
			}
			sent = append(sent, some...)
		}
		ended <- nil
	}()
	for range 3 {
		old, err := handOver(ctx, g)
		if err != nil {
			t.Fatal(err)
		}
		// Meanwhile who asks is not told that the queue is empty.
		out, err := g.Sluice(ctx, "queue", "list", "--domain", "refused.example")
		if err != nil || out.Code == 0 && !strings.Contains(out.Stdout, "refused.example") {
			t.Errorf("the queue on its way is shown as %+v, %v", out, err)
		}
		if err := old.WaitLog(ctx, "handed the queue over"); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	allArrived(ctx, t, l.Sink("sink"), sent)
	t.Logf("%d messages came in and went out beside %d that waited, over three hand-overs", len(sent), len(waiting))
	untilQueue(ctx, t, g, "the last process has what waits", func(q map[string]queued) bool { return q["refused.example"].ID != "" })
	deleted := fmt.Sprintf("%d deliveries are deleted", len(waiting))
	if out := sluice(t, g, "queue", "delete", "--domain", "refused.example", "--reason", "test"); !strings.Contains(out, deleted) {
		t.Errorf("of %d deliveries that waited: %s", len(waiting), out)
	}
	untilQueue(ctx, t, g, "nothing else is left", func(q map[string]queued) bool { return len(q) == 0 })
}

// TestBadDestinationsDelayNoOthers: beside much mail to a destination that is dead, one that takes its time and one that
// greylists, mail to a good one arrives as it does alone.
func TestBadDestinationsDelayNoOthers(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	const site = `
[[spool.site]]
name = "slow ones"
exchangers = [".peer01.example"]
sessions = 3
`
	g := startGatewayWith(t, l, queueLoadConfig+site)
	load := func(what string) time.Duration {
		t.Helper()
		began, good := time.Now(), numbered(200, what, "d04.example", "d05.example")
		if err := handIn(ctx, l, good...); err != nil {
			t.Fatal(err)
		}
		allArrived(ctx, t, l.Sink("sink"), good)
		return time.Since(began)
	}
	load("warm") // names are looked up, windows grow
	alone := load("alone")
	if err := l.Sink("peer01").Script("dot: stall 8s | ok"); err != nil {
		t.Fatal(err)
	}
	grey := numbered(20, "grey", "grey.example")
	for _, bad := range [][]string{numbered(60, "dead", "dropped.example"), numbered(60, "slow", "peer01.example"), grey} {
		if err := handIn(ctx, l, bad...); err != nil {
			t.Fatal(err)
		}
	}
	beside := load("beside")
	slow := len(l.Sink("peer01").Messages())
	t.Logf("200 messages: alone %v, beside the bad ones %v; the slow one has %d of 60", alone.Round(time.Millisecond), beside.Round(time.Millisecond), slow)
	if slow == 60 || beside > 3*alone+5*time.Second {
		t.Errorf("200 messages took %v alone and %v beside the bad ones, of which the slow one has %d", alone, beside, slow)
	}
	if at := siteOf(ctx, t, g, "peer01.example"); at != "slow ones (set)" {
		t.Errorf("the slow one's mail goes through %q", at)
	}
	if n := len(l.Sink("peer01").Sessions()); n > 3+1 { // the first try comes before it is known who takes the mail
		t.Errorf("%d sessions with the slow one, the bound is 3", n)
	}
	if err := g.Configure(queueLoadConfig, ""); err != nil {
		t.Fatal(err)
	}
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	for siteOf(ctx, t, g, "peer01.example") != "mx.peer01.example" { // the reload is announced by a signal
		if sleep(ctx, 50*time.Millisecond) != nil {
			t.Fatal("a reload does not change the queue's sites")
		}
	}
	allArrived(ctx, t, l.Sink("grey"), grey)
	if q := queue(ctx, t, g, "--domain", "dropped.example"); len(q) != 1 {
		t.Errorf("of the dead destination's mail the queue has %+v", q)
	}
}

// siteOf is the site of a domain's lane, as the command shows it.
func siteOf(ctx context.Context, t *testing.T, g *Gateway, domain string) string {
	t.Helper()
	var lanes []struct{ Domain, Site string }
	if err := sluiceJSON(ctx, g, &lanes, "queue"); err != nil {
		t.Fatal(err)
	}
	for _, l := range lanes {
		if l.Domain == domain {
			return l.Site
		}
	}
	return ""
}

// TestQueueOutlivesKills: sluiced is killed again and again while mail comes in and goes out. Each message that was answered
// 250 arrives, without anybody's help, and the log lists each that arrives twice as interrupted, as often.
func TestQueueOutlivesKills(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	kills := 3
	if n, err := strconv.Atoi(os.Getenv("SLUICE_SOAK")); err == nil {
		kills = n
	}
	g := startGatewayWith(t, l, queueLoadConfig)
	var mu sync.Mutex
	var sent []string
	kept, stop := make(chan struct{}, 1<<16), make(chan struct{})
	var senders sync.WaitGroup
	for s := range 4 {
		senders.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				to := fmt.Sprintf("k%d-%d@d%02d.example", s, n, 6+s)
				if handIn(ctx, l, to) != nil { // whoever hears no 250 keeps his message
					continue
				}
				mu.Lock()
				sent = append(sent, to)
				mu.Unlock()
				kept <- struct{}{}
			}
		})
	}
	listed := map[string]int{}
	for n := range kills {
		for range 5 + n%7 { // so many between two kills
			select {
			case <-kept:
			case <-ctx.Done():
				t.Fatal(ctx.Err())
			}
		}
		if err := g.Sluiced.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := g.StartSluiced(ctx); err != nil {
			t.Fatal(err)
		}
		for _, to := range interrupted(t, g) {
			listed[to]++
		}
	}
	close(stop)
	senders.Wait()
	all, err := l.Sink("sink").WaitMatch(ctx, func(all []*Message) bool { return len(missing(sent, all)) == 0 })
	if err != nil {
		t.Fatalf("of %d messages that were answered 250 are missing: %v; %v", len(sent), missing(sent, all), err)
	}
	untilQueue(ctx, t, g, "the queue is empty", func(q map[string]queued) bool { return len(q) == 0 })
	copies, twice, interruptions := map[string]int{}, 0, 0
	for _, m := range l.Sink("sink").Messages() {
		copies[m.Recipients()[0]]++
	}
	for to, n := range copies {
		if twice += n - 1; n-1 > listed[to] {
			t.Errorf("%s arrived %d times, and is listed %d times", to, n, listed[to])
		}
		interruptions += listed[to]
	}
	t.Logf("%d kills: %d messages answered 250, all arrived; %d copies too many, %d interrupted deliveries are listed", kills, len(sent), twice, interruptions)
}

// TestACrashIsNoKill: a message during whose tries sluiced crashes three times is on hold then, and one during whose tries it
// is killed as often is tried on.
func TestACrashIsNoKill(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, queueLoadConfig)
	if err := l.Sink("peer01").Script("dot: stall 60s | ok"); err != nil {
		t.Fatal(err)
	}
	if err := handIn(ctx, l, "slow@peer01.example"); err != nil {
		t.Fatal(err)
	}
	end := func(sig os.Signal) (q queued, listed bool) {
		t.Helper()
		untilQueue(ctx, t, g, "it is being tried", func(q map[string]queued) bool { return q["peer01.example"].Trying })
		if err := g.Sluiced.Signal(sig); err != nil {
			t.Fatal(err)
		}
		<-g.Sluiced.Done()
		if err := g.StartSluiced(ctx); err != nil {
			t.Fatal(err)
		}
		return queue(ctx, t, g)["peer01.example"], len(interrupted(t, g)) > 0
	}
	for n := 0; n < 3; { // one that ends before the try is noted says nothing
		q, listed := end(syscall.SIGKILL)
		if q.Hold != "" {
			t.Fatalf("after a kill: %+v", q)
		}
		if listed {
			n++
		}
	}
	for n := 1; n <= 3; {
		q, listed := end(syscall.SIGABRT) // as systemd's watchdog does
		if !listed {
			continue
		}
		if held := q.Hold != ""; held != (n == 3) || held && !strings.Contains(q.Hold, "crashed 3 times") {
			t.Fatalf("after %d crashes: %+v", n, q)
		}
		n++
	}
}

// missing are the recipients who have no message.
func missing(sent []string, all []*Message) (out []string) {
	seen := map[string]bool{}
	for _, m := range all {
		seen[m.Recipients()[0]] = true
	}
	for _, to := range sent {
		if !seen[to] {
			out = append(out, to)
		}
	}
	return out
}

// interrupted gives the recipients of the deliveries that the running sluiced lists as having been tried when another process
// ended.
func interrupted(t *testing.T, g *Gateway) (to []string) {
	t.Helper()
	log, err := os.ReadFile(g.Sluiced.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "a delivery's fate is unknown") {
			to = append(to, rcptOfLine.FindString(line))
		}
	}
	return to
}

var rcptOfLine = regexp.MustCompile(`[^ \[\]"=]+@[a-z0-9.]+`)
