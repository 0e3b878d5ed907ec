//go:build bpftest

package bpf

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/intercept/room"
)

// netLab is a small network in nameless namespaces, which vanish with the test:
//
//	cust (192.0.2.10) - rt (its link to cust has a smaller MTU) - gw (g0, g1) - net (198.51.100.25)
type netLab struct {
	*lab
	cust, rt, gw, net netns.NsHandle
	proxy             netns.NsHandle // where its sockets stand: the room, or gw
	listening         syscall.Conn   // its listener
	ingress           func()         // takes mail_ingress off
}

// within runs f in a namespace, on a thread of its own. Sockets made by f stay there.
func (l *netLab) within(ns netns.NsHandle, f func()) {
	l.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := netns.Set(ns)
		defer func() { done <- err }()
		if err == nil {
			f()
		}
	}()
	l.must(<-done)
	if l.Failed() { // f's Fatal ended only its own goroutine
		l.FailNow()
	}
}

func newNS(t *testing.T) netns.NsHandle {
	t.Helper()
	made := make(chan netns.NsHandle, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.New()
		if err != nil {
			t.Errorf("could not make a network namespace: %v; run as root", err)
		} else if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644); err != nil {
			t.Error(err) // while an address is being checked for duplicates no neighbour is asked for
		}
		made <- ns
	}()
	ns := <-made
	t.Cleanup(func() { ns.Close() })
	return ns
}

func newNetLab(t *testing.T, attach func(*netLab, string, *ebpf.Program, bool) func(), deliver func(*netLab)) *netLab {
	t.Helper()
	l := &netLab{lab: newLab(t, Options{}), cust: newNS(t), rt: newNS(t), gw: newNS(t), net: newNS(t)}
	l.wire(l.cust, "c0", l.rt, "r0")
	l.wire(l.rt, "r1", l.gw, "g0")
	l.wire(l.gw, "g1", l.net, "n0")
	l.within(l.cust, func() {
		l.address("c0", "192.0.2.10/24", "192.0.2.11/24", "203.0.113.66/32", "2001:db8:1::10/64")
		l.route("0.0.0.0/0", "192.0.2.1", "c0")
		l.route("::/0", "2001:db8:1::1", "c0")
	})
	l.within(l.rt, func() {
		l.forwarding()
		l.address("r0", "192.0.2.1/24", "2001:db8:1::1/64")
		l.address("r1", "198.51.100.130/30", "2001:db8:2::2/64")
		l.route("0.0.0.0/0", "198.51.100.129", "r1")
		l.route("::/0", "2001:db8:2::1", "r1")
		r0, err := netlink.LinkByName("r0")
		l.must(err)
		l.must(netlink.LinkSetMTU(r0, 1280))
	})
	l.within(l.gw, func() {
		l.forwarding()
		l.address("lo")
		l.address("g0", "198.51.100.129/30", "2001:db8:2::1/64")
		l.address("g1", "198.51.100.1/25", "2001:db8:100::1/64")
		l.route("192.0.2.0/24", "198.51.100.130", "g0")
		l.route("2001:db8:1::/64", "2001:db8:2::2", "g0")
		// The device completes no checksums, so the kernel must, and the customer's side checks them.
		l.txChecksumOff("g0")
	})
	l.within(l.net, func() {
		l.address("n0", "198.51.100.25/25", "2001:db8:100::25/64")
		l.route("0.0.0.0/0", "198.51.100.1", "n0")
		l.route("::/0", "2001:db8:100::1", "n0")
	})
	l.reset()
	deliver(l)
	_, err := l.ReplaceLocal([]netip.Prefix{prefix("198.51.100.129/32"), prefix("198.51.100.1/32"), prefix("2001:db8:2::1/128"), prefix("2001:db8:100::1/128")})
	l.must(err)
	l.within(l.gw, func() {
		l.ingress = attach(l, "g0", l.Program(MailIngress), false)
		attach(l, "g1", l.Program(UplinkIngress), false)
		attach(l, "g1", l.Program(UplinkGuard), true)
	})
	return l
}

func (l *netLab) wire(a netns.NsHandle, an string, b netns.NsHandle, bn string) {
	l.Helper()
	l.within(a, func() {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: an}, PeerName: bn, PeerNamespace: netlink.NsFd(int(b))}
		l.must(netlink.LinkAdd(v))
	})
}

func (l *netLab) address(name string, list ...string) {
	l.Helper()
	dev, err := netlink.LinkByName(name)
	l.must(err)
	l.must(netlink.LinkSetUp(dev))
	for _, s := range list {
		a, err := netlink.ParseAddr(s)
		l.must(err)
		a.Flags = unix.IFA_F_NODAD
		l.must(netlink.AddrAdd(dev, a))
	}
}

func (l *netLab) route(dst, via, name string) {
	l.Helper()
	dev, err := netlink.LinkByName(name)
	l.must(err)
	_, n, err := net.ParseCIDR(dst)
	l.must(err)
	l.must(netlink.RouteAdd(&netlink.Route{Dst: n, Gw: net.ParseIP(via), LinkIndex: dev.Attrs().Index}))
}

func (l *netLab) sysctl(name, value string) {
	l.Helper()
	l.must(os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644))
}

func (l *netLab) forwarding() {
	l.Helper()
	l.sysctl("ipv4/ip_forward", "1")
	l.sysctl("ipv6/conf/all/forwarding", "1")
}

// byRoom gives the proxy's sockets a namespace of their own, whose door has its programs by tcx; byOlderRoom has them by clsact.
func byRoom(l *netLab)      { l.Helper(); l.house(true) }
func byOlderRoom(l *netLab) { l.Helper(); l.house(false) }

