package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// space is a nameless network namespace with a thread of its own; it vanishes with the process.
type space struct {
	handle netns.NsHandle
	work   chan func()
	done   chan struct{}
}

func newSpace() (*space, error) {
	s := &space{work: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var err error
		s.handle, err = netns.New()
		if err != nil {
			err = fmt.Errorf("could not make a network namespace: %w; run as root", err)
		}
		ready <- err
		for f := range s.work {
			f()
		}
		close(s.done)
	}()
	if err := <-ready; err != nil {
		close(s.work)
		return nil, err
	}
	return s, s.run(func() error {
		return errors.Join(
			sysctls("ipv4/ip_forward", "1", "ipv6/conf/all/forwarding", "1", "ipv6/conf/default/accept_dad", "0",
				"ipv4/conf/all/rp_filter", "0", "ipv4/conf/default/rp_filter", "0", "ipv4/conf/all/send_redirects", "0",
				"ipv4/icmp_ratelimit", "0", "ipv4/ip_local_port_range", "2048 65535"),
			up("lo"))
	})
}

// run does f in the namespace, on its thread.
func (s *space) run(f func() error) error {
	result := make(chan error)
	s.work <- func() { result <- f() }
	return <-result
}

func (s *space) close() {
	close(s.work)
	<-s.done
	_ = s.handle.Close() // a descriptor; the namespace went with its last user
}

func sysctls(pairs ...string) error {
	var errs []error
	for i := 0; i < len(pairs); i += 2 {
		errs = append(errs, os.WriteFile("/proc/sys/net/"+pairs[i], []byte(pairs[i+1]), 0o644))
	}
	return errors.Join(errs...)
}

func up(name string, addresses ...string) error {
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("could not find interface %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(dev); err != nil {
		return fmt.Errorf("could not bring up interface %s: %w", name, err)
	}
	for _, s := range addresses {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(dev, a); err != nil {
			return fmt.Errorf("could not give %s to %s: %w", s, name, err)
		}
	}
	return nil
}

// wire joins two namespaces by a pair of interfaces; the Ethernet addresses are fixed, so that packets can be written.
func wire(a *space, an string, b *space, bn string) error {
	return a.run(func() error {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: an, HardwareAddr: gatewayMAC}, PeerName: bn, PeerHardwareAddr: farMAC, PeerNamespace: netlink.NsFd(int(b.handle))}
		if err := netlink.LinkAdd(v); err != nil {
			return fmt.Errorf("could not join two namespaces by %s: %w", an, err)
		}
		return nil
	})
}

// route sends prefixes out of an interface to a neighbour that needs no asking.
func route(name, via string, prefixes ...string) error {
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	gateway := net.ParseIP(via)
	if err := neighbour(name, via, farMAC); err != nil {
		return err
	}
	for _, p := range prefixes {
		_, dst, err := net.ParseCIDR(p)
		if err == nil {
			err = netlink.RouteReplace(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: dst, Gw: gateway})
		}
		if err != nil {
			return fmt.Errorf("could not route %s to %s: %w", p, name, err)
		}
	}
	return nil
}

// neighbour says once and for all which Ethernet address a neighbour has.
func neighbour(name, address string, mac net.HardwareAddr) error {
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	err = netlink.NeighSet(&netlink.Neigh{LinkIndex: dev.Attrs().Index, IP: net.ParseIP(address), HardwareAddr: mac, State: netlink.NUD_PERMANENT})
	if err != nil {
		return fmt.Errorf("could not set neighbour %s: %w", address, err)
	}
	return nil
}

// policy sends what carries the intercept mark to local delivery, as the helper does: three rules for a family, whatever
// the number of interfaces.
func policy() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, r := range policyRules() {
		if err := netlink.RuleAdd(r); err != nil {
			return fmt.Errorf("could not add a policy rule: %w", err)
		}
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		_, dst, err := net.ParseCIDR(all)
		if err != nil {
			return err
		}
		err = netlink.RouteReplace(&netlink.Route{Dst: dst, LinkIndex: lo.Attrs().Index, Table: 100, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST})
		if err != nil {
			return fmt.Errorf("could not add the local route: %w", err)
		}
	}
	return nil
}

func policyRules() (list []*netlink.Rule) {
	mask := uint32(interceptMark)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		skip, mark, end := netlink.NewRule(), netlink.NewRule(), netlink.NewRule()
		end.Priority, end.Type = 110, unix.FR_ACT_NOP
		skip.Priority, skip.IifName, skip.Goto = 90, "lo", 110
		mark.Priority, mark.Mark, mark.Mask, mark.Table = 100, interceptMark, &mask, 100
		for _, r := range []*netlink.Rule{end, skip, mark} {
			r.Family = family
			list = append(list, r)
		}
	}
	return list
}

// routeVia routes prefixes over a neighbour that is asked for in the usual way.
func routeVia(name, via string, prefixes ...string) error {
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, p := range prefixes {
		_, dst, err := net.ParseCIDR(p)
		if err == nil {
			err = netlink.RouteReplace(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: dst, Gw: net.ParseIP(via)})
		}
		if err != nil {
			return fmt.Errorf("could not route %s to %s: %w", p, name, err)
		}
	}
	return nil
}

// inSpaceOf does f in the namespace on a thread of its own, beside what run does.
func inSpaceOf(s *space, all *sync.WaitGroup, f func() error, result *error) {
	defer all.Done()
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if *result = netns.Set(s.handle); *result == nil {
		*result = f()
	}
}

func prefix32(a string) netip.Prefix { return netip.PrefixFrom(netip.MustParseAddr(a), 32) }
