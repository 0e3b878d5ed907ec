//go:build bpftest

package bpf

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// bulk is what the proxy sends after its greeting to a client that says so; enough for full-sized segments.
const bulk = 200_000

// peer is one address family of the lab.
type peer struct{ cust, other, mx, gw string }

var peers = []peer{
	{cust: "192.0.2.10", other: "192.0.2.11", mx: "198.51.100.25", gw: "198.51.100.1"},
	{cust: "2001:db8:1::10", mx: "2001:db8:100::25", gw: "2001:db8:100::1"},
}

func at(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }

// talk answers one byte: 'q' ends the connection from this side, 'b' sends bulk before.
func talk(c net.Conn) {
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil {
		return
	}
	if b[0] == 'b' {
		if _, err := c.Write(make([]byte, bulk)); err != nil {
			return
		}
	}
	if b[0] == 'e' {
		if _, err := io.Copy(c, c); err != nil {
			return
		}
	}
}

// start puts a proxy and a mail server there.
func (l *netLab) start() {
	l.Helper()
	l.start2525()
	l.serve(l.net, "[::]:25", "mx", talk)
}

// start2525 puts a proxy that beats where its sockets stand.
func (l *netLab) start2525() {
	l.Helper()
	proxy := l.serve(l.proxy, "[::]:2525", "proxy", talk)
	l.listening = proxy.(syscall.Conn)
	l.must(l.SetListener(l.listening))
	page, err := unix.Mmap(l.HeartbeatFD(), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	l.must(err)
	stop, stopped := make(chan struct{}), make(chan struct{})
	beat := func() { // as a proxy without any privilege does
		now, err := monotonic()
		if err == nil {
			copyBeat(page, now)
		}
	}
	beat()
	go func() {
		defer close(stopped)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				beat()
			}
		}
	}()
	l.Cleanup(func() {
		close(stop)
		<-stopped
		if err := unix.Munmap(page); err != nil {
			l.Error(err)
		}
	})
}

func (l *netLab) everybody(m Mode, f Fail) {
	l.Helper()
	l.configure(Source{Mode: ModeDrop}) // whoever is not named has no business here
	l.sources(
		Source{Prefix: prefix("192.0.2.0/24"), User: 7, Mode: m, Fail: f},
		Source{Prefix: prefix("2001:db8:1::/64"), User: 7, Mode: m, Fail: f},
		Source{Prefix: prefix("192.0.2.11/32"), User: 8, Mode: m, Fail: f})
}

// greeting fails the test unless who greets, having been reached at mx from cust.
func (l *netLab) greeting(p peer, from, who string) net.Conn {
	l.Helper()
	c, line, err := l.dial(l.cust, reuse, from, at(p.mx, 25), 20*time.Second)
	if err != nil {
		l.Fatalf("no answer from %s: %v; counters %v", p.mx, err, l.counts())
	}
	if want := who + " " + at(p.mx, 25) + " " + c.LocalAddr().String(); line != want {
		l.Errorf("greeting is %q, want %q", line, want)
	}
	return c
}

func (l *netLab) moved(reason string, f func()) {
	l.Helper()
	before := l.counts()[reason]
	f()
	if l.counts()[reason] == before {
		l.Errorf("counter %s did not move: %v", reason, l.counts())
	}
}

func say(l *netLab, c net.Conn, s string) {
	l.Helper()
	_, err := c.Write([]byte(s))
	l.must(err)
}

func TestOnTheWire(t *testing.T) {
	type way struct {
		attach  func(*netLab, string, *ebpf.Program, bool) func()
		deliver func(*netLab)
	}
	for name, w := range map[string]way{"tcx": {attachTCX, byRoom}, "clsact": {attachClsact, byOlderRoom}, "tcx by rule": {attachTCX, byRule}, "clsact by rule": {attachClsact, byRule}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newNetLab(t, w.attach, w.deliver)
			l.start()
			steps := []struct {
				name string
				f    func(*netLab, peer)
			}{
				{"redirected", redirected}, {"listener away", listenerAway}, {"passed", passed}, {"flow survives a change of mode", modeChange},
				{"same port again", samePort}, {"vanished at its end", vanishedAtItsEnd}, {"SYN cookie", cookie}, {"narrow interface", narrow}, {"path MTU", pathMTU}, {"gateway's own port", gatewayItself},
				{"source-preserving", sourcePreserving}, {"turned elsewhere", turned}, {"reverse path", reversePath}, {"locked", lockedOut}, {"cut", cut}, {"guard", guardDrops},
			}
			for _, s := range steps {
				for i, p := range peers {
					t.Run(fmt.Sprintf("%s %d", s.name, 4+2*i), func(t *testing.T) { l.TB = t; s.f(l, p) })
				}
			}
			l.TB = t
		})
	}
}

