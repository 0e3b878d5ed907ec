//go:build nettest

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
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

// TestLeastPrivilege runs the helper with the capabilities that its unit file gives, and no others.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.gw.sh(fmt.Sprintf("chgrp 65534 %[1]s && mkdir %[1]s/bpf/sluice", g.dir))
	cmd := g.gw.command(false, "setpriv", "--regid", "65534", "--clear-groups", "--no-new-privs",
		"--bounding-set", "-all,+net_admin,+bpf,+perfmon,+net_raw,+net_bind_service",
		binary, "--config", g.config(""))
	h := start(t, cmd, roleHelper)
	h.wait(0, "msg=ready")
	h.wait(0, "interface=up0 role=uplink path=tcx")
	p := g.proxy()
	g.cust.expect("", mx4, "proxy ")
	if got := p.ask("lock 9 0 192.0.2.10/32"); !strings.HasPrefix(got, "ok ") {
		t.Error(got)
	}
}

// TestPinsWithoutABPFFileSystem holds that the helper mounts one, on the pin folder itself, and takes it away again.
func TestPinsWithoutABPFFileSystem(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	config := g.config("")
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), g.dir+"/bpf/sluice", g.dir+"/pins", 1)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	h := g.helper(config)
	if got := g.gw.sh(fmt.Sprintf("stat -f -c %%T %s/pins; ls %[1]s/pins/links | wc -l", g.dir)); got != "bpf_fs\n3\n" {
		t.Errorf("pins: %q", got)
	}
	h.stop()
	if out, err := g.tool("cleanup", "--config", config); err != nil {
		t.Fatal(err, out)
	}
	if got := g.gw.sh(fmt.Sprintf("ls -d %s/pins 2>&1 || true", g.dir)); !strings.Contains(got, "No such file") {
		t.Errorf("left: %q", got)
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

// state is everything that the helper may have left in the kernel and on disk, as text.
func (g *gateway) state() string {
	return g.gw.sh(fmt.Sprintf(`
		ip rule; ip -6 rule
		ip route show table all proto 125; ip -6 route show table all proto 125
		tc qdisc show | grep clsact || true
		for d in cust0 up0; do for h in ingress egress; do tc filter show dev $d $h | sed 's/ id [0-9]*//; s/jited//' ; done; done
		nft list tables
		bpftool net show 2>/dev/null | grep -o 'sluice[^ ]*\|mail_ingress\|uplink_[a-z]*' || true
		find %[1]s/bpf %[1]s/state -mindepth 1 2>/dev/null | sort
		ls %[1]s | grep sock || true`, g.dir))
}

func TestApplyTwiceAndLeaveNothing(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "clsact", "nftables"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t)
			g.gw.sh(`ip rule add pref 200 from 192.0.2.99 lookup 7; ip route add 203.0.113.128/25 via 198.51.100.25 table 7`)
			before := g.state()
			config := g.config(fmt.Sprintf("path = %q", path))
			h := g.helper(config)
			first := g.state()
			if first == before || !strings.Contains(first, "local 203.0.113.16/28") || !strings.Contains(first, "goto 110") {
				t.Fatalf("nothing applied:\n%s", first)
			}
			h.signal(syscall.SIGHUP)
			h.wait(0, "configuration reloaded")
			if again := g.state(); again != first {
				t.Errorf("reload changed the state\nbefore:\n%s\nafter:\n%s", first, again)
			}
			if out, err := g.tool("cleanup", "--config", config); err == nil || !strings.Contains(out, "stop it first") {
				t.Errorf("cleanup beside a running helper: %v %s", err, out)
			}
			h.kill()
			if out, err := g.tool("check", "--config", config); err != nil || !strings.Contains(out, "rule pref 100 fwmark") || !strings.Contains(out, "data path: "+path) {
				t.Errorf("check: %v\n%s", err, out)
			}
			h = g.helper(config)
			if again := g.state(); again != first {
				t.Errorf("restart changed the state\nbefore:\n%s\nafter:\n%s", first, again)
			}
			h.kill()
			for range 2 { // once more does no harm
				if out, err := g.tool("cleanup", "--config", config); err != nil {
					t.Fatalf("cleanup: %v %s", err, out)
				}
			}
			if after := g.state(); after != before {
				t.Errorf("cleanup left or took something\nbefore:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

func TestWhatOthersRemoveComesBack(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "nftables"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			removedComesBack(t, path)
		})
	}
}

func removedComesBack(t *testing.T, path string) {
	g := newGateway(t)
	h := g.helper(g.config(fmt.Sprintf("path = %q", path)))
	first := g.state()
	n := h.count()
	g.gw.sh("ip rule del pref 100; ip -6 rule del pref 90; ip route del local default table 5325")
	h.wait(n, "are back")
	if path == "nftables" { // as firewalls do when they start anew
		g.mx()
		g.proxy()
		n := h.count()
		g.gw.sh("nft flush ruleset")
		h.wait(n, "somebody removed the nftables table")
		g.cust.expect("192.0.2.10:0", mx4, "proxy ")
		g.cust.expect("[2001:db8:1::10]:0", mx6, "proxy ")
	}
	if again := g.state(); again != first {
		t.Errorf("state\n%s\ninstead of\n%s", again, first)
	}
}

