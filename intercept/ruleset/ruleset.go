// Package ruleset computes what the host's routing must hold and where programs must stand, without touching anything.
package ruleset

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Protocol is the number by which the rules and routes of Sluice are known in the kernel (rt_protos); nothing else is
// ever changed or removed.
const Protocol = 125

// DoorAlias is how the interface is described that leads to the namespace of the proxy's sockets.
const DoorAlias = "sluice: door to the proxy's namespace"

// MainLocal is the kernel's own table of local addresses.
const MainLocal = 255

// Input is what the configuration says about routing.
type Input struct {
	Mark     uint32         // one bit: packets that go to the listener
	Table    uint32         // number of our routing table
	Priority uint32         // of the first of the three rules; the others are 10 and 20 higher
	Delivery []netip.Prefix // prefixes routed to this host that hold delivery addresses
}

// The actions of a Rule.
const (
	Goto   = "goto"
	Lookup = "lookup"
	Nop    = "nop"
)

// Rule is one policy rule.
type Rule struct {
	Family   int    // 4 or 6
	Priority uint32 //
	Iif      string // "" is any
	Mark     uint32 // compared under Mask; 0 is any
	Mask     uint32
	Action   string
	Target   uint32 // of goto: a priority; of lookup: a table
}

// String writes the rule as ip-rule(8) does.
func (r Rule) String() string {
	var b strings.Builder
	if r.Family == 6 {
		b.WriteString("-6 ")
	}
	fmt.Fprintf(&b, "rule pref %d", r.Priority)
	if r.Iif != "" {
		fmt.Fprintf(&b, " iif %s", r.Iif)
	}
	if r.Mask != 0 {
		fmt.Fprintf(&b, " fwmark %#x/%#x", r.Mark, r.Mask)
	}
	b.WriteString(" " + r.Action)
	if r.Action != Nop {
		fmt.Fprintf(&b, " %d", r.Target)
	}
	fmt.Fprintf(&b, " proto %d", Protocol)
	return b.String()
}

// Route is one route of type local through the loopback.
type Route struct {
	Dst   netip.Prefix
	Table uint32
}

// String writes the route as ip-route(8) does.
func (r Route) String() string {
	family := ""
	if r.Dst.Addr().Is6() {
		family = "-6 "
	}
	return fmt.Sprintf("%sroute local %v dev lo table %d proto %d", family, r.Dst, r.Table, Protocol)
}

// Sysctl is a setting that the gateway needs; Sluice reports a wrong one and leaves it to the operator.
type Sysctl struct {
	Key  string // below /proc/sys, with slashes
	Min  int
	Want string // the consequence when it is lower
}

// String names the setting as sysctl(8) does.
func (s Sysctl) String() string {
	return fmt.Sprintf("sysctl %s >= %d (%s)", strings.ReplaceAll(s.Key, "/", "."), s.Min, s.Want)
}

// Plan is the routing that must hold.
type Plan struct {
	Rules   []Rule
	Routes  []Route
	Sysctls []Sysctl
}

// Desired computes the plan. There are three rules per family for any number of interfaces, because every routed packet
// walks every rule: what the host itself sends skips ours, so that no sysctl about marks can turn its packets around.
func Desired(in Input) Plan {
	var p Plan
	for _, f := range []int{4, 6} {
		p.Rules = append(p.Rules,
			Rule{Family: f, Priority: in.Priority, Iif: "lo", Action: Goto, Target: in.Priority + 20},
			Rule{Family: f, Priority: in.Priority + 10, Mark: in.Mark, Mask: in.Mark, Action: Lookup, Target: in.Table},
			Rule{Family: f, Priority: in.Priority + 20, Action: Nop},
		)
	}
	p.Routes = []Route{
		{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Table: in.Table},
		{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Table: in.Table},
	}
	delivery := slices.Clone(in.Delivery)
	slices.SortFunc(delivery, ComparePrefix)
	for _, d := range slices.Compact(delivery) {
		p.Routes = append(p.Routes, Route{Dst: d, Table: MainLocal})
	}
	p.Sysctls = []Sysctl{
		{"net/ipv4/ip_forward", 1, "IPv4 is not forwarded at all"},
		{"net/ipv6/conf/all/forwarding", 1, "IPv6 is not forwarded at all"},
		{"net/core/somaxconn", 4096, "few connections may wait while the proxy restarts"},
		{"net/ipv4/tcp_max_syn_backlog", 4096, "handshakes fall back to SYN cookies early"},
	}
	return p
}

// WithRoom returns what is left of the plan where the proxy's sockets stand in a namespace of their own: no policy rule, and
// no route but those of delivery addresses.
func (p Plan) WithRoom() Plan {
	return Plan{Routes: slices.DeleteFunc(slices.Clone(p.Routes), func(r Route) bool { return r.Table != MainLocal }), Sysctls: p.Sysctls}
}

// ComparePrefix orders prefixes by address and then length.
func ComparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// Text writes the whole plan, one line each, for golden files and for the operator.
func (p Plan) Text() string {
	var b strings.Builder
	for _, r := range p.Rules {
		fmt.Fprintln(&b, r)
	}
	for _, r := range p.Routes {
		fmt.Fprintln(&b, r)
	}
	for _, s := range p.Sysctls {
		fmt.Fprintln(&b, s)
	}
	return b.String()
}