func redirected(l *netLab, p peer) {
	l.everybody(ModeIntercept, FailClosed)
	l.moved("intercept", func() {
		l.moved("established", func() {
			c := l.greeting(p, "", "proxy")
			defer c.Close()
			say(l, c, "q")
			if _, err := io.Copy(io.Discard, c); err != nil {
				l.Errorf("the connection did not end well: %v", err)
			}
		})
	})
}

// listenerAway: the proxy beats, but its slot is empty. The room's program is the first to see that.
func listenerAway(l *netLab, p peer) {
	l.everybody(ModeIntercept, FailClosed)
	l.must(l.objects.Listeners.Delete(uint32(0)))
	lost := func() {
		l.Helper()
		if c, line, err := l.dial(l.cust, nil, "", at(p.mx, 25), 200*time.Millisecond); err == nil {
			c.Close()
			l.Errorf("%q answered", line)
		}
	}
	lost()
	l.moved("wait_drop", lost)
	l.must(l.SetListener(l.listening))
	l.moved("intercept", func() { l.greeting(p, "", "proxy").Close() })
	var seen mailRuntime
	if l.must(l.objects.Runtime.Lookup(uint32(0), &seen)); seen.EmptySinceNs != 0 {
		l.Error("the slot is still taken for empty")
	}
}

func passed(l *netLab, p peer) {
	l.everybody(ModePass, FailClosed)
	l.moved("pass", func() { l.greeting(p, "", "mx").Close() })
}

// modeChange: flows go on as they began, in both directions of the change.
func modeChange(l *netLab, p peer) {
	echo := func(c net.Conn, s string) {
		l.Helper()
		say(l, c, s)
		b := make([]byte, len(s))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != s {
			l.Errorf("echo is %q, %v", b, err)
		}
	}
	l.everybody(ModePass, FailClosed)
	direct := l.greeting(p, "", "mx")
	defer direct.Close()
	say(l, direct, "e")
	l.everybody(ModeIntercept, FailClosed)
	through := l.greeting(p, "", "proxy")
	defer through.Close()
	say(l, through, "e")
	echo(direct, "one")
	l.everybody(ModePass, FailClosed)
	echo(through, "two")
	echo(direct, "three")
}

// samePort: the proxy closes first, so its side is in TIME_WAIT when the same port comes again.
func samePort(l *netLab, p peer) {
	l.everybody(ModeIntercept, FailClosed)
	began := time.Now()
	for range 3 {
		c := l.greeting(p, at(p.cust, 41000), "proxy")
		say(l, c, "q")
		if _, err := io.Copy(io.Discard, c); err != nil {
			l.Errorf("the connection did not end well: %v", err)
		}
		l.must(c.Close())
	}
	if d := time.Since(began); d > 2*time.Second {
		l.Errorf("three connections from one port took %s", d)
	}
}

// vanishedAtItsEnd: the client crashes between its FIN and ours, and comes again by the same port. The challenge must be one
// that its kernel answers, and ends the old connection.
func vanishedAtItsEnd(l *netLab, p peer) {
	l.everybody(ModeIntercept, FailClosed)
	deaf, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, int32(shot)), asm.Return()}})
	l.must(err)
	defer deaf.Close()
	c := l.greeting(p, at(p.cust, 42000), "proxy").(*net.TCPConn)
	var hear func()
	l.within(l.cust, func() { hear = attachTCX(l, "c0", deaf, false) })
	l.must(c.CloseWrite())
	l.within(l.proxy, func() {
		for end := time.Now().Add(time.Minute); !l.inLastACK(p, 42000); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				l.Fatal("the proxy's socket never waits for its last ACK")
			}
		}
	})
	raw, err := c.SyscallConn()
	l.must(err)
	l.must(raw.Control(func(fd uintptr) { l.must(unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_REPAIR, 1)) }))
	l.must(c.Close()) // without a packet
	hear()
	began := time.Now()
	l.moved("challenge", func() { l.greeting(p, at(p.cust, 42000), "proxy").Close() })
	if d := time.Since(began); d > 2*time.Second { // an older client's kernel sends its SYN again after one
		l.Errorf("it took %s to come back", d)
	}
}

