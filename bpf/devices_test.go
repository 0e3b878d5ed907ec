//go:build bpftest

package bpf

import (
	"encoding/binary"
	"net"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestTagsInsideAPriorityTag: the kernel strips them after the program ran.
func TestTagsInsideAPriorityTag(t *testing.T) {
	l := newNetLab(t, attachTCX, byRoom)
	l.everybody(ModeDrop, FailClosed)
	plain := v4.build()
	tagged := func(tags ...byte) []byte {
		return append(append(append([]byte{}, plain[:12]...), tags...), plain[12:]...)
	}
	l.within(l.gw, func() {
		g0, err := netlink.LinkByName("g0")
		l.must(err)
		copy(plain, g0.Attrs().HardwareAddr)
	})
	for reason, frame := range map[string][]byte{
		"drop":        tagged(0x81, 0, 0, 0),
		"nested_vlan": tagged(0x81, 0, 0, 0, 0x81, 0, 0xe0, 0),
	} {
		l.moved(reason, func() { l.within(l.rt, func() { l.send("r1", frame) }) })
	}
	before := l.counts()
	l.within(l.rt, func() { l.send("r1", tagged(0x81, 0, 0, 5)) }) // another device's
	if after := l.counts(); after["drop"] != before["drop"] || after["nested_vlan"] != before["nested_vlan"] {
		t.Errorf("a packet of a VLAN device was judged: %v", after)
	}
}

func (l *netLab) send(name string, frame []byte) {
	l.Helper()
	dev, err := netlink.LinkByName(name)
	l.must(err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	l.must(err)
	defer unix.Close(fd)
	l.must(unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: dev.Attrs().Index}))
}

// openTun makes a device without Ethernet in the current namespace.
func (l *netLab) openTun(name string) *os.File {
	l.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	l.must(err)
	req, err := unix.NewIfreq(name)
	l.must(err)
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	l.must(unix.IoctlIfreq(fd, unix.TUNSETIFF, req))
	return os.NewFile(uintptr(fd), "tun")
}

// TestDeviceWithoutEthernet sends SYNs through a tun device and reads the resets from it.
func TestDeviceWithoutEthernet(t *testing.T) {
	l := &netLab{lab: newLab(t, Options{}), gw: newNS(t)}
	l.reset()
	l.configure(Source{Mode: ModeReject})
	var tun *os.File
	l.within(l.gw, func() {
		tun = l.openTun("t0")
		l.must(os.WriteFile("/proc/sys/net/ipv6/conf/t0/disable_ipv6", []byte("1"), 0o644)) // no router solicitations
		l.address("t0")
		attachTCX(l, "t0", l.Program(MailIngressL3), false)
	})
	defer tun.Close()
	l.must(tun.SetDeadline(time.Now().Add(5 * time.Second)))
	for _, f := range []frame{v4, v6} {
		in := f.build()
		_, err := tun.Write(in[14:])
		l.must(err)
		out := make([]byte, 2000)
		n, err := tun.Read(out)
		l.must(err)
		eth := append(append(append([]byte{}, in[6:12]...), in[:6]...), in[12:14]...)
		checkReset(t, in, append(eth, out[:n]...))
	}
}

// TestRoomBehindADeviceWithoutEthernet sends a SYN through a tun device and reads the proxy's answer from it.
func TestRoomBehindADeviceWithoutEthernet(t *testing.T) {
	l := &netLab{lab: newLab(t, Options{}), gw: newNS(t)}
	l.reset()
	l.configure(Source{Mode: ModeIntercept})
	var tun *os.File
	l.within(l.gw, func() {
		l.forwarding()
		tun = l.openTun("t0")
		l.sysctl("ipv6/conf/t0/addr_gen_mode", "1")
		l.address("t0")
		dev, err := netlink.LinkByName("t0")
		l.must(err)
		l.must(netlink.LinkSetMTU(dev, 1380))
		for _, f := range []frame{v4, v6} {
			a := net.ParseIP(f.src)
			bits := 8 * len(a)
			if a.To4() != nil {
				a, bits = a.To4(), 32
			}
			l.must(netlink.RouteAdd(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: &net.IPNet{IP: a, Mask: net.CIDRMask(bits, bits)}}))
		}
		attachTCX(l, "t0", l.Program(MailIngressL3), false)
	})
	byRoom(l)
	l.start2525()
	defer tun.Close()
	l.must(tun.SetDeadline(time.Now().Add(10 * time.Second)))
	for _, f := range []frame{v4, v6} {
		in := f.build()
		_, err := tun.Write(in[14:])
		l.must(err)
		out, ip, next, mss := make([]byte, 2000), 20, 9, uint16(1380-40)
		if f.src == v6.src {
			ip, next, mss = 40, 6, 1380-60
		}
		var n int
		for n < ip+24 || out[0]>>4 != in[14]>>4 || out[next] != 6 { // the kernel tells multicast listeners
			if n, err = tun.Read(out); err != nil {
				t.Fatalf("no answer: %v; counters %v", err, l.counts())
			}
		}
		tcp := out[ip:n]
		if tcp[13]&(syn|ack) != syn|ack || tcp[20] != 2 || binary.BigEndian.Uint16(tcp[22:]) != mss {
			t.Errorf("the answer is % x; want a SYN-ACK that offers %d", tcp, mss)
		}
	}
}
