//go:build nettest

package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mx4 = "198.51.100.25:25"
	mx6 = "[2001:db8:100::25]:25"
)

// TestTheGate is the whole way of a flow, by both ways of attaching.
func TestTheGate(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "clsact", "nftables"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t)
			g.mx()
			g.helper(g.config(fmt.Sprintf("path = %q", path)))
			p := g.proxy()
			if line, _ := p.wait(0, "accepting"); line != "accepting as 65534 path "+path {
				t.Error(line)
			}
			t.Run("customer to world is redirected", g.redirected)
			t.Run("proxy to world is not redirected back", func(t *testing.T) { g.notRedirectedBack(t, p) })
			t.Run("the same source port again", g.samePort)
			t.Run("from the customer's own address", func(t *testing.T) { g.ownAddress(t, p) })
			t.Run("what the helper refuses", func(t *testing.T) { g.refusals(t, p) })
			t.Run("lock", func(t *testing.T) { g.lock(t, p) })
			t.Run("a passed socket turned elsewhere", func(t *testing.T) { g.stolen(t, p) })
			t.Run("straight to the listener", func(t *testing.T) { g.straight(t, p) })
		})
	}
}

func (g *gateway) redirected(t *testing.T) {
	g.cust.expect("192.0.2.10:40001", mx4, "proxy 192.0.2.10:40001 "+mx4)
	g.cust.expect("[2001:db8:1::10]:40001", mx6, "proxy [2001:db8:1::10]:40001 "+mx6)
}

func (g *gateway) notRedirectedBack(t *testing.T, p *process) {
	for _, tc := range []struct{ command, want string }{
		{"dial " + mx4, "mx 198.51.100.1:"},
		{"dial " + mx6, "mx [2001:db8:100::1]:"},
		{"dial " + mx4 + " 203.0.113.17", "mx 203.0.113.17:"},
	} {
		if got := p.ask("%s", tc.command); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.command, got, tc.want)
		}
	}
}

// samePort reuses a source port while the proxy's side is in TIME_WAIT, and after the client vanished.
func (g *gateway) samePort(t *testing.T) {
	for _, tc := range []struct{ local, remote string }{{"192.0.2.10:41000", mx4}, {"[2001:db8:1::10]:41000", mx6}} {
		for round := range 3 {
			start := time.Now()
			c, err := g.cust.dial(tc.local, tc.remote, 3*time.Second)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if took := time.Since(start); took > 900*time.Millisecond {
				t.Errorf("round %d took %v: a SYN was lost", round, took)
			}
			r := bufio.NewReader(c)
			if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "proxy ") {
				t.Fatalf("round %d: %q %v", round, line, err)
			}
			fmt.Fprint(c, "CLOSE\n")
			if _, err := r.ReadByte(); err == nil {
				t.Fatal("still open")
			}
			c.Close()
		}
		// Vanish: the client forgets its socket without a word and comes back with the same port.
		c, err := g.cust.dial(tc.local, tc.remote, 3*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		g.cust.sh("ip link set eth0 down")
		rc, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		rc.Control(func(fd uintptr) {
			unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		})
		c.Close()
		g.cust.sh(`ip link set eth0 up
			for a in 10 11; do ip addr replace 2001:db8:1::$a/64 dev eth0 nodad; done
			ip route replace default via 192.0.2.1; ip route replace default via 2001:db8:1::1`)
		c, err = g.cust.dial(tc.local, tc.remote, 5*time.Second)
		if err != nil {
			t.Errorf("after vanishing: %v", err)
			continue
		}
		c.Close()
	}
}

func (g *gateway) ownAddress(t *testing.T, p *process) {
	for _, tc := range []struct{ src, dst, want string }{
		{"192.0.2.10", mx4, "mx 192.0.2.10:"}, {"2001:db8:1::10", mx6, "mx [2001:db8:1::10]:"},
	} {
		if got := p.ask("connect %s %s", tc.src, tc.dst); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s -> %s: %q", tc.src, tc.dst, got)
		}
	}
}

