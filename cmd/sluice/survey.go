package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// nic is a network interface with what is routed there.
type nic struct {
	name       string
	kind       string // as the kernel calls it: device, veth, bridge, vlan, dummy …
	up, loop   bool
	master     string // "" or the interface that it is a part of
	masterKind string
	addrs      []netip.Prefix // global ones, with the length of their network
	routes     []netip.Prefix // networks behind it, but the default route
	default4   bool
	default6   bool
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
		n := &nic{name: a.Name, kind: l.Type(), up: a.Flags&net.FlagUp != 0, loop: a.Flags&net.FlagLoopback != 0}
		byIndex[a.Index] = n
		all = append(all, n)
	}
	for _, l := range links {
		if m := byIndex[l.Attrs().MasterIndex]; m != nil {
			byIndex[l.Attrs().Index].master, byIndex[l.Attrs().Index].masterKind = m.name, m.kind
		}
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
