//go:build labtest

package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hostility says how many attack: few in every test run, a thousand sessions in a campaign (SLUICE_SOAK is the seconds that
// each half of it lasts).
type hostility struct {
	sources, sessions int           // sessions of each source
	mails             int           // the good client sends at least so many, alone and beside
	time              time.Duration // and at least so long
	patience          string        // of the gateway, for clients
}

func hostileSize() hostility {
	if n, err := strconv.Atoi(os.Getenv("SLUICE_SOAK")); err == nil && n > 0 {
		return hostility{sources: 50, sessions: 20, mails: 100, time: time.Duration(n) * time.Second, patience: "20s"}
	}
	return hostility{sources: 5, sessions: 12, mails: 20, patience: "5s"}
}

// hostileConfig has short waits, so that whoever is cut off comes again, and no bounds for alice alone.
func hostileConfig(s hostility) string {
	c := strings.Replace(GatewayConfig, "automatic = true", "automatic = false", 1)
	c = strings.Replace(c, "[smtp]\n", fmt.Sprintf("[smtp]\ncommand_timeout = %q\ndata_timeout = %q\n", s.patience, s.patience), 1)
	c = strings.Replace(c, "[delivery]\n", "[delivery]\ncommand_timeout = \"20s\"\nanswer_timeout = \"30s\"\n", 1)
	return strings.Replace(c, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "alice"}}
limits = {messages_per_hour = 0, recipients_per_hour = 0, connections_per_second = 0}{{end}}`, 1)
}

// TestHostileSessions: whatever many clients and destinations do to hold or waste what the gateway has, a good client's
// mails all arrive, once; what is hostile is cut off, and in the end there is nothing left of it.
func TestHostileSessions(t *testing.T) {
	t.Parallel()
	size := hostileSize()
	ctx := testContext(t)
	l := ForTest(t, Options{})
	stopPeers := openHostilePeers(ctx, t, l)
	g := startGatewayWith(t, l, hostileConfig(size))
	sources, err := addCrowd(ctx, l, size.sources)
	if err != nil {
		t.Fatal(err)
	}
	if size.time > 0 { // it is measured
		takePrecedence(t, g.Sluiced.Pid())
	}
	good := &goodClient{lab: l}

	good.send(ctx, t, size, func() bool { return true }) // what is made once is made
	before := resident(t, g)
	hold := func() *holding {
		return watchHolding(ctx, t, l, "alice", netip.MustParseAddr("192.0.2.10"), netip.MustParseAddrPort(sinkOf46[0]).Addr())
	}
	watch := hold()
	alone := good.send(ctx, t, size, func() bool { return true })
	heldAlone := watch.stop(t)

	a := &assault{lab: l, kinds: attacks(), dials: make(chan struct{}, 32), resets: size.time == 0}
	attacking, stop := context.WithCancel(ctx)
	defer stop()
	all := a.start(attacking, sources, size.sessions)
	if !eventually(ctx, func() bool { return a.standing.Load() == int64(all) }) {
		t.Fatalf("of %d hostile sessions only %d ever stood", all, a.standing.Load())
	}
	peak := &peaks{}
	watching := peak.watch(attacking, t, g)
	own, theirs := ownCPU(t), cpuOf(t, g)
	watch = hold()
	began := time.Now()
	beside := good.send(ctx, t, size, a.bounded)
	took := time.Since(began)
	heldBeside := watch.stop(t)
	own, theirs = ownCPU(t)-own, cpuOf(t, g)-theirs
	stop()
	a.workers.Wait()
	<-watching
	stopPeers()

	if n := len(a.unbounded()); n != 0 {
		t.Errorf("never cut off was %v", a.unbounded())
	}
	over := time.Now()
	ending, done := context.WithTimeout(ctx, 4*time.Minute) // more than every wait together
	defer done()
	var st struct{ Flows, Waiting int }
	if !eventually(ending, func() bool {
		return sluiceJSON(ctx, g, &st, "status") == nil && st.Flows == 0 && st.Waiting == 0
	}) {
		t.Errorf("all clients and hostile destinations are gone, and %d sessions are left, %d wait:\n%s", st.Flows, st.Waiting, sluice(t, g, "flows"))
	}
	t.Logf("%v after the last client had gone %d sessions were left", time.Since(over).Round(time.Millisecond), st.Flows)
	if size.time > 0 && sleep(ctx, 10*time.Second) != nil { // for the figure alone: what is free is given back little by little
		t.Fatal("no time is left")
	}
	most, after := before+before/2+32<<20, int64(0)
	calm, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if !eventually(calm, func() bool { after = resident(t, g); return after <= most }) {
		t.Errorf("sluiced has %d MiB a minute after all is over, it had %d MiB", after>>20, before>>20)
	}
	good.arrivedOnce(ctx, t)
	select {
	case <-g.Sluiced.Done():
		t.Errorf("sluiced has ended: %v", g.Sluiced.Err())
	default:
	}
	a.report(t)
	t.Logf("in %v beside %d hostile sessions sluiced used %v of CPU, clients and destinations %v", took.Round(time.Millisecond), all, theirs, own.Round(time.Millisecond))
	t.Logf("sluiced's memory: %d MiB before, at most %d MiB beside (%d sessions), %d MiB after", before>>20, peak.memory>>20, peak.flows, after>>20)
	t.Logf("good client's mails in the gateway: alone p50 %v, p99 %v of %d; beside p50 %v, p99 %v of %d; ratio p50 %.2f, p99 %.2f", at(heldAlone, 50), at(heldAlone, 99), len(heldAlone),
		at(heldBeside, 50), at(heldBeside, 99), len(heldBeside), ratio(at(heldBeside, 50), at(heldAlone, 50)), ratio(at(heldBeside, 99), at(heldAlone, 99)))
	t.Logf("good client, connection to answer: alone p50 %v, p99 %v of %d; beside p50 %v, p99 %v of %d; ratio p50 %.2f, p99 %.2f", at(alone, 50), at(alone, 99), len(alone),
		at(beside, 50), at(beside, 99), len(beside), ratio(at(beside, 50), at(alone, 50)), ratio(at(beside, 99), at(alone, 99)))
}

// at is a percentile of sorted times: the least that no more than the rest are above.
func at(d []time.Duration, percent int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return d[max(0, (len(d)*percent+99)/100-1)]
}

// eventually looks now and then until something is so; false if ctx ends before.
func eventually(ctx context.Context, so func() bool) bool {
	for !so() {
		if sleep(ctx, 100*time.Millisecond) != nil {
			return false
		}
	}
	return true
}

// goodClient is alice, who sends one mail per connection and numbers them.
type goodClient struct {
	lab  *Lab
	sent int
}

// send goes on until there were enough mails for long enough, and enough says so too; it gives the sorted times.
func (c *goodClient) send(ctx context.Context, t *testing.T, size hostility, enough func() bool) (took []time.Duration) {
	t.Helper()
	for began := time.Now(); len(took) < size.mails || time.Since(began) < size.time || !enough(); {
		d, err := c.one(ctx)
		if err != nil {
			t.Fatalf("good mail %d: %v", c.sent, err)
		}
		took = append(took, d)
		if err := sleep(ctx, 10*time.Millisecond); err != nil { // a customer's pace
			t.Fatal(err)
		}
	}
	slices.Sort(took)
	return took
}

func (c *goodClient) one(ctx context.Context) (time.Duration, error) {
	c.sent++
	began := time.Now()
	x, err := c.lab.Hello(ctx, "alice", "", sinkOf46[0])
	if err != nil {
		return 0, err
	}
	defer x.Close()
	_, r, err := x.Send("a@alice.example", []string{"u@sink.example"}, fmt.Appendf(nil, "Subject: good %d\r\n\r\ngood\r\n", c.sent))
	if err != nil || r.Code != 250 {
		return 0, fmt.Errorf("%v %w", r, err)
	}
	return time.Since(began), x.Quit()
}

// arrivedOnce states that every mail is there once and nothing else is.
func (c *goodClient) arrivedOnce(ctx context.Context, t *testing.T) {
	t.Helper()
	all, err := c.lab.Sink("sink").Wait(ctx, c.sent)
	if err != nil {
		t.Error(err)
	}
	times := map[string]int{}
	for _, m := range all {
		_, subject, _ := strings.Cut(string(m.Data), "Subject: good ")
		number, _, _ := strings.Cut(subject, "\r\n")
		times[number]++
	}
	for i := range c.sent {
		if n := times[strconv.Itoa(i+1)]; n != 1 {
			t.Errorf("good mail %d has arrived %d times", i+1, n)
		}
	}
	if len(times) != c.sent {
		t.Errorf("%d good mails were sent, %d different ones have arrived", c.sent, len(times))
	}
}

// assault is many hostile sessions at once, each begun again after its end.
type assault struct {
	lab      *Lab
	kinds    []*attack
	dials    chan struct{} // bounds the threads that connect
	standing atomic.Int64  // sessions that stood at least once
	workers  sync.WaitGroup
	// resets has clients leave by a reset: the FIN of one whose commands nobody reads any more stands behind those, and the
	// session goes on until all the waits that they earned are over, more than two minutes.
	resets bool
}

// start begins all sessions and gives their number.
func (a *assault) start(ctx context.Context, sources []netip.Addr, each int) int {
	for i, from := range sources {
		for n := range each {
			kind := a.kinds[(i*each+n)%len(a.kinds)]
			a.workers.Go(func() { a.session(ctx, from, kind) })
		}
	}
	return len(sources) * each
}

func (a *assault) session(ctx context.Context, from netip.Addr, kind *attack) {
	for first := true; ctx.Err() == nil; {
		a.dials <- struct{}{}
		nc, err := a.lab.Dial(ctx, "crowd", from.String(), kind.to)
		<-a.dials
		if err == nil {
			kind.begun.Add(1)
			if first {
				first = false
				a.standing.Add(1)
			}
			gone := context.AfterFunc(ctx, func() {
				if a.resets {
					_ = nc.(*net.TCPConn).SetLinger(0) // it may have ended by itself
				}
				_ = nc.Close()
			})
			if left := kind.run(nc); !left && ctx.Err() == nil {
				kind.cut.Add(1)
			}
			gone()
			_ = nc.Close()
		}
		if sleep(ctx, time.Second) != nil { // an attacker's pace; the flood of connections is another test
			return
		}
	}
}

// unbounded names attacks that the gateway has to end and never has.
func (a *assault) unbounded() (names []string) {
	for _, k := range a.kinds {
		if k.bounded && k.cut.Load() == 0 {
			names = append(names, k.name)
		}
	}
	return names
}

func (a *assault) bounded() bool { return len(a.unbounded()) == 0 }

func (a *assault) report(t *testing.T) {
	t.Helper()
	for _, k := range a.kinds {
		t.Logf("%-26s %6d connections, %6d ended by the gateway", k.name, k.begun.Load(), k.cut.Load())
	}
}

// openHostilePeers opens the destinations of attacks, and gives what ends them.
func openHostilePeers(ctx context.Context, t *testing.T, l *Lab) (stop func()) {
	t.Helper()
	stopped := make(chan struct{})
	stop = sync.OnceFunc(func() { close(stopped) })
	t.Cleanup(stop)
	for _, to := range []string{bluntMX, minuteMX, endlessMX, silentMX} {
		ip := netip.MustParseAddrPort(to).Addr()
		if err := l.ip(ctx, HostInternet, []string{fmt.Sprintf("addr add %v/32 dev lo", ip)}); err != nil {
			t.Fatal(err)
		}
		ln, err := l.Listen(HostInternet, to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		go hostilePeer{to}.serve(ln, stopped)
	}
	return stop
}

// peaks are the most that sluiced ever had.
type peaks struct {
	memory int64
	flows  int
}

// watch looks now and then; the channel is closed when it has stopped.
func (p *peaks) watch(ctx context.Context, t *testing.T, g *Gateway) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			var st struct{ Flows int }
			if sluiceJSON(ctx, g, &st, "status") == nil {
				p.flows = max(p.flows, st.Flows)
			}
			p.memory = max(p.memory, resident(t, g))
			if sleep(ctx, time.Second) != nil {
				return
			}
		}
	}()
	return done
}

// resident is sluiced's own memory in bytes, 0 after its end.
func resident(t *testing.T, g *Gateway) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.Sluiced.Pid()))
	if err != nil {
		t.Errorf("sluiced's memory: %v", err)
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "RssAnon:")
	kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.ParseInt(kib, 10, 64)
	if err != nil {
		t.Errorf("sluiced's memory: %v", err)
	}
	return n << 10
}

func cpuOf(t *testing.T, g *Gateway) time.Duration {
	t.Helper()
	d, err := g.Sluiced.CPU()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ownCPU is what this process has used: clients and destinations share the machine with the gateway.
func ownCPU(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
