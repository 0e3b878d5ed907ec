package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/bpf"
	"sluice/intercept/room"
)

// gateway forwards between cust0 and up0.
type gateway struct {
	*space
	client  *space // behind cust0
	server  *space // behind up0
	cust    int    // interface numbers
	up      int
	room    *room.Room // nil: the proxy's sockets are here
	door    bpf.Door
	arrived *ebpf.Map
	closers []func() error
}

// customerNets are routed to cust0, serverNets to up0.
var (
	customerNets = []string{"192.0.2.0/24", "198.18.0.0/15"}
	customerNet6 = []string{"2001:db8:1::/48", "2001:db8:2::/48", "2001:db8:8000::/33"}
)

func newGateway() (g *gateway, err error) {
	g = new(gateway)
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	for _, s := range []**space{&g.space, &g.client, &g.server} {
		if *s, err = newSpace(); err != nil {
			return g, err
		}
	}
	if err := errors.Join(wire(g.space, "cust0", g.client, "c0"), wire(g.space, "up0", g.server, "u0")); err != nil {
		return g, err
	}
	if err := g.client.run(func() error { return up("c0", "203.0.113.6/30", "2001:db8:fffe::2/64") }); err != nil {
		return g, err
	}
	if err := g.server.run(func() error { return up("u0", "203.0.113.2/30", "2001:db8:ffff::2/64") }); err != nil {
		return g, err
	}
	return g, g.run(func() error {
		if err := errors.Join(up("cust0", "203.0.113.5/30", "2001:db8:fffe::1/64"), up("up0", "203.0.113.1/30", "2001:db8:ffff::1/64")); err != nil {
			return err
		}
		cust, custErr := netlink.LinkByName("cust0")
		uplink, upErr := netlink.LinkByName("up0")
		if err := errors.Join(custErr, upErr); err != nil {
			return err
		}
		g.cust, g.up = cust.Attrs().Index, uplink.Attrs().Index
		return errors.Join(
			route("cust0", "203.0.113.6", customerNets...), route("cust0", "2001:db8:fffe::2", customerNet6...),
			route("up0", "203.0.113.2", "198.51.100.0/24"), route("up0", "2001:db8:ffff::2", "2001:db8:100::/64"))
	})
}

func (g *gateway) close() error {
	var errs []error
	for i := len(g.closers) - 1; i >= 0; i-- {
		errs = append(errs, g.closers[i]())
	}
	for _, s := range []*space{g.space, g.client, g.server} {
		if s != nil {
			s.close()
		}
	}
	return errors.Join(errs...)
}

// count puts a program behind up0 that counts what arrives, and drops it.
func (g *gateway) count() error {
	return g.server.run(g.countHere)
}

func (g *gateway) countHere() (err error) {
	if g.arrived, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
		return fmt.Errorf("could not make a counter: %w", err)
	}
	g.closers = append(g.closers, g.arrived.Close)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{
		asm.LoadMem(asm.R3, asm.R1, 16, asm.Word), // protocol
		asm.LoadMapValue(asm.R2, g.arrived.FD(), 0),
		asm.Mov.Imm(asm.R0, -1),
		asm.JEq.Imm(asm.R3, 0x0608, "out"), // ARP goes on
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R2, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 2), // TC_ACT_SHOT
		asm.Return().WithSymbol("out"),
	}})
	if err != nil {
		return fmt.Errorf("could not load the counting program: %w", err)
	}
	defer p.Close()
	dev, err := netlink.LinkByName("u0")
	if err != nil {
		return err
	}
	k, err := attach(dev.Attrs().Index, p)
	if err != nil {
		return err
	}
	g.closers = append(g.closers, k.Close)
	return nil
}

func (g *gateway) received() (uint64, error) {
	b, err := g.arrived.LookupBytes(uint32(0))
	if err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(b), nil
}

func attach(ifindex int, p *ebpf.Program) (link.Link, error) {
	k, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: p, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return nil, fmt.Errorf("could not attach a program to interface %d: %w", ifindex, err)
	}
	return k, nil
}

// emptyProgram is what a program costs that does nothing.
func emptyProgram() (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}})
}

// customer is one of many interfaces.
type customer struct {
	index int
	mac   net.HardwareAddr
}

// customers adds interfaces on top of cust0, which stands in for a trunk.
func (g *gateway) customers(n int) (list []customer, err error) {
	err = g.run(func() error {
		if err := sysctls("ipv6/conf/default/disable_ipv6", "1"); err != nil { // no talk of their own
			return err
		}
		for i := range n {
			mac := net.HardwareAddr{2, 0, 0, 1, byte(i >> 8), byte(i)}
			m := &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "cust0." + strconv.Itoa(i), ParentIndex: g.cust, HardwareAddr: mac}, Mode: netlink.MACVLAN_MODE_PRIVATE}
			if err := netlink.LinkAdd(m); err != nil {
				return fmt.Errorf("could not add customer interface %d: %w", i, err)
			}
			if err := netlink.LinkSetUp(m); err != nil {
				return err
			}
			list = append(list, customer{m.Attrs().Index, mac})
		}
		return nil
	})
	return list, err
}

// house gives the proxy's sockets a namespace of their own, as the helper does.
func (g *gateway) house(p *population) error {
	return g.run(func() (err error) {
		if g.room, err = room.New(); err != nil {
			return err
		}
		g.closers = append(g.closers, func() error { g.room.Close(); return nil })
		at, err := g.room.Furnish(room.Programs{Outer: p.Program(bpf.DoorIngress), Inner: p.Program(bpf.RoomIngress), TCX: true})
		if err != nil {
			return err
		}
		g.door = bpf.Door{Index: at.Index, Room: at.ID}
		return p.SetDoor(g.door)
	})
}

// sockets does f where the proxy's sockets are.
func (g *gateway) sockets(f func() error) error {
	if g.room == nil {
		return g.run(f)
	}
	return g.room.Do(f)
}

// connected leaves a socket of the proxy that has a customer's connection, without a word on the wire.
func (g *gateway) connected(k kind) error {
	return g.sockets(func() error {
		family, level, option := unix.AF_INET, unix.SOL_IP, unix.IP_TRANSPARENT
		var local, remote unix.Sockaddr = &unix.SockaddrInet4{Addr: server4.As4(), Port: int(k.dport)}, nil
		if k.v6 {
			family, level, option = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT
			local, remote = &unix.SockaddrInet6{Addr: server6.As16(), Port: int(k.dport)}, &unix.SockaddrInet6{Addr: k.from.As16(), Port: int(k.sport)}
		} else {
			remote = &unix.SockaddrInet4{Addr: k.from.As4(), Port: int(k.sport)}
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		g.closers = append(g.closers, func() error { return unix.Close(fd) })
		err = errors.Join(
			unix.SetsockoptInt(fd, level, option, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR, 1),
			unix.Bind(fd, local), unix.Connect(fd, remote))
		if err != nil {
			return fmt.Errorf("could not make a connection of %v out of nothing: %w", k.from, err)
		}
		return nil
	})
}