func TestAnInterfaceThatAppearsLate(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "nftables"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			appearsLate(t, path)
		})
	}
}

func appearsLate(t *testing.T, path string) {
	g := newGateway(t)
	g.mx()
	h := g.helper(g.config(fmt.Sprintf("path = %q", path)))
	g.proxy()
	late := newSpace(t, syscall.CLONE_NEWNET)
	n := h.count()
	g.gw.sh(fmt.Sprintf(`ip link add cust7 type veth peer name eth0 netns %d
		ip addr add 192.0.2.129/30 dev cust7; ip link set cust7 up`, late.pid))
	late.sh("ip link set lo up; ip link set eth0 up; ip addr add 192.0.2.130/30 dev eth0; ip route add default via 192.0.2.129")
	h.wait(n, "interface=cust7")
	late.expect("", mx4, "proxy 192.0.2.130:")
	// The gateway's new address is its own at once: no flow to it is intercepted.
	n = h.count()
	g.gw.sh("ip link del cust7")
	h.wait(n, `msg="interface let go" interface=cust7`)
	if path == "nftables" {
		if set := g.gw.sh("nft list set inet sluice customers"); strings.Contains(set, "cust7") || !strings.Contains(set, "cust0") {
			t.Error(set)
		}
		return
	}
	if links := g.gw.sh(fmt.Sprintf("ls %s/bpf/sluice/links | wc -l", g.dir)); strings.TrimSpace(links) != "3" {
		t.Errorf("%s pinned links instead of 3", links)
	}
}

// TestHelperDiesUnderTraffic kills the helper again and again while customers connect without a pause.
func TestHelperDiesUnderTraffic(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "nftables"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			helperDies(t, path)
		})
	}
}

func helperDies(t *testing.T, path string) {
	g := newGateway(t)
	g.mx()
	config := g.config(fmt.Sprintf("path = %q\n", path) + "[limits]\nconnections_per_second = 0 # one customer is all the load there is")
	h := g.helper(config)
	p := g.proxy()
	if got := p.ask("users 192.0.2.0/24,5,intercept,closed"); got != "ok" {
		t.Fatal(got)
	}
	if got := p.ask("lock 6 0 192.0.2.11/32"); !strings.HasPrefix(got, "ok") {
		t.Fatal(got)
	}
	var stop atomic.Bool
	var served atomic.Int64
	done := make(chan error, 2)
	for _, remote := range []string{mx4, mx6} {
		go func() {
			var errs []error
			for !stop.Load() && len(errs) < 5 {
				if got, err := g.cust.greeting("", remote); err != nil || !strings.HasPrefix(got, "proxy ") {
					errs = append(errs, fmt.Errorf("%q %w", got, err))
				}
				served.Add(1)
			}
			done <- errors.Join(errs...)
		}()
	}
	for range 3 {
		n := p.count()
		h.kill()
		before := served.Load()
		h = g.helper(config)
		if line, _ := p.wait(n, "redialed"); line != "redialed, same socket: true" {
			t.Error(line)
		}
		h.wait(0, "msg=listening")
		if served.Load() == before {
			t.Error("nobody was served meanwhile")
		}
	}
	// What was set at run time survived: the lock is known to the new helper, too.
	if _, err := g.cust.greeting("192.0.2.11:0", mx4); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("locked source: %v", err)
	}
	if got := p.ask("status"); !strings.Contains(got, "alive sources=1 locks=1") {
		t.Error(got)
	}
	if got := p.ask("unlock 6"); got != "ok" {
		t.Error(got)
	}
	g.cust.expect("192.0.2.11:0", mx4, "proxy ")
	stop.Store(true)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Log("connections served:", served.Load())
}

// TestProxyDiesAndTheNextTakesOver: the helper's own copy of the socket keeps connections waiting.
func TestProxyDiesAndTheNextTakesOver(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.helper(g.config(""))
	p := g.proxy()
	p.kill()
	c, err := g.cust.dial("", mx4, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g.proxy()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "proxy ") {
		t.Errorf("%q %v", line, err)
	}
}

// TestSecondBoot holds that sources and locks of the last run are in force before any proxy dials.
func TestSecondBoot(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	config := g.config("")
	h := g.helper(config)
	p := g.proxy()
	if got := p.ask("users 192.0.2.11/32,5,reject,closed"); got != "ok" {
		t.Fatal(got)
	}
	if got := p.ask("lock 6 0 192.0.2.10/32"); !strings.HasPrefix(got, "ok") {
		t.Fatal(got)
	}
	p.kill()
	h.stop()
	// A boot: maps, programs and rules are gone, the disk stays.
	g.gw.sh(fmt.Sprintf("ip rule del pref 100; rm -r %s/bpf/sluice", g.dir))
	g.helper(config)
	for _, local := range []string{"192.0.2.10:0", "192.0.2.11:0"} {
		if _, err := g.cust.greeting(local, mx4); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s after the boot: %v", local, err)
		}
	}
}

