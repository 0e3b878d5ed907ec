//go:build nettest

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// bothWays runs a test on a gateway for each way of attaching a BPF program.
func bothWays(t *testing.T, f func(t *testing.T, g *gateway, h *process)) {
	t.Parallel()
	for _, path := range []string{"tcx", "clsact"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t)
			g.mx()
			h := g.helper(g.config(fmt.Sprintf("path = %q\n[limits]\nconnections_per_second = 0 # one customer is all the load there is", path)))
			g.proxy()
			f(t, g, h)
		})
	}
}

// redirectedFrom holds that both families of a customer reach the proxy.
func (g *gateway) redirectedFrom(t *testing.T, s *space, v4, v6 string) {
	t.Helper()
	for _, c := range []struct{ local, remote string }{{v4 + ":0", mx4}, {"[" + v6 + "]:0", mx6}} {
		want := "proxy " + strings.TrimSuffix(c.local, "0")
		if got, err := s.greeting(c.local, c.remote); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s -> %s: %q, %v; want %q", c.local, c.remote, got, err, want)
		}
	}
}

// behind gives a space's eth0 a customer's addresses, and the gateway's interface the other ends.
func (g *gateway) behind(s *space, port, device string, net int) (v4, v6 string) {
	v4, v6 = fmt.Sprintf("192.0.2.%d", net+2), fmt.Sprintf("2001:db8:%d::2", net)
	g.gw.sh(fmt.Sprintf(`ip addr replace 192.0.2.%[2]d/30 dev %[1]s; ip addr replace 2001:db8:%[3]d::1/64 dev %[1]s nodad; ip link set %[1]s up`, port, net+1, net))
	s.sh(fmt.Sprintf(`ip link set lo up; ip link set %[1]s up; ip addr replace %[2]s/30 dev %[1]s; ip addr replace %[3]s/64 dev %[1]s nodad
		ip route replace default via 192.0.2.%[4]d; ip route replace default via 2001:db8:%[5]d::1`, device, v4, v6, net+1, net))
	return v4, v6
}

// TestKindsOfInterfaces sends mail through each kind of customer interface that this kernel has.
func TestKindsOfInterfaces(t *testing.T) {
	bothWays(t, func(t *testing.T, g *gateway, h *process) {
		g.gw.sh("echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore") // the device below a macvlan must not answer for it
		t.Run("bridge", func(t *testing.T) {
			s, n := newSpace(t, syscall.CLONE_NEWNET), h.count()
			g.gw.sh(fmt.Sprintf(`ip link add custbr type bridge; ip link add cust8 type veth peer name eth0 netns %d
				ip link set cust8 master custbr; ip link set cust8 up`, s.pid))
			h.wait(n, "interface=custbr role=customer path=")
			line, _ := h.wait(n, "cust8 is a port of the bridge custbr, where packets are not routed yet; name custbr instead")
			if !strings.Contains(line, "interface is not covered") {
				t.Error(line)
			}
			v4, v6 := g.behind(s, "custbr", "eth0", 32)
			g.redirectedFrom(t, s, v4, v6)
			// A port that leaves its bridge is a customer interface like others.
			n = h.count()
			g.gw.sh("ip link set cust8 nomaster; ip link del custbr")
			h.wait(n, "interface=cust8 role=customer path=")
			g.behind(s, "cust8", "eth0", 32)
			g.redirectedFrom(t, s, v4, v6)
		})
		t.Run("macvlan", func(t *testing.T) {
			s, n := newSpace(t, syscall.CLONE_NEWNET), h.count()
			g.gw.sh(fmt.Sprintf(`ip link add low0 type veth peer name eth0 netns %d; ip link set low0 up
				ip link add link low0 name cust-mv type macvlan mode bridge`, s.pid))
			h.wait(n, "interface=cust-mv role=customer path=")
			v4, v6 := g.behind(s, "cust-mv", "eth0", 64)
			g.redirectedFrom(t, s, v4, v6)
		})
		t.Run("macvlan above a customer interface", func(t *testing.T) {
			s, n := newSpace(t, syscall.CLONE_NEWNET), h.count()
			g.gw.sh(fmt.Sprintf(`ip link add custlow type veth peer name eth0 netns %d; ip link set custlow up
				ip link add link custlow name custlow.9 type macvlan mode bridge`, s.pid))
			h.wait(n, "interface=custlow.9 role=customer path=")
			v4, v6 := g.behind(s, "custlow.9", "eth0", 96)
			g.redirectedFrom(t, s, v4, v6)
		})
		t.Run("tun", func(t *testing.T) {
			s, n := newSpace(t, syscall.CLONE_NEWNET), h.count()
			shovel(t, g.gw, "cust-tun", s, "tun0")
			h.wait(n, "interface=cust-tun role=customer path=")
			v4, v6 := g.behind(s, "cust-tun", "tun0", 128)
			g.redirectedFrom(t, s, v4, v6)
		})
		g.redirectedFrom(t, g.cust, "192.0.2.10", "2001:db8:1::10") // none of them was in this one's way
	})
}

