//go:build nettest

package room

import (
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// gateway runs f in a namespace of its own, which vanishes with the test.
func gateway(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		defer func() { done <- err }()
		if err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		t.Fatalf("could not make a network namespace: %v; run as root", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// idle are programs that let everything go on.
func idle(t *testing.T) Programs {
	t.Helper()
	return Programs{Outer: named(t, "outer"), Inner: named(t, "inner")}
}

func named(t *testing.T, name string) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}})
	must(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

func furnished(t *testing.T, r *Room, p Programs) Door {
	t.Helper()
	d, err := r.Furnish(p)
	must(t, err)
	outer, err := netlink.LinkByIndex(d.Index)
	must(t, err)
	if outer.Attrs().Flags&net.FlagUp == 0 || outer.Type() != "veth" {
		t.Errorf("the door is %+v", outer.Attrs())
	}
	must(t, r.Do(func() error {
		for to, from := range map[string]string{"198.51.100.25": "192.0.2.10", "2001:db8:100::25": "2001:db8:1::10"} {
			in, err := netlink.RouteGetWithOptions(net.ParseIP(to), &netlink.RouteGetOptions{Iif: innerName, SrcAddr: net.ParseIP(from)})
			if err != nil || len(in) != 1 || in[0].Type != unix.RTN_LOCAL {
				t.Errorf("what comes in for %s goes %+v, %v; want it local", to, in, err)
			}
			out, err := netlink.RouteGet(net.ParseIP(from))
			if err != nil || len(out) != 1 || out[0].Type != unix.RTN_UNICAST {
				t.Errorf("what leaves for %s goes %+v, %v; want it out", from, out, err)
			}
		}
		return nil
	}))
	return d
}

func TestFurnish(t *testing.T) {
	t.Parallel()
	p := idle(t)
	gateway(t, func() {
		must(t, os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte("2"), 0o644))
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "sluice0"}, PeerName: "other"})) // somebody else's
		r, err := New()
		must(t, err)
		defer r.Close()
		d := furnished(t, r, p)
		if again := furnished(t, r, p); again != d {
			t.Errorf("furnished again the door is %+v instead of %+v", again, d)
		}
		must(t, r.Do(func() error {
			b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_syncookies")
			if strings.TrimSpace(string(b)) != "2" {
				t.Errorf("tcp_syncookies is %q in the room, 2 outside: %v", b, err)
			}
			return nil
		}))

		other, err := netlink.LinkByName("other")
		must(t, err)
		must(t, netlink.LinkSetMTU(other, 9000))
		furnished(t, r, p)
		outer, err := netlink.LinkByIndex(d.Index)
		must(t, err)
		if outer.Attrs().MTU != 9000 {
			t.Errorf("beside an MTU of 9000 the door's is %d", outer.Attrs().MTU)
		}

		must(t, netlink.LinkDel(outer))
		if anew := furnished(t, r, p); anew.ID != d.ID {
			t.Errorf("with another door the room's number is %d instead of %d", anew.ID, d.ID)
		}
		must(t, RemoveDoors(0))
		left, err := netlink.LinkList()
		must(t, err)
		if len(left) != 3 { // lo and somebody else's two
			t.Errorf("%d interfaces are left", len(left))
		}
	})
}

// TestOf: whoever holds a socket of the room finds the way there.
func TestOf(t *testing.T) {
	t.Parallel()
	p := idle(t)
	gateway(t, func() {
		r, err := New()
		must(t, err)
		d := furnished(t, r, p)
		var inside net.Listener
		must(t, r.Do(func() (err error) { inside, err = net.Listen("tcp4", "127.0.0.1:0"); return err }))
		defer inside.Close()
		r.Close()
		r.Close()
		if err := r.Do(func() error { return nil }); err == nil {
			t.Error("something is done in a room that was let go of")
		}
		same, err := Of(inside.(syscall.Conn))
		must(t, err)
		defer same.Close()
		if got := furnished(t, same, p); got != d {
			t.Errorf("by a socket of the room the door is %+v instead of %+v", got, d)
		}
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		must(t, netlink.LinkSetUp(lo))
		here, err := net.Listen("tcp4", "127.0.0.1:0")
		must(t, err)
		defer here.Close()
		if r, err := Of(here.(syscall.Conn)); r != nil || err != nil {
			t.Errorf("a socket of the gateway's own leads to %v, %v", r, err)
		}
	})
}
