//go:build labtest

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/intercept/control"
)

// bobOpen is the usual configuration where the mail of bob, and of mallory, who is locked, goes round a proxy that is dead.
var bobOpen = strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if or (eq .Name "bob") (eq .Name "mallory")}}
fail = "open"{{end}}`, 1)

// attempt is one connection of a customer while the proxy is dead: what he got within a second.
type attempt struct {
	greeting string
	err      error
}

func try(ctx context.Context, l *Lab, host, to string) attempt {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := l.Dial(ctx, host, "", to)
	if err != nil {
		return attempt{err: err}
	}
	c := NewClient(conn)
	defer c.Close()
	c.Timeout(time.Second)
	r, err := c.Reply()
	return attempt{greeting: r.String(), err: err}
}

// failure is a way for the proxy to be away, and to come back.
type failure struct {
	name string
	conf string // beside the usual configuration
	down func(context.Context, *testing.T, *Lab, *Gateway) error
	back func(context.Context, *testing.T, *Lab, *Gateway) error
	// until is how long connections wait as if nothing were, from the proxy's death on.
	until time.Duration
	flood bool // see what the cap lets through
	brief bool // it comes back before connections are reset, but in a campaign
}

// briefly is how long a brief failure lasts at least.
const briefly = 4 * time.Second

// resetAfter is the least that connections wait which are reset after 20 s, counted from when the test hears of the failure.
const resetAfter = 15 * time.Second

func kill(_ context.Context, _ *testing.T, _ *Lab, g *Gateway) error { return g.Sluiced.Kill() }

func restart(ctx context.Context, _ *testing.T, _ *Lab, g *Gateway) error { return g.StartSluiced(ctx) }

// by tells whether f is tried on a path: all of them by tcx and in a campaign, by nftables those in which the heartbeat
// takes another way, by clsact, whose programs are those of tcx, one.
func (f failure) by(path string) bool {
	switch {
	case path == "tcx" || rounds(1) > 1:
		return true
	case path == "nftables":
		return f.name == "it hangs" || f.name == "it is killed" || f.name == "both are killed"
	}
	return f.name == "it is killed"
}

func failures() []failure {
	var held []*Client
	return []failure{
		{
			name: "it hangs",
			down: func(ctx context.Context, _ *testing.T, _ *Lab, g *Gateway) error { return freeze(ctx, g.Sluiced) },
			back: func(_ context.Context, _ *testing.T, _ *Lab, g *Gateway) error {
				return g.Sluiced.Signal(syscall.SIGCONT)
			},
		},
		{name: "it is killed", down: kill, back: restart, flood: true, brief: true},
		{name: "it has no memory left", down: outOfMemory, back: restart, brief: true},
		{
			// It lives, beats no more, and its API answers: as many sessions as are allowed stay open, and the queue grows.
			name: "its accept queue is full", conf: "sessions = 6",
			down: func(ctx context.Context, t *testing.T, l *Lab, g *Gateway) (err error) {
				held, err = crowd(ctx, l, "dave", 6, 48)
				return err
			},
			back: func(ctx context.Context, t *testing.T, l *Lab, g *Gateway) error {
				sluice(t, g, "status")
				for _, c := range held {
					_ = c.Close() // whichever of them was accepted meanwhile
				}
				return nil
			},
		},
		{
			name: "its restart was announced and comes late", until: 5 * time.Second, brief: true,
			down: func(ctx context.Context, t *testing.T, l *Lab, g *Gateway) error {
				if err := g.Sluiced.Kill(); err != nil {
					return err
				}
				c, err := control.Reach(ctx, filepath.Join(g.Dir, "intercept/control.sock"))
				if err != nil {
					return err
				}
				return errors.Join(c.Announce(ctx, 5*time.Second), c.Close())
			},
			back: restart,
		},
		{
			name: "both are killed",
			down: func(_ context.Context, _ *testing.T, _ *Lab, g *Gateway) error {
				return errors.Join(g.Intercept.Kill(), g.Sluiced.Kill())
			},
			back: func(ctx context.Context, _ *testing.T, _ *Lab, g *Gateway) error {
				return errors.Join(g.StartIntercept(ctx), g.StartSluiced(ctx))
			},
		},
		{
			name: "it starts anew while the helper is dead", brief: true,
			down: func(ctx context.Context, _ *testing.T, l *Lab, g *Gateway) error {
				err := errors.Join(g.Intercept.Kill(), g.Sluiced.Kill())
				if err != nil {
					return err
				}
				g.Sluiced, err = l.Start(HostGateway, Command{
					Args: []string{g.bin("sluiced"), "--config", g.Config}, UID: daemonID, GID: daemonID, Dir: filepath.Join(g.Dir, "state"),
				})
				if err != nil {
					return err
				}
				return g.Sluiced.WaitLog(ctx, "waiting for sluice-intercept")
			},
			back: func(ctx context.Context, _ *testing.T, _ *Lab, g *Gateway) error {
				return errors.Join(g.StartIntercept(ctx), g.Sluiced.WaitLog(ctx, "ready"))
			},
		},
	}
}

// freeze stops a process and waits until all of it stands still.
func freeze(ctx context.Context, p *Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid()))
		if err != nil {
			return err
		}
		running := 0
		for _, f := range threads {
			if b, err := os.ReadFile(f); err == nil && !bytes.Contains(b, []byte(") T ")) {
				running++
			}
		}
		if running == 0 {
			return nil
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("the process does not stop: %w", err)
		}
	}
}

// crowd opens sessions until no more are served, and then connections that wait.
func crowd(ctx context.Context, l *Lab, host string, sessions, more int) (all []*Client, err error) {
	for range sessions {
		c, err := l.Hello(ctx, host, "", "198.51.100.20:25")
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	for range more {
		conn, err := l.Dial(ctx, host, "", "198.51.100.20:25")
		if err != nil {
			return all, err
		}
		all = append(all, NewClient(conn))
	}
	return all, nil
}

// TestFailModes: the proxy is away, in one way or another. Who is to fail open is forwarded after a second; who is to fail
// closed waits, is reset after 20 s, and never gets round the proxy; who is locked stays so. When it is back, it has everybody
// again by itself.
func TestFailModes(t *testing.T) { onEachPath(t, failModesBy) }

func failModesBy(t *testing.T, path string) {
	for _, f := range failures() {
		if !f.by(path) {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ctx, l := testContext(t), ForTest(t, Options{})
			g := startGatewayWith(t, l, by(path, strings.Replace(bobOpen, "[smtp]\n", "[smtp]\n"+f.conf+"\n", 1)))
			sluice(t, g, "lock", "mallory", "--reason", "a test")
			up, err := l.Capture(ctx, HostGateway, "up0", "tcp port 25 or ip6")
			if err != nil {
				t.Fatal(err)
			}
			targets := []string{"198.51.100.20:25", "[2001:db8:100::20]:25"}
			for _, to := range targets {
				served(t, l, "alice", "", to)
				served(t, l, "bob", "", to)
			}
			if err := f.down(ctx, t, l, g); err != nil {
				t.Fatal(err)
			}
			down := time.Now()
			patience, impatient := context.WithCancel(ctx)
			defer impatient()
			waiting := wait(patience, l, "alice", targets[0])
			for _, to := range targets {
				opensAfter(ctx, t, l, to, down, f.until)
			}
			if f.flood {
				flood(t, l, "bob", targets...)
			}
			for _, to := range targets {
				if f.brief && rounds(1) == 1 {
					waitsUntil(ctx, t, l, to, down, down.Add(briefly))
				} else {
					closesAfter(ctx, t, l, to, down)
				}
			}
			for _, to := range targets {
				if a := try(ctx, l, "mallory", to); a.err == nil {
					t.Errorf("the locked customer is greeted: %q", a.greeting)
				}
			}
			if err := f.back(ctx, t, l, g); err != nil {
				t.Fatal(err)
			}
			back := time.Now()
			for _, host := range []string{"bob", "alice"} {
				handedBack(ctx, t, l, host, targets[0], back)
				for _, to := range targets {
					served(t, l, host, "", to)
				}
			}
			// Who began to wait when the proxy went is served by it, or was reset; he is never sent on.
			impatient() // his next SYN may be half a minute away
			if a := <-waiting; a.err == nil && !strings.HasPrefix(a.greeting, "220 gw.example") {
				t.Errorf("a connection that waited was greeted %q", a.greeting)
			}
			packets, err := up.Stop()
			if err != nil {
				t.Fatal(err)
			}
			for _, own := range []string{"192.0.2.10", "2001:db8:1::10", "192.0.2.66", "2001:db8:66::66"} {
				if leaked := packets.Where(From(own)); len(leaked) != 0 {
					t.Errorf("%d packets left from %s, who fails closed or is locked: %+v", len(leaked), own, leaked[0])
				}
			}
			for _, own := range []string{"192.0.2.20", "2001:db8:2::20"} {
				n := len(packets.SYNs(From(own), To("25")))
				t.Logf("%d SYNs of the customer that fails open left from %s", n, own)
				if n == 0 || n > 30 || f.flood && n < 30 {
					t.Errorf("%d SYNs of the customer that fails open left from %s; 30 a minute may", n, own)
				}
			}
		})
	}
}

// flood begins more connections than fail-open forwards in a minute.
func flood(t *testing.T, l *Lab, host string, targets ...string) {
	t.Helper()
	if err := l.In(host, func() (err error) {
		for _, to := range targets {
			for range 40 {
				fd, begun := beginConnection(netip.MustParseAddrPort(to))
				if err = errors.Join(err, begun); begun == nil {
					_ = unix.Close(fd) // its SYN has left
				}
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// handedBack waits until the proxy has a customer again.
func handedBack(ctx context.Context, t *testing.T, l *Lab, host, to string, back time.Time) {
	t.Helper()
	for {
		a := try(ctx, l, host, to)
		since := time.Since(back)
		if strings.HasPrefix(a.greeting, "220 gw.example") {
			t.Logf("%v after the proxy's return it greets %s", since, host)
			return
		}
		if sleep(ctx, 20*time.Millisecond) != nil { // a pace
			t.Fatalf("%v after the proxy's return %s gets %+v", since, host, a)
		}
	}
}

// wait opens a connection and waits for its greeting as long as a client does.
func wait(ctx context.Context, l *Lab, host, to string) <-chan attempt {
	done := make(chan attempt, 1)
	go func() {
		c, err := l.SMTP(ctx, host, "", to)
		if err != nil {
			done <- attempt{err: err}
			return
		}
		_ = c.Close()
		done <- attempt{greeting: c.Greeting.String()}
	}()
	return done
}

// opensAfter states that bob reaches the MX itself, before others are reset, from his own address.
func opensAfter(ctx context.Context, t *testing.T, l *Lab, to string, down time.Time, until time.Duration) {
	t.Helper()
	for {
		a := try(ctx, l, "bob", to)
		if strings.HasPrefix(a.greeting, "220 mx.sink.example") {
			if time.Since(down) < until {
				t.Errorf("%v after the proxy's death bob reaches %s himself; he was to wait %v", time.Since(down), to, until)
			}
			break
		}
		if strings.HasPrefix(a.greeting, "220") || errors.Is(a.err, syscall.ECONNREFUSED) || time.Since(down) > until+resetAfter {
			t.Fatalf("%v after the proxy's death bob gets %+v", time.Since(down), a)
		}
	}
	t.Logf("%v after the proxy's death bob reaches %s himself", time.Since(down), to)
	c, err := l.Hello(ctx, "bob", "", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rcpt := "direct" + strings.NewReplacer(":", "", "[", "", "]", "").Replace(to) + "@sink.example"
	if _, last, err := c.Send("b@bob.example", []string{rcpt}, []byte("Subject: direct\r\n\r\ndirect\r\n")); err != nil || last.Code != 250 {
		t.Errorf("round the dead proxy: %v %v", last, err)
	}
	m := messageTo(ctx, t, l, rcpt)
	if a := m.Peer.Addr().Unmap(); a != netip.MustParseAddr("192.0.2.20") && a != netip.MustParseAddr("2001:db8:2::20") {
		t.Errorf("round the dead proxy the MX sees %v", a)
	}
}

// closesAfter states that alice waits and then is reset, and is never greeted.
func closesAfter(ctx context.Context, t *testing.T, l *Lab, to string, down time.Time) {
	t.Helper()
	for {
		a := try(ctx, l, "alice", to)
		since := time.Since(down)
		switch {
		case a.err == nil:
			t.Fatalf("%v after the proxy's death alice is greeted: %q", since, a.greeting)
		case errors.Is(a.err, syscall.ECONNREFUSED):
			if since < resetAfter {
				t.Errorf("alice is reset after %v; she was to wait 20 s", since)
			}
			t.Logf("%v after the proxy's death alice's connection to %s is reset", since, to)
			return
		case since > 26*time.Second:
			t.Fatalf("%v after the proxy's death alice is not reset: %+v", since, a)
		}
	}
}

// waitsUntil states that alice waits, and is neither greeted nor reset.
func waitsUntil(ctx context.Context, t *testing.T, l *Lab, to string, down, end time.Time) {
	t.Helper()
	for once := true; once || time.Now().Before(end); once = false {
		if a := try(ctx, l, "alice", to); a.err == nil || errors.Is(a.err, syscall.ECONNREFUSED) && time.Since(down) < resetAfter {
			t.Errorf("%v after the proxy's death alice, who is to wait, gets %+v", time.Since(down), a)
		}
	}
}