// openTun makes a device without an Ethernet header.
func openTun(t *testing.T, s *space, name string) *os.File {
	t.Helper()
	var f *os.File
	s.in(func() {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Error(err)
			return
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			t.Error(err)
		}
		f = os.NewFile(uintptr(fd), name)
	})
	if t.Failed() {
		t.FailNow()
	}
	return f
}

// shovel joins two tun devices, each in its space, until the test ends.
func shovel(t *testing.T, a *space, nameA string, b *space, nameB string) {
	t.Helper()
	one, other := openTun(t, a, nameA), openTun(t, b, nameB)
	done := make(chan struct{}, 2)
	for _, way := range [][2]*os.File{{one, other}, {other, one}} {
		go func() {
			buf := make([]byte, 65536)
			for {
				n, err := way[0].Read(buf)
				if err != nil {
					done <- struct{}{}
					return
				}
				_, _ = way[1].Write(buf[:n]) // lost packets are the network's business
			}
		}()
	}
	t.Cleanup(func() {
		if err := errors.Join(one.Close(), other.Close()); err != nil {
			t.Error(err)
		}
		<-done
		<-done
	})
}

// tcx is the number of programs at an interface's way in, by tcx, which the distribution's tools are too old to show.
func (s *space) tcx(t *testing.T, name string) (n int) {
	t.Helper()
	s.in(func() {
		i, err := net.InterfaceByName(name)
		if err != nil {
			t.Error(err)
			return
		}
		found, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: ebpf.AttachTCXIngress})
		if err == nil {
			n = len(found.Programs)
		} else if !errors.Is(err, ebpf.ErrNotSupported) { // a kernel without tcx
			t.Error(err)
		}
	})
	return n
}

// TestInterfaceComesAndGoes leads one customer interface through all that may happen to it.
func TestInterfaceComesAndGoes(t *testing.T) {
	bothWays(t, func(t *testing.T, g *gateway, h *process) {
		s := newSpace(t, syscall.CLONE_NEWNET)
		elsewhere := newSpace(t, syscall.CLONE_NEWNET)
		const v4, v6 = "192.0.2.162", "2001:db8:160::2"
		ours := func() string {
			return g.gw.sh(fmt.Sprintf(`ls %s/bpf/sluice/links 2>/dev/null | wc -l; tc qdisc show | grep -c clsact || true`, g.dir))
		}
		before := ours()
		for _, step := range []struct{ name, do, wait string }{
			{"made", fmt.Sprintf("ip link add cust4 type veth peer name eth0 netns %d", s.pid), "interface=cust4 role=customer path="},
			{"larger MTU", "ip link set cust4 mtu 1600", ""},
			{"smaller MTU", "ip link set cust4 mtu 1400", ""},
			{"down and up", "ip link set cust4 down; ip link set cust4 up", ""},
			{"made anew", fmt.Sprintf("ip link del cust4; ip link add cust4 type veth peer name eth0 netns %d", s.pid), "interface=cust4 role=customer path="},
			{"renamed within the pattern", "ip link set cust4 down; ip link set cust4 name cust5", "interface=cust5 role=customer path="},
			{"renamed back", "ip link set cust5 down; ip link set cust5 name cust4", "interface=cust4 role=customer path="},
			{"renamed beyond it", "ip link set cust4 down; ip link set cust4 name other", `msg="interface let go" interface=cust4`},
			{"and back", "ip link set other down; ip link set other name cust4", "interface=cust4 role=customer path="},
			{"moved away", fmt.Sprintf("ip link set cust4 netns %d", elsewhere.pid), `msg="interface let go" interface=cust4`},
		} {
			n := h.count()
			g.gw.sh(step.do)
			if step.wait != "" {
				h.wait(n, step.wait)
			}
			switch step.name {
			case "renamed beyond it", "moved away":
				if after := ours(); after != before {
					t.Errorf("%s: pins and qdiscs %q instead of %q", step.name, after, before)
				}
				continue
			}
			port := "cust4"
			if strings.HasPrefix(step.name, "renamed within") {
				port = "cust5"
			}
			g.behind(s, port, "eth0", 160)
			g.redirectedFrom(t, s, v4, v6)
		}
		if got := elsewhere.sh("tc qdisc show dev cust4"); strings.Contains(got, "clsact") || elsewhere.tcx(t, "cust4") != 0 {
			t.Errorf("in its new namespace the interface still has %q or a program", got)
		}
		n := h.count()
		elsewhere.sh(fmt.Sprintf("ip link set cust4 netns %d", g.gw.pid))
		h.wait(n, "interface=cust4 role=customer path=")
		g.behind(s, "cust4", "eth0", 160)
		g.redirectedFrom(t, s, v4, v6)
	})
}

