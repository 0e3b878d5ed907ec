package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/intercept/ruleset"
)

// routes asks the kernel about routing.
type routes interface {
	// local reports whether packets to a are for this host.
	local(a netip.Addr) (bool, error)
	// towards names the interface by which packets to a leave.
	towards(a netip.Addr) (string, error)
	// policy lists the rules of a family: those of Sluice, and the others.
	policy(family int) (ours []ruleset.Rule, foreign []ruleset.Foreign, err error)
	// diverts reports whether a table delivers everything of a family to this host.
	diverts(table, family int) (bool, error)
	// doors names the interfaces that lead to a namespace of the proxy's sockets, and tells whether they are up.
	doors() (map[string]bool, error)
	// links are the interfaces' names with their MTU.
	links() (map[string]int, error)
}

// delivery checks that intercepted packets get to the proxy. Where its sockets stand in a namespace of their own neither
// policy rules nor this host's firewall have a say, and the list is shorter.
func (h *host) delivery(ctx context.Context, cfg *config.Config) []api.Finding {
	if h.path == pathNFT || h.anyRule() {
		return append(h.policyRouting(cfg), h.firewall(ctx, cfg)...)
	}
	f := api.Finding{Check: "way to the proxy", State: api.OK}
	doors, err := h.routes.doors()
	names := slices.Sorted(maps.Keys(doors))
	switch {
	case err != nil:
		f.State, f.Text = api.Warn, "interfaces could not be listed: "+err.Error()
	case len(doors) == 0:
		f.State, f.Text = api.Fail, "there is neither the interface that leads to the namespace of its sockets nor a policy rule"
		f.Remedy = "systemctl restart sluice-intercept; where it vanishes again, another program removes interfaces: look at its configuration"
	case slices.ContainsFunc(names, func(n string) bool { return !doors[n] }):
		f.State, f.Text = api.Fail, names[0]+", which leads to the namespace of its sockets, is down"
		f.Remedy = "ip link set " + names[0] + " up"
	default:
		f.Text = names[0] + " leads to the namespace of its sockets; no policy rule is needed"
	}
	return []api.Finding{f, h.marks(cfg, true)}
}

// anyRule tells whether a policy rule is ours.
func (h *host) anyRule() bool {
	for _, family := range []int{4, 6} {
		if ours, _, err := h.routes.policy(family); err == nil && len(ours) > 0 {
			return true
		}
	}
	return false
}

// policyRouting checks that intercepted packets get to this host, whatever others do with rules and marks.
func (h *host) policyRouting(cfg *config.Config) []api.Finding {
	in := ruleset.Input{Mark: cfg.Intercept.Mark, Table: cfg.Intercept.Table, Priority: cfg.Intercept.RulePriority}
	want := ruleset.Desired(in).Rules
	var fs []api.Finding
	whole := true
	for _, family := range []int{4, 6} {
		f := api.Finding{Check: fmt.Sprintf("policy routing IPv%d", family), State: api.OK, Text: fmt.Sprintf("mark %#x leads to table %d and to this host", in.Mark, in.Table)}
		ours, foreign, err := h.routes.policy(family)
		missing := absent(want, ours, family)
		diverts, derr := h.routes.diverts(int(in.Table), family)
		conflicts := ruleset.Conflicts(in.Priority, foreign)
		switch {
		case err != nil:
			f.State, f.Text = api.Fail, "rules could not be listed: "+err.Error()
		case len(missing) > 0:
			f.State, f.Text = api.Fail, "missing: "+strings.Join(missing, "; ")
			f.Remedy = "systemctl restart sluice-intercept; where they vanish again, another program flushes `ip rule`: look at its configuration"
		case derr != nil || !diverts:
			f.State, f.Text = api.Fail, fmt.Sprintf("table %d does not deliver to this host", in.Table)
			f.Remedy = "systemctl restart sluice-intercept; where it vanishes again, another program flushes routes"
		case len(conflicts) > 0:
			f.State = api.Warn
			f.Text, f.Remedy, _ = strings.Cut(conflicts[0], "; ")
		}
		whole = whole && len(missing) == 0
		fs = append(fs, f)
	}
	return append(fs, h.marks(cfg, whole))
}