func TestBadReloadKeepsTheOldState(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	h := g.helper(g.config(""))
	first := g.state()
	for _, tc := range []struct{ extra, want string }{
		{"no_such_key = 1", "no_such_key"},
		{"mark = 0x3", "mark"},
		{"listen_port = 10026", "listen_port"},
	} {
		n := h.count()
		file := g.config(tc.extra)
		h.signal(syscall.SIGHUP)
		line, _ := h.wait(n, "not reloaded")
		if !strings.Contains(line, tc.want) || !strings.Contains(line, file) {
			t.Errorf("%s: %s", tc.extra, line)
		}
	}
	if again := g.state(); again != first {
		t.Errorf("state\n%s\ninstead of\n%s", again, first)
	}
	n := h.count()
	g.config(`[[user]]
name = "alice"
prefixes = ["192.0.2.11/32"]
mode = "reject"`)
	h.signal(syscall.SIGHUP)
	h.wait(n, "configuration reloaded")
	if _, err := g.cust.greeting("192.0.2.11:0", mx4); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("new mode: %v", err)
	}
}

// TestForeignFilterIsLeftAlone: another agent's filter stands where the usual tools put it.
func TestForeignFilterIsLeftAlone(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.gw.sh(`tc qdisc add dev cust0 clsact
		tc filter add dev cust0 ingress prio 1 protocol ip bpf bytecode '1,6 0 0 0,'
		tc qdisc add dev up0 clsact
		tc filter add dev up0 ingress prio 1 protocol all bpf bytecode '1,6 0 0 0,'`)
	foreign := g.state()
	config := g.config(`path = "clsact"`)
	h := g.helper(config)
	line, _ := h.wait(0, "interface is not covered")
	if !strings.Contains(line, "cust0") || !strings.Contains(line, "foreign filter") {
		t.Error(line)
	}
	line, _ = h.wait(0, "interface=up0")
	if !strings.Contains(line, "path=clsact") || !strings.Contains(line, "runs before ours") {
		t.Error(line)
	}
	h.stop()
	if out, err := g.tool("cleanup", "--config", config); err != nil {
		t.Fatal(err, out)
	}
	if after := g.state(); after != foreign {
		t.Errorf("foreign state changed\nbefore:\n%s\nafter:\n%s", foreign, after)
	}
	// With tcx nothing is in the way.
	h = g.helper(g.config(`path = "tcx"`))
	h.wait(0, "interface=cust0 role=customer path=tcx")
}

func TestBridgePortIsRefused(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.gw.sh("ip link add br0 type bridge; ip link add cust8 type veth peer name cust9; ip link set cust8 master br0")
	h := g.helper(g.config(""))
	line, _ := h.wait(0, "interface=cust8")
	if !strings.Contains(line, "name br0 instead") {
		t.Error(line)
	}
}

// TestDeviceWithoutEthernetHeader gets the program for bare packets.
func TestDeviceWithoutEthernetHeader(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "clsact", "nftables"} {
		g := newGateway(t)
		g.gw.sh("ip tuntap add cust5 mode tun; ip link set cust5 up")
		g.helper(g.config(fmt.Sprintf("path = %q", path)))
		p := g.proxy()
		want := fmt.Sprintf("Role:customer Path:%s Kind:raw Error:}", path)
		if got := p.ask("status"); !strings.Contains(got, "{Name:cust5") || !strings.Contains(got, want) {
			t.Errorf("status %q has no %q", got, want)
		}
	}
}

// TestNumbersChangeUnderARunningProxy swaps mark, table and priority under a running proxy: rules of the old numbers go last.
func TestNumbersChangeUnderARunningProxy(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	h := g.helper(g.config(""))
	g.proxy()
	g.cust.expect("", mx4, "proxy ")
	g.config("mark = 0x100\njudged_mark = 0x200\ntable = 77\nrule_priority = 300")
	h.signal(syscall.SIGHUP)
	h.wait(0, "configuration reloaded")
	g.cust.expect("", mx4, "proxy ")
	g.cust.expect("", mx6, "proxy ")
	rules := g.gw.sh("ip rule; ip -6 rule; ip route show table 5325")
	if strings.Contains(rules, "5325") || strings.Contains(rules, "goto 110") || !strings.Contains(rules, "fwmark 0x100/0x100 lookup 77") {
		t.Errorf("rules:\n%s", rules)
	}
}

func TestStoredStateIsPrivate(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	h := g.helper(g.config(""))
	p := g.proxy()
	if got := p.ask("users 192.0.2.11/32,5,reject,closed"); got != "ok" {
		t.Fatal(got)
	}
	h.stop()
	for _, name := range []string{"applied.json", "sources.jsonl"} {
		fi, err := os.Stat(filepath.Join(g.dir, "state", name))
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, fi, err)
		}
	}
	if got := slices.Collect(strings.Lines(g.gw.sh("ls " + g.dir + "/state"))); len(got) != 2 {
		t.Errorf("state folder holds %q", got)
	}
}