// TestRecreatedUnderLoad makes a customer's interface anew again and again while he connects: what gets a greeting gets it
// from the proxy, never from the world.
func TestRecreatedUnderLoad(t *testing.T) {
	bothWays(t, func(t *testing.T, g *gateway, h *process) {
		s := newSpace(t, syscall.CLONE_NEWNET)
		var stop atomic.Bool
		var proxied, leaked, failed atomic.Int64
		done := make(chan struct{})
		const clients = 4
		for i := range clients {
			remote := []string{mx4, mx6}[i%2]
			go func() {
				defer func() { done <- struct{}{} }()
				for !stop.Load() {
					c, err := s.dial("", remote, 150*time.Millisecond)
					if err != nil {
						failed.Add(1)
						continue
					}
					c.SetDeadline(time.Now().Add(time.Second))
					b := make([]byte, 5)
					switch _, err := c.Read(b); {
					case err != nil:
						failed.Add(1)
					case strings.HasPrefix(string(b), "proxy"):
						proxied.Add(1)
					default:
						leaked.Add(1)
					}
					c.Close()
				}
			}()
		}
		for range 8 {
			n, was := h.count(), proxied.Load()
			g.gw.sh(fmt.Sprintf("ip link del cust6 2>/dev/null || true; ip link add cust6 type veth peer name eth0 netns %d", s.pid))
			g.behind(s, "cust6", "eth0", 192)
			h.wait(n, "interface=cust6 role=customer path=")
			for end := time.Now().Add(time.Minute); proxied.Load() < was+10 && time.Now().Before(end); {
				time.Sleep(time.Millisecond) // until the load runs through the new one
			}
		}
		stop.Store(true)
		for range clients {
			<-done
		}
		t.Logf("%d proxied, %d failed, %d leaked", proxied.Load(), failed.Load(), leaked.Load())
		if proxied.Load() < 80 || leaked.Load() > 0 {
			t.Error("the load was not served, or leaked")
		}
	})
}

// TestBoundToAName: a source that is bound to an interface follows its name, through every interface that bears it.
func TestBoundToAName(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "clsact"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t)
			g.mx()
			const v4, v6 = "192.0.2.162", "2001:db8:160::2"
			h := g.helper(g.config(fmt.Sprintf(`path = %q
[[intercept.port]]
port = 2525
interfaces = ["cust4"]
[[user]]
name = "bound"
prefixes = ["192.0.2.160/30", "2001:db8:160::/64"]
[[user.bind]]
interface = "cust4"`, path)))
			p := g.proxy()
			if got := p.ask("problems"); !strings.Contains(got, "192.0.2.160/30 is bound to interface cust4, which is not there: its mail is dropped") {
				t.Error(got)
			}
			s := newSpace(t, syscall.CLONE_NEWNET)
			refused := func(when string) {
				t.Helper()
				for local, remote := range map[string]string{v4 + ":0": mx4, "[" + v6 + "]:0": mx6} {
					if c, err := s.dial(local, remote, 300*time.Millisecond); err == nil {
						c.Close()
						t.Errorf("%s: %s was served", when, local)
					}
				}
			}
			attached := func(script, name string) {
				t.Helper()
				n := h.count()
				g.gw.sh(script)
				h.wait(n, "interface="+name+" role=customer path=")
				g.behind(s, name, "eth0", 160)
			}
			attached(fmt.Sprintf("ip link add cust5 type veth peer name eth0 netns %d", s.pid), "cust5")
			refused("by another interface")
			if got := p.ask("counter spoof_bind"); got == "0" {
				t.Error("not counted")
			}
			for range 2 {
				attached(fmt.Sprintf("ip link del cust5 2>/dev/null || ip link del cust4; ip link add cust4 type veth peer name eth0 netns %d", s.pid), "cust4")
				g.redirectedFrom(t, s, v4, v6)
				s.expect("", "198.51.100.25:2525", "proxy ")
			}
			attached("ip link set cust4 down; ip link set cust4 name cust6", "cust6")
			refused("renamed")
			if _, err := s.dial("", "198.51.100.25:2525", 300*time.Millisecond); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("port 2525 by another interface: %v", err)
			}
			attached("ip link set cust6 down; ip link set cust6 name cust4", "cust4")
			g.redirectedFrom(t, s, v4, v6)
			s.expect("", "198.51.100.25:2525", "proxy ")
			n := h.count()
			h.signal(syscall.SIGHUP)
			h.wait(n, "configuration reloaded")
			s.expect("", "198.51.100.25:2525", "proxy ")
			g.redirectedFrom(t, s, v4, v6)
		})
	}
}