// inLastACK looks for the socket of a client's port in the current namespace.
func (l *netLab) inLastACK(p peer, port uint16) bool {
	l.Helper()
	family := uint8(unix.AF_INET6) // the proxy's socket is dual-stack
	list, err := netlink.SocketDiagTCP(family)
	l.must(err)
	if p.other != "" {
		more, err := netlink.SocketDiagTCP(unix.AF_INET)
		l.must(err)
		list = append(list, more...)
	}
	return slices.ContainsFunc(list, func(s *netlink.Socket) bool { return s.ID.DestinationPort == port && s.State == netlink.TCP_LAST_ACK })
}

func cookie(l *netLab, p peer) {
	l.everybody(ModeIntercept, FailClosed)
	l.within(l.proxy, func() { l.sysctl("ipv4/tcp_syncookies", "2") })
	defer l.within(l.proxy, func() { l.sysctl("ipv4/tcp_syncookies", "1") })
	l.moved("cookie", func() {
		c := l.greeting(p, "", "proxy")
		defer c.Close()
		say(l, c, "q")
		if _, err := io.Copy(io.Discard, c); err != nil {
			l.Errorf("the connection did not end well: %v", err)
		}
	})
}

// pathMTU: rt's link to the customer is narrower than either end knows.
func pathMTU(l *netLab, p peer) {
	l.everybody(ModeIntercept, FailClosed)
	l.moved("icmp_local", func() {
		c := l.greeting(p, "", "proxy")
		defer c.Close()
		say(l, c, "b")
		n, err := io.Copy(io.Discard, c)
		if err != nil || n < bulk-16 {
			l.Errorf("%d bytes came, %v", n, err)
		}
	})
}

// narrow: the gateway's own interface has a smaller MTU than the customer says in his SYN.
func narrow(l *netLab, p peer) {
	l.everybody(ModeIntercept, FailClosed)
	mtu := func(ns netns.NsHandle, name string, n int) {
		l.within(ns, func() {
			dev, err := netlink.LinkByName(name)
			l.must(err)
			l.must(netlink.LinkSetMTU(dev, n))
		})
	}
	mtu(l.gw, "g0", 1400)
	defer mtu(l.gw, "g0", 1500)
	mtu(l.rt, "r0", 1500)
	defer mtu(l.rt, "r0", 1280)
	before := l.counts()["too_big"]
	c := l.greeting(p, "", "proxy")
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	l.must(err)
	l.must(raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO)
		l.must(err)
		if info.Snd_mss > 1360 {
			l.Errorf("the customer was offered segments of %d bytes", info.Snd_mss)
		}
	}))
	say(l, c, "b")
	n, err := io.Copy(io.Discard, c)
	if err != nil || n < bulk-16 {
		l.Errorf("%d bytes came, %v", n, err)
	}
	if l.proxy != l.gw && l.counts()["too_big"] == before {
		l.Errorf("nothing was too big: %v", l.counts())
	}
}

// turned: a socket of the proxy connects where the helper did not connect it; from the room that goes nowhere at all.
func turned(l *netLab, p peer) {
	if l.proxy == l.gw {
		return
	}
	l.everybody(ModePass, FailOpen)
	for _, way := range [][2]string{{at(p.cust, 0), at(p.mx, 25)}, {at(p.cust, 0), at(p.mx, 80)}, {at(p.mx, 25), at(p.cust, 80)}} {
		l.moved("guard_socket", func() {
			if _, _, err := l.dial(l.proxy, transparent, way[0], way[1], 300*time.Millisecond); !os.IsTimeout(err) {
				l.Errorf("from %s to %s: %v, want no answer", way[0], way[1], err)
			}
		})
	}
	l.moved("guard_socket", func() { // known, but to another server
		if _, line, err := l.dial(l.proxy, l.preserving(p), at(p.cust, 0), at(p.gw, 25), 300*time.Millisecond); err == nil {
			l.Errorf("the gateway greets with %q", line)
		}
	})
}

// preserving is what the helper does to a socket of the proxy that has a customer's address.
func (l *netLab) preserving(p peer) func(string, string, syscall.RawConn) error {
	return func(network, address string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			var cookie uint64
			if cookie, err = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
				err = l.Preserve(cookie, netip.MustParseAddr(p.cust), netip.MustParseAddrPort(at(p.mx, 25)))
			}
		})
		return errors.Join(cerr, err, transparent(network, address, c))
	}
}

