//go:build bpftest

package bpf

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// place is a network namespace in which test runs find sockets and routes: the test's goroutine stays in it.
type place struct {
	tun, tap device
	devices  [2]uint32               // of tun, which leads to most customers, and tap, which leads to others
	pairs    [][2]netip.AddrPort     // established connections, from customer to server
	listens  []netip.AddrPort        // listening sockets
	routes   map[netip.Prefix]uint32 // to which device
	slot     syscall.Conn            // listens on the loopback, for the listener's slot
	opened   []interface{ Close() error }
}

func newPlace(t *testing.T) *place {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("could not make a network namespace: %v; run as root", err)
	}
	p := &place{routes: map[netip.Prefix]uint32{}}
	t.Cleanup(func() {
		for _, c := range p.opened {
			c.Close()
		}
		ns.Close()
	})
	for _, file := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+file, []byte("1"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	p.tun, p.tap = p.open(t, "t0", false), p.open(t, "t1", true)
	p.route(t, p.tun, "192.0.2.0/24", "2001:db8:1::/48")
	p.route(t, p.tap, "203.0.113.0/24", "2001:db8:2::/48")
	p.devices = [2]uint32{p.tun.index, p.tap.index}
	p.swallow(t)
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	p.slot = p.listen(t, "127.0.0.1:0").(syscall.Conn)
	for _, ends := range [][2]string{{"192.0.2.77", "198.51.100.77"}, {"2001:db8:1::77", "2001:db8:100::77"}} {
		p.own(t, netip.MustParseAddr(ends[0]), netip.MustParseAddr(ends[1]))
		p.connect(t, netip.MustParseAddr(ends[0]), netip.MustParseAddr(ends[1]))
	}
	return p
}

func (p *place) open(t *testing.T, name string, ethernet bool) device {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	kind := uint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if ethernet {
		kind = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	}
	req.SetUint16(kind)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatal(err)
	}
	// Nothing is said that nobody asked for: no neighbour and router discovery.
	for file, value := range map[string]string{"addr_gen_mode": "1", "mldv2_unsolicited_report_interval": "100000", "router_solicitations": "0"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/"+file, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dev, err := netlink.LinkByName(name)
	if err == nil && ethernet {
		err = netlink.LinkSetHardwareAddr(dev, gwMAC)
	}
	if err == nil {
		err = errors.Join(netlink.LinkSetARPOff(dev), netlink.LinkSetMulticastOff(dev), netlink.LinkSetUp(dev))
	}
	if err != nil {
		t.Fatal(err)
	}
	return device{index: uint32(dev.Attrs().Index), fd: fd, ethernet: ethernet}
}

func (p *place) route(t *testing.T, d device, prefixes ...string) {
	t.Helper()
	for _, r := range prefixes {
		_, dst, err := net.ParseCIDR(r)
		if err == nil {
			err = netlink.RouteAdd(&netlink.Route{LinkIndex: int(d.index), Dst: dst, Scope: unix.RT_SCOPE_LINK})
		}
		if err != nil {
			t.Fatalf("could not add a route to %s: %v", r, err)
		}
		p.routes[netip.MustParsePrefix(r)] = d.index
	}
}

// swallow ends the way of what is delivered behind the programs, so that no socket of this namespace answers.
func (p *place) swallow(t *testing.T) {
	t.Helper()
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		hole, local, old := netlink.NewRule(), netlink.NewRule(), netlink.NewRule()
		mask := uint32(markIntercept)
		hole.Family, hole.Priority, hole.Mark, hole.Mask, hole.Type = family, 5, markIntercept, &mask, unix.FR_ACT_BLACKHOLE
		local.Family, local.Priority, local.Table = family, 10, unix.RT_TABLE_LOCAL
		old.Family, old.Priority, old.Table = family, 0, unix.RT_TABLE_LOCAL
		if err := errors.Join(netlink.RuleAdd(hole), netlink.RuleAdd(local), netlink.RuleDel(old)); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *place) listen(t *testing.T, at string) net.Listener {
	t.Helper()
	lc := net.ListenConfig{KeepAlive: -1} // nothing is received but what the test sends
	lc.SetMultipathTCP(false)
	s, err := lc.Listen(context.Background(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	p.opened = append(p.opened, s)
	return s
}

// own gives addresses to the namespace.
func (p *place) own(t *testing.T, list ...netip.Addr) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		own, err := netlink.ParseAddr(netip.PrefixFrom(a, a.BitLen()).String())
		if err != nil {
			t.Fatal(err)
		}
		own.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(lo, own); err != nil {
			t.Fatal(err)
		}
	}
}

// connect leaves two sockets: what a proxy has of a customer's connection, and what it has of one from his address.
func (p *place) connect(t *testing.T, from, to netip.Addr) {
	t.Helper()
	s := p.listen(t, netip.AddrPortFrom(to, 25).String())
	d := net.Dialer{KeepAlive: -1, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 40000))}
	d.SetMultipathTCP(false)
	c, err := d.Dial("tcp", s.Addr().String())
	// The kernel may still be at work on the IPv6 address.
	for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		c, err = d.Dial("tcp", s.Addr().String())
	}
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p.opened = append(p.opened, c, a)
	p.pairs = append(p.pairs, [2]netip.AddrPort{netip.AddrPortFrom(from, 40000), netip.AddrPortFrom(to, 25)})
	p.listens = append(p.listens, netip.AddrPortFrom(to, 25))
}

// vanish ends all connections with resets, so that nothing of them is left, and who listens for them.
func (p *place) vanish(t *testing.T) {
	t.Helper()
	p.opened = slices.DeleteFunc(p.opened, func(c interface{ Close() error }) bool {
		if any(c) == any(p.slot) {
			return false
		}
		if tcp, is := c.(*net.TCPConn); is {
			if err := tcp.SetLinger(0); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		return true
	})
	p.listens = nil
	p.pairs = nil
}

// socket is the kernel's look-up as this namespace answers it.
func (p *place) socket(src, dst netip.AddrPort) (found, listens bool) {
	for _, pair := range p.pairs {
		if src == pair[0] && dst == pair[1] || src == pair[1] && dst == pair[0] {
			return true, false
		}
	}
	if slices.Contains(p.listens, dst) {
		return true, true
	}
	return false, false
}

// routedBack is the kernel's route to src; addresses of its own are none that is forwarded to, if the tables know them or IPv6 has a route to lo, and
// IPv6 knows no route from a group of hosts.
func (p *place) routedBack(local []netip.Prefix) func(src, dst netip.Addr, ifindex uint32) bool {
	return func(src, dst netip.Addr, ifindex uint32) bool {
		own := slices.ContainsFunc(p.pairs, func(pair [2]netip.AddrPort) bool { return src == pair[0].Addr() })
		known := slices.ContainsFunc(local, func(l netip.Prefix) bool { return l.Contains(src) })
		if own && (known || src.Is6()) || dst.Is6() && dst.IsMulticast() {
			return false
		}
		return p.routed(src) == ifindex
	}
}

// routed is the device that leads to an address, or 0.
func (p *place) routed(a netip.Addr) uint32 {
	for r, dev := range p.routes {
		if r.Contains(a) {
			return dev
		}
	}
	return 0
}