func (g *gateway) refusals(t *testing.T, p *process) {
	for command, want := range map[string]string{
		"connect 192.0.2.10 198.51.100.25:587":                               "only port 25",
		"connect 198.51.100.77 " + mx4:                                       "no customer's",
		"connect 192.0.2.1 " + mx4:                                           "the gateway's own",
		"connect 192.0.2.10 192.0.2.1:25":                                    "the gateway itself",
		"connect 127.0.0.1 " + mx4:                                           "not two plain",
		"users 192.0.2.10/32,7,pass,closed":                                  "could not set 192.0.2.10/32 to mode pass",
		"users 192.0.2.11/32,7,intercept,open":                               "could not set 192.0.2.11/32 to fail open",
		"users 192.0.2.10/32,7,drop,closed 2001:db8:1::/64,8,observe,closed": "could not set 2001:db8:1::/64",
	} {
		if got := p.ask("%s", command); !strings.HasPrefix(got, "error") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	g.cust.expect("", mx4, "proxy ") // the drop beside the refused one was not applied
	// The proxy's own word makes nobody a customer.
	if got := p.ask("users 0.0.0.0/0,7,intercept,closed ::/0,7,intercept,closed"); got != "ok" {
		t.Fatal(got)
	}
	for src, dst := range map[string]string{"198.51.100.77": mx4, "2001:db8:77::1": mx6} {
		if got := p.ask("connect %s %s", src, dst); !strings.Contains(got, "no customer's") {
			t.Errorf("borrowing %s: %q", src, got)
		}
	}
	if got := p.ask("users 192.0.2.11/32,7,reject,closed 2001:db8:1::11/128,7,reject,closed"); got != "ok" {
		t.Fatal(got)
	}
	for local, remote := range map[string]string{"192.0.2.11:0": mx4, "[2001:db8:1::11]:0": mx6} {
		if _, err := g.cust.greeting(local, remote); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s in mode reject: %v", local, err)
		}
	}
	if got := p.ask("users"); got != "ok" {
		t.Fatal(got)
	}
	g.cust.expect("192.0.2.11:0", mx4, "proxy ")
}

func (g *gateway) lock(t *testing.T, p *process) {
	got := p.ask("lock 9 2 192.0.2.11/32 2001:db8:1::11/128")
	if !strings.HasPrefix(got, "ok ") {
		t.Fatal(got)
	}
	t.Log("lock in force after", strings.TrimPrefix(got, "ok "))
	for range 2 {
		g.cust.expect("192.0.2.11:0", mx4, "proxy ")
	}
	for local, remote := range map[string]string{"192.0.2.11:0": mx4, "[2001:db8:1::11]:0": mx6} {
		if _, err := g.cust.greeting(local, remote); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s locked: %v", local, err)
		}
	}
	g.cust.expect("192.0.2.10:0", mx4, "proxy ") // another user
	if got := p.ask("lockexempt 198.51.100.25"); got != "ok" {
		t.Error(got)
	}
	g.cust.expect("192.0.2.11:0", mx4, "proxy ") // to the administrator's mail exchange
	if got := p.ask("lockexempt"); got != "ok" {
		t.Error(got)
	}
	if got := p.ask("lockexempt 0.0.0.0"); !strings.Contains(got, "not a unicast address") {
		t.Error(got)
	}
	if got := p.ask("unlock 9"); got != "ok" {
		t.Fatal(got)
	}
	g.cust.expect("192.0.2.11:0", mx4, "proxy ")
	g.cust.expect("[2001:db8:1::11]:0", mx6, "proxy ")
}

// TestLockIsQuick measures FEATURES LCK9: from decision to the kernel. The bound is loose, for busy machines.
func TestLockIsQuick(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.helper(g.config(""))
	p := g.proxy()
	got := p.ask("lockspeed 192.0.2.11/32")
	t.Log(got)
	_, after, _ := strings.Cut(got, "p50 ")
	p50, _, _ := strings.Cut(after, " ")
	if d, err := time.ParseDuration(p50); err != nil || d > 2*time.Millisecond {
		t.Errorf("%q %v", got, err)
	}
}

// TestManySources holds that a large table arrives whole, and that a lock does not wait for it.
func TestManySources(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.helper(g.config(""))
	p, other := g.proxy(), g.proxy()
	n := p.count()
	fmt.Fprintln(p.in, "many 20000")
	if got := other.ask("lock 9 0 192.0.2.11/32"); !strings.HasPrefix(got, "ok ") {
		t.Error(got)
	}
	line, _ := p.wait(n, "answer ok")
	t.Log("20,000 sources:", line)
	if got := p.ask("status"); !strings.Contains(got, "sources=20000 locks=1") {
		t.Error(got)
	}
	if got := p.ask("users"); got != "ok" {
		t.Error(got)
	}
	if got := p.ask("status"); !strings.Contains(got, "sources=0 locks=1") {
		t.Error(got)
	}
}

// straight holds that nobody reaches the listener but by the data path: who fills its queue stops the heartbeat.
func (g *gateway) straight(t *testing.T, _ *process) {
	for who, s := range map[string]*space{"customer": g.cust, "world": g.net} {
		for _, address := range []string{"192.0.2.1:10025", "[2001:db8:1::1]:10025"} {
			if c, err := s.dial("", address, 300*time.Millisecond); err == nil {
				t.Errorf("%s reaches %s", who, address)
				c.Close()
			}
		}
	}
	g.cust.expect("192.0.2.10:0", mx4, "proxy ")
}

// stolen holds that a socket which the helper passed serves its one connection only.
func (g *gateway) stolen(t *testing.T, p *process) {
	for _, elsewhere := range []string{"198.51.100.25:80", "198.51.100.25:587"} {
		if got := p.ask("steal 192.0.2.10 %s %s", mx4, elsewhere); !strings.HasPrefix(got, "error") {
			t.Errorf("connected to %s: %q", elsewhere, got)
		}
	}
	if got := p.ask("counter guard_socket"); got == "0" {
		t.Error("the guard saw nothing")
	}
}