// absent names the wanted rules of a family that are not there.
func absent(want, have []ruleset.Rule, family int) (missing []string) {
	for _, w := range want {
		if w.Family == family && !slices.Contains(have, w) {
			missing = append(missing, w.String())
		}
	}
	return missing
}

// marks looks at the settings that have broken other transparent proxies. Behind the rule for the host's own packets they
// harm nobody, whatever their value; without it they turn our answers around.
func (h *host) marks(cfg *config.Config, ruled bool) api.Finding {
	f := api.Finding{Check: "sysctls about marks", State: api.OK}
	var set []string
	for _, path := range []string{"net/ipv4/conf/all/src_valid_mark", "net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect", "net/ipv6/fwmark_reflect"} {
		if h.number(path) > 0 {
			set = append(set, strings.ReplaceAll(path, "/", "."))
		}
	}
	strict := h.strict(cfg)
	switch {
	case len(set) > 0 && !ruled:
		f.State, f.Text = api.Fail, strings.Join(set, ", ")+" turn the proxy's own packets around while rules are missing"
		f.Remedy = "systemctl restart sluice-intercept"
	case len(strict) > 1:
		f.State, f.Text = api.Warn, "rp_filter is 1 on several uplinks ("+strings.Join(strict, ", ")+"): answers that come back by another one are dropped"
		f.Remedy = "sysctl -w net.ipv4.conf.all.rp_filter=2, and in /etc/sysctl.d/ for good"
	case len(set) > 0:
		f.Text = strings.Join(set, ", ") + " are on, which is harmless"
	default:
		f.Text = "all off"
	}
	return f
}

// strict names the uplinks that drop what would not be answered by the same way (RFC 3704 2.2).
func (h *host) strict(cfg *config.Config) (names []string) {
	links, err := h.routes.links()
	if err != nil {
		return nil // interfaces says so
	}
	all := h.number("net/ipv4/conf/all/rp_filter")
	for _, name := range slices.Sorted(maps.Keys(links)) {
		if named(cfg.Intercept.Uplinks, name) && max(all, h.number("net/ipv4/conf/"+name+"/rp_filter")) == 1 {
			names = append(names, name)
		}
	}
	return names
}

// interfaces checks what the patterns name now.
func (h *host) interfaces(cfg *config.Config) []api.Finding {
	links, err := h.routes.links()
	if err != nil {
		return []api.Finding{{Check: "interfaces", State: api.Warn, Text: "could not be listed: " + err.Error()}}
	}
	var fs, wide []api.Finding
	up := 1 << 30
	counts := map[string]int{}
	for _, role := range []struct {
		name     string
		patterns []string
	}{{uplink, cfg.Intercept.Uplinks}, {customer, cfg.Intercept.CustomerInterfaces}} {
		for _, p := range role.patterns {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(links)), func(name string) bool { return named([]string{p}, name) }) {
				fs = append(fs, api.Finding{Check: "interface " + p, State: api.Warn, Text: "no " + role.name + " interface has that name now",
					Remedy: "it is attached as it appears; `ip link` lists what there is, `sluice setup --dry-run` what to name"})
			}
		}
		for _, name := range slices.Sorted(maps.Keys(links)) {
			if !named(role.patterns, name) {
				continue
			}
			counts[role.name]++
			if mtu := links[name]; role.name == uplink {
				up = min(up, mtu)
			} else if mtu > up {
				wide = append(wide, api.Finding{Check: "interface " + name, State: api.Warn, Text: fmt.Sprintf("MTU %d is larger than the uplink's %d", mtu, up),
					Remedy: fmt.Sprintf("ip link set %s mtu %d, or let ICMP errors through: forwarded connections depend on path MTU discovery", name, up)})
			}
		}
	}
	if counts[uplink] > 0 && counts[customer] > 0 {
		fs = append(fs, api.Finding{Check: "interfaces", State: api.OK, Text: fmt.Sprintf("%s, %s",
			count(counts[uplink], "uplink", "uplinks"), count(counts[customer], "customer interface", "customer interfaces"))})
	}
	return append(fs, some(wide)...)
}

// mostRouted bounds the prefixes whose route is looked up.
const mostRouted = 20_000

