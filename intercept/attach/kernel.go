// Package attach makes the kernel hold what package ruleset computed: policy rules, routes, and programs at interfaces.
//
// Everything of ours can be told from everything else without any memory: rules and routes by their protocol number,
// filters by handle and name, links by their pins. Nothing else is ever changed or removed.
package attach

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sluice/intercept/ruleset"
)

// Kernel speaks to the routing of the network namespace in which it was opened.
type Kernel struct {
	h      *netlink.Handle
	routes *netlink.Handle // lets the kernel filter dumps of routes: a gateway may hold a million of others
}

// Open opens the netlink sockets.
func Open() (*Kernel, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("could not open netlink: %w", err)
	}
	k := &Kernel{h: h}
	if k.routes, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		h.Close()
		return nil, fmt.Errorf("could not open netlink: %w", err)
	}
	if err := k.routes.SetStrictCheck(true); err != nil {
		k.Close()
		return nil, fmt.Errorf("could not set netlink to strict checking: %w; Linux 4.20 or later is needed", err)
	}
	return k, nil
}

// Close closes the sockets; the kernel's state stays.
func (k *Kernel) Close() {
	k.h.Close()
	k.routes.Close()
}

// families returns those that this kernel has.
func families() []int {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return []int{4}
	}
	return []int{4, 6}
}

func af(family int) int {
	if family == 6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// ApplyRouting adds what the plan holds and the kernel lacks and, if trim is set, then removes what is ours and not in
// the plan; between the two the data path can be moved from the old marks to the new. It returns the number of changes,
// and the conflicts with rules of others.
func (k *Kernel) ApplyRouting(p ruleset.Plan, trim bool) (changes int, conflicts []string, err error) {
	for _, f := range families() {
		n, foreign, err := k.applyRules(f, p.Rules, trim)
		changes += n
		if err != nil {
			return changes, conflicts, err
		}
		conflicts = append(conflicts, ruleset.Conflicts(firstOf(p), foreign)...)
		n, err = k.applyRoutes(f, p.Routes, trim)
		changes += n
		if err != nil {
			return changes, conflicts, err
		}
	}
	return changes, conflicts, nil
}

// firstOf returns the priority of the plan's first rule.
func firstOf(p ruleset.Plan) uint32 {
	first := ^uint32(0)
	for _, r := range p.Rules {
		first = min(first, r.Priority)
	}
	return first
}

// Conflicts names the rules of others that would disturb the plan, and changes nothing.
func (k *Kernel) Conflicts(p ruleset.Plan) ([]string, error) {
	var out []string
	for _, f := range families() {
		_, foreign, err := k.listRules(f)
		if err != nil {
			return nil, err
		}
		out = append(out, ruleset.Conflicts(firstOf(p), foreign)...)
	}
	return out, nil
}

// RemoveRouting removes every rule and route of ours.
func (k *Kernel) RemoveRouting() error {
	_, _, err := k.ApplyRouting(ruleset.Plan{}, true)
	return err
}

// listRules returns our rules of one family, and the others.
func (k *Kernel) listRules(family int) (ours []ruleset.Rule, foreign []ruleset.Foreign, err error) {
	have, err := dump(func() ([]netlink.Rule, error) { return k.h.RuleList(af(family)) })
	if err != nil {
		return nil, nil, fmt.Errorf("could not list the IPv%d rules: %w", family, err)
	}
	for _, r := range have {
		if r.Protocol == ruleset.Protocol {
			ours = append(ours, planRule(family, r))
		} else {
			foreign = append(foreign, ruleset.Foreign{Family: family, Priority: uint32(r.Priority), Text: ruleText(r)})
		}
	}
	return ours, foreign, nil
}

// applyRules makes our rules of one family those of the plan and returns the rules of others.
func (k *Kernel) applyRules(family int, want []ruleset.Rule, trim bool) (changes int, foreign []ruleset.Foreign, err error) {
	ours, foreign, err := k.listRules(family)
	if err != nil {
		return 0, nil, err
	}
	for _, w := range want {
		if w.Family != family || slices.Contains(ours, w) {
			continue
		}
		if err := k.h.RuleAdd(kernelRule(w)); err != nil && !errors.Is(err, unix.EEXIST) {
			return changes, foreign, fmt.Errorf("could not add %v: %w", w, err)
		}
		changes++
	}
	if !trim {
		return changes, foreign, nil
	}
	for i, r := range ours {
		if slices.Contains(want, r) && !slices.Contains(ours[:i], r) {
			continue
		}
		if err := k.h.RuleDel(kernelRule(r)); err != nil && !errors.Is(err, unix.ENOENT) {
			return changes, foreign, fmt.Errorf("could not remove %v: %w", r, err)
		}
		changes++
	}
	return changes, foreign, nil
}

// planRule reads a rule of ours back. The library does not tell the action, but each of ours has a shape of its own.
func planRule(family int, r netlink.Rule) ruleset.Rule {
	p := ruleset.Rule{Family: family, Priority: uint32(r.Priority), Iif: r.IifName, Mark: r.Mark}
	if r.Mask != nil {
		p.Mask = *r.Mask
	}
	switch {
	case r.Goto > 0:
		p.Action, p.Target = ruleset.Goto, uint32(r.Goto)
	case r.Table > 0:
		p.Action, p.Target = ruleset.Lookup, uint32(r.Table)
	default:
		p.Action = ruleset.Nop
	}
	return p
}

func kernelRule(p ruleset.Rule) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.IifName, r.Protocol = af(p.Family), int(p.Priority), p.Iif, ruleset.Protocol
	if p.Mask != 0 {
		mask := p.Mask
		r.Mark, r.Mask = p.Mark, &mask
	}
	switch p.Action {
	case ruleset.Goto:
		r.Goto, r.Type = int(p.Target), nl.FR_ACT_GOTO
	case ruleset.Lookup:
		r.Table, r.Type = int(p.Target), nl.FR_ACT_TO_TBL
	case ruleset.Nop:
		r.Type = nl.FR_ACT_NOP
	}
	return r
}