func (l *netLab) house(tcx bool) {
	l.Helper()
	var r *room.Room
	l.within(l.gw, func() {
		var err error
		r, err = room.New()
		l.must(err)
		l.Cleanup(r.Close)
		d, err := r.Furnish(room.Programs{Outer: l.Program(DoorIngress), Inner: l.Program(RoomIngress), TCX: tcx})
		l.must(err)
		l.must(l.SetDoor(Door{Index: d.Index, Room: d.ID}))
	})
	l.must(r.Do(func() (err error) { l.proxy, err = netns.Get(); return err }))
	l.Cleanup(func() { l.proxy.Close() })
}

// byRule has the kernel find them in the gateway's.
func byRule(l *netLab) {
	l.proxy = l.gw
	l.within(l.gw, l.policy)
}

// policy sends what carries the intercept mark to local delivery, but for the host's own packets.
func (l *netLab) policy() {
	l.Helper()
	lo, err := netlink.LinkByName("lo")
	l.must(err)
	mask := uint32(markIntercept)
	for family, all := range map[int]string{unix.AF_INET: "0.0.0.0/0", unix.AF_INET6: "::/0"} {
		skip, mark, end := netlink.NewRule(), netlink.NewRule(), netlink.NewRule()
		end.Priority, end.Type = 110, 3 // FR_ACT_NOP
		skip.Priority, skip.IifName, skip.Goto = 90, "lo", 110
		mark.Priority, mark.Mark, mark.Mask, mark.Table = 100, markIntercept, &mask, 100
		for _, r := range []*netlink.Rule{end, skip, mark} {
			r.Family = family
			l.must(netlink.RuleAdd(r))
		}
		_, dst, err := net.ParseCIDR(all)
		l.must(err)
		l.must(netlink.RouteAdd(&netlink.Route{Dst: dst, LinkIndex: lo.Attrs().Index, Table: 100, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST}))
	}
}

func (l *netLab) txChecksumOff(name string) {
	l.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	l.must(err)
	defer unix.Close(fd)
	value := struct{ cmd, data uint32 }{cmd: 0x17} // ETHTOOL_STXCSUM
	var req struct {
		name [16]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(req.name[:], name)
	req.data = unsafe.Pointer(&value)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); e != 0 {
		l.Fatal(e)
	}
}

// attachTCX is how newer kernels take programs.
func attachTCX(l *netLab, name string, p *ebpf.Program, egress bool) func() {
	l.Helper()
	dev, err := netlink.LinkByName(name)
	l.must(err)
	o := link.TCXOptions{Interface: dev.Attrs().Index, Program: p, Attach: ebpf.AttachTCXIngress}
	if egress {
		o.Attach = ebpf.AttachTCXEgress
	}
	k, err := link.AttachTCX(o)
	l.must(err)
	l.Cleanup(func() { k.Close() })
	return func() { l.must(k.Close()) }
}

// attachClsact is how older ones do.
func attachClsact(l *netLab, name string, p *ebpf.Program, egress bool) func() {
	l.Helper()
	dev, err := netlink.LinkByName(name)
	l.must(err)
	err = netlink.QdiscAdd(&netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: dev.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		l.Fatal(err)
	}
	f := &netlink.BpfFilter{Fd: p.FD(), Name: "sluice", DirectAction: true, FilterAttrs: netlink.FilterAttrs{
		LinkIndex: dev.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 0x51, Priority: 51, Protocol: unix.ETH_P_ALL}}
	if egress {
		f.Parent = netlink.HANDLE_MIN_EGRESS
	}
	l.must(netlink.FilterAdd(f))
	return func() { l.must(netlink.FilterDel(f)) }
}

func transparent(_, _ string, c syscall.RawConn) error {
	var err error
	ctl := c.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		if v, e := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN); e == nil && v == unix.AF_INET6 {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1))
		}
	})
	return errors.Join(ctl, err)
}

func reuse(_, _ string, c syscall.RawConn) error {
	var err error
	ctl := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	return errors.Join(ctl, err)
}

// serve greets every connection with a name and its own view of the two ends, then does with it what f says.
func (l *netLab) serve(ns netns.NsHandle, at, name string, f func(net.Conn)) net.Listener {
	l.Helper()
	var s net.Listener
	l.within(ns, func() {
		lc := net.ListenConfig{Control: transparent}
		lc.SetMultipathTCP(false)
		var err error
		s, err = lc.Listen(context.Background(), "tcp", at)
		l.must(err)
	})
	l.Cleanup(func() { s.Close() })
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := c.Write([]byte(name + " " + c.LocalAddr().String() + " " + c.RemoteAddr().String() + "\n")); err == nil {
					f(c)
				}
			}()
		}
	}()
	return s
}

// dial connects from one namespace and gives the connection with its greeting.
func (l *netLab) dial(ns netns.NsHandle, control func(string, string, syscall.RawConn) error, from, to string, patience time.Duration) (net.Conn, string, error) {
	l.Helper()
	var c net.Conn
	var err error
	l.within(ns, func() {
		d := net.Dialer{Timeout: patience, Control: control}
		d.SetMultipathTCP(false)
		if from != "" {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))
		}
		c, err = d.Dial("tcp", to)
	})
	if err != nil {
		return nil, "", err
	}
	l.must(c.SetDeadline(time.Now().Add(10 * time.Second)))
	line, err := bufio.NewReaderSize(c, 16).ReadString('\n')
	return c, strings.TrimSpace(line), err
}