func gatewayItself(l *netLab, p peer) {
	l.everybody(ModeDrop, FailClosed)
	own := l.serve(l.gw, at(p.gw, 25), "gateway", talk)
	defer own.Close()
	l.moved("local", func() {
		c, line, err := l.dial(l.cust, nil, "", at(p.gw, 25), 5*time.Second)
		l.must(err)
		defer c.Close()
		if !strings.HasPrefix(line, "gateway ") {
			l.Errorf("greeting is %q", line)
		}
	})
}

// sourcePreserving: the proxy delivers from the customer's address; the answers come back to it and not to the customer.
func sourcePreserving(l *netLab, p peer) {
	l.everybody(ModeIntercept, FailClosed)
	l.moved("reply", func() {
		c, line, err := l.dial(l.proxy, l.preserving(p), at(p.cust, 0), at(p.mx, 25), 5*time.Second)
		l.must(err)
		defer c.Close()
		if want := "mx " + at(p.mx, 25) + " " + c.LocalAddr().String(); line != want {
			l.Errorf("greeting is %q, want %q", line, want)
		}
	})
}

func reversePath(l *netLab, p peer) {
	l.configure(Source{Mode: ModeIntercept, ReversePath: true})
	l.sources()
	l.greeting(p, "", "proxy").Close()
	if p.other == "" { // the borrowed address is an IPv4 one
		return
	}
	l.moved("spoof_path", func() {
		if _, line, err := l.dial(l.cust, nil, "203.0.113.66:0", at(p.mx, 25), 300*time.Millisecond); err == nil {
			l.Errorf("a borrowed address was greeted with %q", line)
		}
	})
}

// lockedOut: ten explanations, then resets, whose checksums the customer's kernel checks.
func lockedOut(l *netLab, p peer) {
	l.everybody(ModePass, FailOpen)
	all := prefix(map[bool]string{true: "192.0.2.0/24", false: "2001:db8:1::/64"}[p.other != ""])
	l.must(l.PutLocks(Lock{Prefix: all, ID: 7, Budget: DefaultLockBudget}))
	defer func() { l.must(l.Unlock(all)) }()
	for range 10 {
		l.greeting(p, "", "proxy").Close()
	}
	l.moved("lock_reset", func() {
		began := time.Now()
		_, line, err := l.dial(l.cust, nil, "", at(p.mx, 25), 5*time.Second)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			l.Errorf("the eleventh connection got %q, %v; want it refused", line, err)
		}
		if d := time.Since(began); d > time.Second {
			l.Errorf("the reset took %s", d)
		}
	})
	if p.other != "" { // another user inside the prefix
		l.greeting(p, at(p.other, 0), "mx").Close()
	}
	l.must(l.Unlock(all))
	l.greeting(p, "", "mx").Close()
}

// cut: a forwarded flow of a locked user ends at its next packet.
func cut(l *netLab, p peer) {
	l.everybody(ModePass, FailOpen)
	c := l.greeting(p, "", "mx")
	defer c.Close()
	all := netip.PrefixFrom(netip.MustParseAddr(p.cust), netip.MustParseAddr(p.cust).BitLen())
	l.must(l.PutLocks(Lock{Prefix: all, ID: 7}))
	defer func() { l.must(l.Unlock(all)) }()
	l.moved("lock_cut", func() {
		say(l, c, "e")
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			l.Errorf("reading gives %v, want a reset", err)
		}
	})
}

// guardDrops comes last for an address family: it takes mail_ingress off and puts it back.
func guardDrops(l *netLab, p peer) {
	take := l.ingress
	l.within(l.gw, take)
	defer l.within(l.gw, func() { l.ingress = attachTCX(l, "g0", l.Program(MailIngress), false) })
	l.everybody(ModeIntercept, FailClosed)
	l.moved("guard_drop", func() {
		if _, line, err := l.dial(l.cust, nil, "", at(p.mx, 25), 300*time.Millisecond); err == nil {
			l.Errorf("an unjudged connection was greeted with %q", line)
		}
	})
	l.everybody(ModeIntercept, FailOpen)
	l.greeting(p, "", "mx").Close()
	// The gateway's own mail is not held.
	c, line, err := l.dial(l.gw, nil, "", at(p.mx, 25), 5*time.Second)
	l.must(err)
	defer c.Close()
	if !strings.HasPrefix(line, "mx ") {
		l.Errorf("greeting is %q", line)
	}
}
