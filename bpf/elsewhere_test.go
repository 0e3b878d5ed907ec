//go:build bpftest

package bpf

import (
	"errors"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestAccomplice: somebody elsewhere sends the SYN with the customer's address, and the customer would go on with a flow
// whose beginning nobody judged.
func TestAccomplice(t *testing.T) {
	l := newNetLab(t, attachTCX, byRoom)
	l.start()
	l.everybody(ModeIntercept, FailClosed)
	var mac []byte
	l.within(l.net, func() {
		n0, err := netlink.LinkByName("n0")
		l.must(err)
		mac = n0.Attrs().HardwareAddr
	})
	for _, p := range peers {
		syn := frame{src: p.cust, dst: p.mx, sport: 40123}.build()
		copy(syn, mac)
		before := l.counts()["half_open"]
		l.within(l.gw, func() { l.send("g1", syn) }) // as if it came to the server by another way
		for end := time.Now().Add(time.Minute); l.counts()["half_open"] == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the server's answer was not stopped: %v", l.counts())
			}
		}
	}
}

// TestPreservedSocket turns a source-preserving socket elsewhere, as whoever breaks into the proxy would.
func TestPreservedSocket(t *testing.T) {
	for name, deliver := range map[string]func(*netLab){"room": byRoom, "room by clsact": byOlderRoom, "rule": byRule} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			preservedSocket(t, deliver)
		})
	}
}

func preservedSocket(t *testing.T, deliver func(*netLab)) {
	l := newNetLab(t, attachTCX, deliver)
	l.start()
	l.serve(l.net, "[::]:80", "web", talk)
	l.within(l.net, func() { l.address("n0", "198.51.100.26/25", "2001:db8:100::26/64") })
	l.everybody(ModeIntercept, FailClosed)
	for _, p := range peers {
		src, mx := netip.MustParseAddr(p.cust), netip.MustParseAddr(p.mx)
		fd := l.preserved(src, netip.AddrPortFrom(mx, 25))
		l.must(connectTo(fd, netip.AddrPortFrom(mx, 25)))
		for _, elsewhere := range []netip.AddrPort{netip.AddrPortFrom(mx, 80), netip.AddrPortFrom(mx.Next(), 25)} {
			l.moved("guard_socket", func() {
				if err := errors.Join(disconnect(fd), connectTo(fd, elsewhere)); !errors.Is(err, unix.EINPROGRESS) {
					t.Errorf("connecting a passed socket to %v gives %v, want no answer", elsewhere, err)
				}
			})
		}
		l.moved("guard_socket", func() { // an address of nobody's
			err := errors.Join(disconnect(fd), unix.Bind(fd, sockaddr(netip.AddrPortFrom(src.Next().Next().Next(), 0))), connectTo(fd, netip.AddrPortFrom(mx, 25)))
			if !errors.Is(err, unix.EINPROGRESS) {
				t.Errorf("connecting a passed socket from another address gives %v, want no answer", err)
			}
		})
	}
}

// preserved makes a socket as the helper does; a connect of it ends by itself.
func (l *netLab) preserved(src netip.Addr, dst netip.AddrPort) (fd int) {
	l.Helper()
	l.within(l.proxy, func() {
		family := unix.AF_INET
		if src.Is6() {
			family = unix.AF_INET6
		}
		var err error
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		l.must(err)
		if src.Is6() {
			l.must(unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1))
		}
		l.must(errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1),
			unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, markJudged),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 200_000}),
			unix.Bind(fd, sockaddr(netip.AddrPortFrom(src, 0)))))
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		l.must(err)
		l.must(l.Preserve(cookie, src, dst))
	})
	l.Cleanup(func() { unix.Close(fd) })
	return fd
}

func connectTo(fd int, dst netip.AddrPort) error { return unix.Connect(fd, sockaddr(dst)) }

// disconnect makes a socket connectable again; the address it is bound to stays.
func disconnect(fd int) error {
	unspec := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec)); e != 0 {
		return e
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}
