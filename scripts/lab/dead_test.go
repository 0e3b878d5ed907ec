//go:build labtest

package lab

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bobOpen is the usual configuration where bob's mail goes round a proxy that is dead.
var bobOpen = strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "bob"}}
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

// TestFailModes: the proxy hangs. Who is to fail open is forwarded after a second; who is to fail closed waits, is reset
// after 20 s, and never gets round the proxy. When it is back, it has everybody again by itself.
func TestFailModes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		down, back func(context.Context, *Gateway) error
	}{
		{"it hangs",
			func(_ context.Context, g *Gateway) error { return g.Sluiced.Signal(syscall.SIGSTOP) },
			func(_ context.Context, g *Gateway) error { return g.Sluiced.Signal(syscall.SIGCONT) }},
		{"it is killed",
			func(_ context.Context, g *Gateway) error { return g.Sluiced.Kill() },
			func(ctx context.Context, g *Gateway) error { return g.StartSluiced(ctx) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, l := testContext(t), ForTest(t, Options{})
			g := startGatewayWith(t, l, bobOpen)
			up, err := l.Capture(ctx, HostGateway, "up0", "tcp port 25 or ip6")
			if err != nil {
				t.Fatal(err)
			}
			targets := []string{"198.51.100.20:25", "[2001:db8:100::20]:25"}
			for _, to := range targets {
				served(t, l, "alice", "", to)
				served(t, l, "bob", "", to)
			}
			if err := c.down(ctx, g); err != nil {
				t.Fatal(err)
			}
			down := time.Now()
			waiting := wait(ctx, l, "alice", targets[0])
			for _, to := range targets {
				opensAfter(ctx, t, l, to, down)
			}
			for _, to := range targets {
				closesAfter(ctx, t, l, to, down)
			}
			if err := c.back(ctx, g); err != nil {
				t.Fatal(err)
			}
			back := time.Now()
			for _, host := range []string{"alice", "bob"} {
				for a := try(ctx, l, host, targets[0]); !strings.HasPrefix(a.greeting, "220 gw.example"); a = try(ctx, l, host, targets[0]) {
					if time.Since(back) > 5*time.Second {
						t.Fatalf("5 s after the proxy's return %s gets %+v", host, a)
					}
				}
				for _, to := range targets {
					served(t, l, host, "", to)
				}
			}
			// Who began to wait when the proxy went is served by it, or was reset; he is never sent on.
			if a := <-waiting; a.err == nil && !strings.HasPrefix(a.greeting, "220 gw.example") {
				t.Errorf("a connection that waited was greeted %q", a.greeting)
			}
			packets, err := up.Stop()
			if err != nil {
				t.Fatal(err)
			}
			for _, own := range []string{"192.0.2.10", "2001:db8:1::10"} {
				if leaked := packets.Where(From(own)); len(leaked) != 0 {
					t.Errorf("%d packets left from %s, whose mode is fail-closed: %+v", len(leaked), own, leaked[0])
				}
			}
			if packets.Attempts(From("192.0.2.20")) == 0 || packets.Attempts(From("2001:db8:2::20")) == 0 {
				t.Error("the capture saw nothing of the customer that fails open")
			}
		})
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

// opensAfter states that bob reaches the MX itself soon, from his own address.
func opensAfter(ctx context.Context, t *testing.T, l *Lab, to string, down time.Time) {
	t.Helper()
	for {
		a := try(ctx, l, "bob", to)
		if strings.HasPrefix(a.greeting, "220 mx.sink.example") {
			break
		}
		if strings.HasPrefix(a.greeting, "220") || errors.Is(a.err, syscall.ECONNREFUSED) || time.Since(down) > 8*time.Second {
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
			if since < 15*time.Second {
				t.Errorf("alice is reset after %v; she was to wait 20 s", since)
			}
			t.Logf("%v after the proxy's death alice's connection to %s is reset", since, to)
			return
		case since > 26*time.Second:
			t.Fatalf("%v after the proxy's death alice is not reset: %+v", since, a)
		}
	}
}
