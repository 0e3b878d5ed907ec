//go:build bpftest

package bpf

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestWayFollowsRoutes: what the proxy sends in a connection takes another route once there is one, and nothing is lost.
func TestWayFollowsRoutes(t *testing.T) {
	for name, deliver := range map[string]func(*netLab){"tcx": byRoom, "clsact": byOlderRoom} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wayFollowsRoutes(t, deliver)
		})
	}
}

func wayFollowsRoutes(t *testing.T, deliver func(*netLab)) {
	l := newNetLab(t, attachTCX, deliver)
	l.start()
	l.everybody(ModeIntercept, FailClosed)
	l.wire(l.rt, "r2", l.gw, "g2")
	l.within(l.rt, func() { l.address("r2", "198.51.100.134/30", "2001:db8:3::2/64") })
	l.within(l.gw, func() { l.address("g2", "198.51.100.133/30", "2001:db8:3::1/64") })
	for _, way := range []struct {
		p        peer
		dst, via string
	}{{peers[0], "192.0.2.0/24", "198.51.100.134"}, {peers[1], "2001:db8:1::/64", "2001:db8:3::2"}} {
		c, _, err := l.dial(l.cust, nil, "", at(way.p.mx, 25), 10*time.Second)
		l.must(err)
		defer c.Close()
		say := func(s string) {
			_, err := c.Write([]byte(s))
			l.must(err)
		}
		echo := func() {
			say("x")
			_, err := io.ReadFull(c, make([]byte, 1))
			l.must(err)
		}
		say("e")
		echo()
		before := l.sent("g2")
		l.within(l.gw, func() {
			dev, err := netlink.LinkByName("g2")
			l.must(err)
			_, dst, err := net.ParseCIDR(way.dst)
			l.must(err)
			l.must(netlink.RouteReplace(&netlink.Route{Dst: dst, Gw: net.ParseIP(way.via), LinkIndex: dev.Attrs().Index}))
		})
		l.must(c.SetDeadline(time.Now().Add(20 * time.Second))) // ends the loop, too
		for l.sent("g2") < before+50 {                          // more than the talk among neighbours
			echo()
		}
	}
}

// sent counts the packets that left the gateway by an interface.
func (l *netLab) sent(name string) (n uint64) {
	l.Helper()
	l.within(l.gw, func() {
		dev, err := netlink.LinkByName(name)
		l.must(err)
		n = dev.Attrs().Statistics.TxPackets
	})
	return n
}