func ruleText(r netlink.Rule) string {
	var b strings.Builder
	b.WriteString("from ")
	if r.Src == nil {
		b.WriteString("all")
	} else {
		b.WriteString(r.Src.String())
	}
	if r.IifName != "" {
		b.WriteString(" iif " + r.IifName)
	}
	if r.Mark != 0 {
		fmt.Fprintf(&b, " fwmark %#x", r.Mark)
	}
	if r.Table > 0 {
		fmt.Fprintf(&b, " lookup %d", r.Table)
	}
	return b.String()
}

// applyRoutes makes our routes of one family those of the plan.
func (k *Kernel) applyRoutes(family int, want []ruleset.Route, trim bool) (changes int, err error) {
	filter := &netlink.Route{Protocol: ruleset.Protocol}
	have, err := dump(func() ([]netlink.Route, error) {
		return k.routes.RouteListFiltered(af(family), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return 0, fmt.Errorf("could not list our IPv%d routes: %w", family, err)
	}
	ours := make(map[ruleset.Route]bool)
	for _, r := range have {
		if p, ok := planRoute(family, r); ok && r.Type == unix.RTN_LOCAL {
			ours[p] = true
		}
	}
	lo, err := k.h.LinkByName("lo")
	if err != nil {
		return 0, fmt.Errorf("could not find the loopback: %w", err)
	}
	wanted := make(map[ruleset.Route]bool)
	for _, w := range want {
		if w.Dst.Addr().Is4() != (family == 4) {
			continue
		}
		wanted[w] = true
		if ours[w] {
			continue
		}
		if err := k.h.RouteReplace(kernelRoute(w, lo.Attrs().Index)); err != nil {
			return changes, fmt.Errorf("could not add %v: %w; is the loopback up?", w, err)
		}
		changes++
	}
	for r := range ours {
		if wanted[r] || !trim {
			continue
		}
		if err := k.h.RouteDel(kernelRoute(r, lo.Attrs().Index)); err != nil && !errors.Is(err, unix.ESRCH) {
			return changes, fmt.Errorf("could not remove %v: %w", r, err)
		}
		changes++
	}
	return changes, nil
}

func planRoute(family int, r netlink.Route) (ruleset.Route, bool) {
	p := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if family == 6 {
		p = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if r.Dst != nil {
		var ok bool
		if p, ok = prefixOf(r.Dst, family); !ok {
			return ruleset.Route{}, false
		}
	}
	return ruleset.Route{Dst: p, Table: uint32(r.Table)}, true
}

func prefixOf(n *net.IPNet, family int) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	if family == 4 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, ones), ok
}

func kernelRoute(r ruleset.Route, lo int) *netlink.Route {
	family := netlink.FAMILY_V6
	if r.Dst.Addr().Is4() {
		family = netlink.FAMILY_V4
	}
	return &netlink.Route{
		Family: family, LinkIndex: lo, Table: int(r.Table), Protocol: ruleset.Protocol, Type: unix.RTN_LOCAL,
		Scope: netlink.SCOPE_HOST,
		Dst:   &net.IPNet{IP: r.Dst.Addr().AsSlice(), Mask: net.CIDRMask(r.Dst.Bits(), r.Dst.Addr().BitLen())},
	}
}

// Local returns every address and prefix that the kernel delivers to this host, ours included.
func (k *Kernel) Local() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, f := range families() {
		filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}
		routes, err := dump(func() ([]netlink.Route, error) {
			return k.routes.RouteListFiltered(af(f), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		})
		if err != nil {
			return nil, fmt.Errorf("could not list the local IPv%d addresses: %w", f, err)
		}
		for _, r := range routes {
			if p, ok := planRoute(f, r); ok && p.Dst.Bits() > 0 {
				out = append(out, p.Dst)
			}
		}
	}
	slices.SortFunc(out, ruleset.ComparePrefix)
	return slices.Compact(out), nil
}

// Reaches tells by which interface a packet to a would leave; false when there is no route or it is this host.
func (k *Kernel) Reaches(a netip.Addr) (ifindex int, ok bool) {
	routes, err := k.h.RouteGet(a.AsSlice())
	if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_UNICAST {
		return 0, false
	}
	return routes[0].LinkIndex, true
}

// CheckSysctls names the settings that are lower than the plan wants.
func CheckSysctls(p ruleset.Plan) []string {
	var out []string
	for _, s := range p.Sysctls {
		b, err := os.ReadFile(filepath.Join("/proc/sys", s.Key))
		if err != nil {
			continue // a family or a setting that this kernel does not have
		}
		if v, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && v < s.Min {
			key := strings.ReplaceAll(s.Key, "/", ".")
			out = append(out, fmt.Sprintf("%s is %d: %s; sysctl -w %s=%d", key, v, s.Want, key, s.Min))
		}
	}
	return out
}
