package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/intercept/ruleset"
)

// nic is a network interface with what is routed there.
type nic struct {
	name     string
	kind     string // as the kernel calls it: device, veth, bridge, vlan, dummy …
	up       bool
	refused  string         // why no program could stand there
	addrs    []netip.Prefix // global ones, with the length of their network
	routes   []netip.Prefix // networks behind it, but the default route
	default4 bool
	default6 bool
}

// survey lists the interfaces of this host, in their order, with addresses and the routes of the main table.
func survey() ([]*nic, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("could not list the interfaces: %w", err)
	}
	byIndex := map[int]*nic{}
	var all []*nic
	for _, l := range links {
		a := l.Attrs()
		n := &nic{name: a.Name, kind: l.Type(), up: a.Flags&net.FlagUp != 0, refused: refused(l, links)}
		byIndex[a.Index] = n
		all = append(all, n)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if err := addAddresses(byIndex, family); err != nil {
			return nil, err
		}
		if err := addRoutes(byIndex, family); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// refused is why sluice-intercept would not take an interface, "" where it would.
func refused(l netlink.Link, all []netlink.Link) string {
	a := l.Attrs()
	seat := ruleset.Link{Index: a.Index, Name: a.Name, Kind: l.Type()}
	seat.SetHeader(a.EncapType)
	if g, ok := l.(*netlink.Gretun); ok {
		seat.Outer = seat.Raw && !g.FlowBased && (g.Remote == nil || g.Remote.IsUnspecified())
	}
	if a.MasterIndex != 0 {
		at := slices.IndexFunc(all, func(m netlink.Link) bool { return m.Attrs().Index == a.MasterIndex })
		if seat.Master, seat.Over = "?", "its master"; at >= 0 {
			seat.Master, seat.Over = all[at].Type(), all[at].Attrs().Name
		}
	}
	return ruleset.Seats([]ruleset.Link{seat}, []string{"*"}, nil)[0].Refused
}

func addAddresses(byIndex map[int]*nic, family int) error {
	as, err := netlink.AddrList(nil, family)
	if err != nil {
		return fmt.Errorf("could not list the addresses: %w", err)
	}
	for _, a := range as {
		if n := byIndex[a.LinkIndex]; n != nil {
			if p, ok := prefixOf(a.IPNet); ok && global(p.Addr()) {
				n.addrs = append(n.addrs, p)
			}
		}
	}
	return nil
}

func addRoutes(byIndex map[int]*nic, family int) error {
	rs, err := netlink.RouteList(nil, family)
	if err != nil {
		return fmt.Errorf("could not list the routes: %w", err)
	}
	for _, r := range rs {
		hops := []int{r.LinkIndex}
		for _, h := range r.MultiPath {
			hops = append(hops, h.LinkIndex)
		}
		p, ok := prefixOf(r.Dst)
		for _, h := range hops {
			n := byIndex[h]
			switch {
			case n == nil || r.Type != unix.RTN_UNICAST:
			case r.Dst == nil || ok && p.Bits() == 0:
				n.default4 = n.default4 || family == unix.AF_INET
				n.default6 = n.default6 || family == unix.AF_INET6
			case ok && global(p.Addr()) && !slices.Contains(n.routes, p):
				n.routes = append(n.routes, p)
			}
		}
	}
	return nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits), ok
}

// global tells addresses that can send mail from those that only one link or this host knows.
func global(a netip.Addr) bool { return a.IsGlobalUnicast() && !a.IsLinkLocalUnicast() }