// userRoutes checks that the configured users are behind customer interfaces: mail that comes by another way is not seen.
func (h *host) userRoutes(cfg *config.Config) []api.Finding {
	var lost []api.Finding
	asked := 0
	for _, u := range cfg.User {
		for _, p := range u.Prefixes {
			if asked++; asked > mostRouted {
				break
			}
			a := p.Addr()
			if !p.IsSingleIP() {
				a = a.Next() // the first address of a network may be its own broadcast
			}
			dev, err := h.routes.towards(a)
			if err == nil && named(cfg.Intercept.CustomerInterfaces, dev) {
				continue
			}
			text := fmt.Sprintf("%s is routed to %s, which is no customer interface: its mail is not seen", p, dev)
			if err != nil {
				text = fmt.Sprintf("%s is routed nowhere: %v", p, err)
			}
			lost = append(lost, api.Finding{Check: "user " + u.Name, State: api.Warn, Text: text,
				Remedy: fmt.Sprintf("ip route get %s; then correct the route, intercept.customer_interfaces, or the user's prefixes", a)})
		}
	}
	if len(lost) == 0 && asked > 0 {
		return []api.Finding{{Check: "routes to users", State: api.OK, Text: count(asked, "prefix is", "prefixes are") + " behind customer interfaces"}}
	}
	return some(lost)
}

// kernelRoutes asks by netlink, which needs no privilege.
type kernelRoutes struct {
	names map[int]string // of interfaces, read once: each look by number costs a look at all of them
}

func (*kernelRoutes) local(a netip.Addr) (bool, error) {
	rs, err := netlink.RouteGet(a.AsSlice())
	if err != nil {
		return false, err
	}
	return len(rs) > 0 && rs[0].Type == unix.RTN_LOCAL, nil
}

func (k *kernelRoutes) towards(a netip.Addr) (string, error) {
	rs, err := netlink.RouteGet(a.AsSlice())
	if err != nil || len(rs) == 0 {
		return "", err
	}
	if k.names == nil {
		ls, err := net.Interfaces()
		if err != nil {
			return "", err
		}
		k.names = make(map[int]string, len(ls))
		for _, l := range ls {
			k.names[l.Index] = l.Name
		}
	}
	if name, ok := k.names[rs[0].LinkIndex]; ok {
		return name, nil
	}
	return fmt.Sprintf("interface number %d", rs[0].LinkIndex), nil
}

func (*kernelRoutes) policy(family int) (ours []ruleset.Rule, foreign []ruleset.Foreign, err error) {
	rules, err := netlink.RuleList(af(family))
	for _, r := range rules {
		if r.Protocol != ruleset.Protocol {
			text := fmt.Sprintf("table %d", r.Table)
			if r.Src != nil {
				text = "from " + r.Src.String() + " " + text
			}
			foreign = append(foreign, ruleset.Foreign{Family: family, Priority: uint32(max(r.Priority, 0)), Text: text})
			continue
		}
		o := ruleset.Rule{Family: family, Priority: uint32(r.Priority), Iif: r.IifName, Mark: r.Mark, Action: ruleset.Nop}
		if r.Mask != nil {
			o.Mask = *r.Mask
		}
		switch { // the library does not tell the action
		case r.Goto > 0:
			o.Action, o.Target = ruleset.Goto, uint32(r.Goto)
		case r.Table > 0:
			o.Action, o.Target = ruleset.Lookup, uint32(r.Table)
		}
		ours = append(ours, o)
	}
	return ours, foreign, err
}

func (*kernelRoutes) diverts(table, family int) (bool, error) {
	rs, err := netlink.RouteListFiltered(af(family), &netlink.Route{Table: table, Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	return len(rs) > 0, err
}

func (*kernelRoutes) doors() (map[string]bool, error) {
	ls, err := netlink.LinkList()
	m := make(map[string]bool)
	for _, l := range ls {
		if l.Attrs().Alias == ruleset.DoorAlias {
			m[l.Attrs().Name] = l.Attrs().Flags&net.FlagUp != 0
		}
	}
	return m, err
}

func (*kernelRoutes) links() (map[string]int, error) {
	ls, err := net.Interfaces()
	m := make(map[string]int, len(ls))
	for _, l := range ls {
		m[l.Name] = l.MTU
	}
	return m, err
}

func af(family int) int {
	if family == 4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
