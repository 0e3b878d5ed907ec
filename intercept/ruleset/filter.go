package ruleset

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"text/template"
)

// FilterTable is the one nftables table of Sluice, of family inet.
const FilterTable = "sluice"

// Filter is the packet filter of the path without BPF. Which addresses and interfaces it means stands in its sets, which
// change while it is in force.
type Filter struct {
	Mark, JudgedMark uint32 // one bit each
	Port             uint16 // of the listening socket
	Ports            []FilterPort
	Default          string // chain of unknown sources, one of FilterModes
	ReversePath      bool
	Budgets          []int // connections per minute in which a lock is explained, each that occurs
	PerSecond        int   // connections per second that the proxy gets from one unknown address (of IPv6 one /64); 0: all
	Rates            []int // all such rates that occur, PerSecond among them
}

// FilterPort is one mail port.
type FilterPort struct {
	Port    uint16
	Verdict string // "" as for port 25; "pass" or "reject" whatever the source's mode
}

// FilterModes are the chains in which a source's or an exempt destination's mode ends, without the family's number.
var FilterModes = []string{"pass", "observed", "intercept", "reject", "drop"}

// openCap is how many SYNs per minute an address may send past a proxy that is away.
const openCap = 30

// FilterCounters name the counters, by the reasons that the BPF programs have, too.
var FilterCounters = []string{
	"established", "old_flow", "local", "intercept", "pass", "observe", "port_pass", "bypass",
	"fail_open", "fail_open_cap", "wait", "wait_drop", "fail_closed", "reject", "drop", "port_reject",
	"lock_explain", "lock_reset", "lock_cut", "loop", "spoof_path", "frag_first", "truncated", "icmp_local", "reply",
	"asymmetric", "guard_drop", "half_open", "guard_socket", "syn_limited",
}

// UserCounters name the sets that count fresh connections by address; set by4_passed holds those of IPv4 that were passed.
var UserCounters = []string{
	"syn", "intercepted", "passed", "rejected", "dropped", "failed_open", "failed_closed", "explained", "lock_reset",
	"lock_cut", "unparsed", "spoofed", "syn_limited",
}

//go:embed filter.tmpl
var filterText string

var filterTemplate = template.Must(template.New("").Parse(filterText))

// Sets writes what must stand, and be filled, before Rules ask for it. Applied again it changes nothing.
func (f Filter) Sets() string { return f.text("sets") }

// Rules writes all rules and puts them in the place of those that stand, in one step.
func (f Filter) Rules() string { return f.text("rules") }

func (f Filter) text(part string) string {
	var b strings.Builder
	if err := filterTemplate.ExecuteTemplate(&b, part, filterData{f}); err != nil {
		panic(err) // the template is part of the program, and its data are what the template asks
	}
	return b.String()
}

// filterData is what the template asks.
type filterData struct{ Filter }

func (filterData) Table() string          { return FilterTable }
func (filterData) Counters() []string     { return FilterCounters }
func (filterData) UserCounters() []string { return UserCounters }
func (filterData) Modes() []string        { return FilterModes }
func (filterData) OpenCap() int           { return openCap }
func (filterData) Burst(rate int) int     { return 2 * rate }
func (d filterData) Both() string         { return fmt.Sprintf("%#x", d.Mark|d.Filter.JudgedMark) }
func (d filterData) Keep() string         { return fmt.Sprintf("%#x", ^(d.Mark | d.Filter.JudgedMark)) }
func (d filterData) JudgedMark() string   { return fmt.Sprintf("%#x", d.Filter.JudgedMark) }

// PortSet writes the mail ports as an anonymous set.
func (d filterData) PortSet() string {
	var ports []string
	for _, p := range d.Ports {
		ports = append(ports, fmt.Sprint(p.Port))
	}
	return "{ " + strings.Join(ports, ", ") + " }"
}

// LockChains are the chains that a lock leads to, without the family's number.
func (d filterData) LockChains() []string {
	out := []string{LockedChain(0), DroppedChain}
	for _, b := range d.Budgets {
		out = append(out, LockedChain(b))
	}
	return out
}

// LockedChain names the chain of locks with a budget of connections per minute; its family's number follows after "_".
func LockedChain(budget int) string {
	if budget <= 0 {
		return "locked"
	}
	return fmt.Sprintf("explain_%d", budget)
}

// RateChain names the chain of sources with a rate.
func RateChain(rate, family int) string { return fmt.Sprintf("rate_%d_%d", rate, family) }

// DroppedChain is that of locked sources whose mode is stricter than a lock.
const DroppedChain = "dropped"

// hooked are the chains that the kernel calls.
var hooked = []filterChain{
	{"prerouting", "type filter hook prerouting priority mangle; policy accept;"},
	{"forwarded", "type filter hook forward priority filter; policy accept;"},
	{"output", "type filter hook output priority filter; policy accept;"},
}

// filterChain is a chain as it is declared.
type filterChain struct{ Name, hook string }

func (c filterChain) String() string {
	if c.hook == "" {
		return c.Name
	}
	return c.Name + " { " + c.hook + " }"
}

// Chains are all but `observe`, which belongs to whoever watches.
func (d filterData) Chains() []filterChain {
	out := slices.Clone(hooked)
	for _, name := range []string{"path_mtu", "fragment", "deliver", "forward", "outbound", "inbound"} {
		out = append(out, filterChain{Name: name})
	}
	for _, f := range d.Families() {
		names := append(slices.Clone(FilterModes), "customer", "fresh", "bypassed", "admit", "assign", "closed", "wait", "open",
			"opened", "limited", "took_intercept", "took_wait", "took_lock_explain",
			"explain", "lock_reset", "uplink", "guard", "own")
		for _, name := range names {
			out = append(out, filterChain{Name: fmt.Sprint(name, f.Number)})
		}
		for _, name := range d.LockChains() {
			out = append(out, filterChain{Name: fmt.Sprintf("%s_%d", name, f.Number)})
		}
		for _, rate := range d.Rates {
			out = append(out, filterChain{Name: RateChain(rate, f.Number)})
		}
	}
	return out
}

// filterFamily is what differs between IPv4 and IPv6.
type filterFamily struct {
	Number   int
	IP, Type string
	Fragment string // matches fragments
	Owner    string // whose budget a source uses: whoever has an IPv6 address has its /64
}

// Families are both.
func (filterData) Families() []filterFamily {
	return []filterFamily{
		{4, "ip", "ipv4_addr", "ip frag-off & 0x3fff != 0x0", "ip saddr"},
		{6, "ip6", "ipv6_addr", "exthdr frag exists", "ip6 saddr & ffff:ffff:ffff:ffff::"},
	}
}

// Tally counts a packet for its user. It is a rule of its own: where the set is full the rule ends, and with it whatever
// else it would have done.
func (f filterFamily) Tally(user string) string {
	return fmt.Sprintf("add @by%d_%s { %s saddr counter }", f.Number, user, f.IP)
}

// FilterCounter names the counter of a reason; some reasons are words of nft's own.
func FilterCounter(reason string) string { return "n_" + reason }
