//go:build nettest

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// guards lists those that stand at the uplink.
func (g *gateway) guards(path string) string {
	g.t.Helper()
	if path == "clsact" {
		return strings.TrimSpace(g.gw.sh("tc filter show dev up0 egress | grep -o 'sluice[^ ]*uplink_guard' || true"))
	}
	return strings.TrimSpace(g.gw.sh(fmt.Sprintf("ls %s/bpf/sluice/links | grep uplink_guard || true", g.dir)))
}

// unguarded waits until no guard stands.
func (g *gateway) unguarded(path string) {
	g.t.Helper()
	for until := time.Now().Add(time.Minute); g.guards(path) != ""; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			g.t.Fatalf("the guard still stands: %s", g.guards(path))
		}
	}
}

// TestGuardComesAndGoes: the guard costs every packet that leaves, so it stands while somebody is closed and no longer, and it
// stands before anybody is told that he is.
func TestGuardComesAndGoes(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "clsact"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			guardComesAndGoes(t, path)
		})
	}
}

func guardComesAndGoes(t *testing.T, path string) {
	g := newGateway(t)
	g.mx()
	file := g.config(fmt.Sprintf("path = %q", path))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	open := strings.Replace(string(text), `default_fail = "closed"`, `default_fail = "open"`, 1)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(open)
	h := g.helper(file)
	p := g.proxy()
	// Whoever comes by an interface that nobody named meets no program but the guard.
	aside := newSpace(t, syscall.CLONE_NEWNET)
	g.gw.sh(fmt.Sprintf("ip link add aside0 type veth peer name eth0 netns %d; ip addr add 192.0.2.129/30 dev aside0; ip link set aside0 up", aside.pid))
	aside.sh("ip link set lo up; ip link set eth0 up; ip addr add 192.0.2.130/30 dev eth0; ip route add default via 192.0.2.129")
	held := func(why string) {
		t.Helper()
		if g.guards(path) == "" {
			t.Errorf("%s: no guard stands", why)
		}
		before := p.ask("counter guard_drop")
		c, err := aside.dial("", mx4, 300*time.Millisecond)
		if err == nil {
			c.Close()
		}
		if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
			t.Errorf("%s: %v; want a time-out", why, err)
		}
		if after := p.ask("counter guard_drop"); after == before {
			t.Errorf("%s: guard_drop stays at %s", why, before)
		}
	}
	said := func(format string, args ...any) {
		t.Helper()
		if got := p.ask(format, args...); got != "ok" {
			t.Fatalf(format+": %s", append(args, got)...)
		}
	}

	g.unguarded(path)
	aside.expect("", mx4, "mx 192.0.2.130:")
	for range 3 {
		said("put 192.0.2.130/32,7,intercept,closed")
		held("a source was made closed")
		said("put 192.0.2.130/32,7,intercept,open")
	}
	g.unguarded(path)
	aside.expect("", mx4, "mx 192.0.2.130:")
	said("users 192.0.2.128/25,7,intercept,closed 192.0.2.11/32,8,intercept,open")
	held("all sources were replaced")
	said("gone 192.0.2.128/25")

	n := h.count()
	write(string(text))
	h.signal(syscall.SIGHUP)
	h.wait(n, "configuration reloaded")
	held("the default is closed")
	g.cust.expect("192.0.2.10:0", mx4, "proxy ")
	n = h.count()
	write(open)
	h.signal(syscall.SIGHUP)
	h.wait(n, "configuration reloaded")

	// An uplink that comes while somebody is closed has its guard with its program, and the next helper finds it so.
	said("put 192.0.2.130/32,7,intercept,closed")
	h.stop()
	g.helper(file)
	p.wait(0, "redialed")
	held("another helper")
	said("put 192.0.2.130/32,7,intercept,open")
	g.unguarded(path)
}
