package nft

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"sluice/bpf"
	"sluice/intercept/ruleset"
)

// state is what the table shall hold.
type state struct {
	config    bpf.Config
	sources   map[netip.Prefix]bpf.Source
	exempt    []bpf.Exemption
	locks     map[netip.Prefix]bpf.Lock
	bypasses  []bpf.Bypass
	local     []netip.Prefix
	delivery  []netip.Prefix
	lockFree  []netip.Prefix
	customers []string
	uplinks   []string
}

// contents are the elements of sets, by name.
type contents map[string][]element

// part is one of the things that sets follow from.
type part int

const (
	addressesPart part = 1 << iota
	sourcesPart
	exemptPart
	locksPart
	bypassPart
	interfacesPart

	everyPart   = addressesPart | endingParts | sourcesPart | interfacesPart
	endingParts = exemptPart | locksPart | bypassPart // their elements may end by themselves
)

// contents are the elements of the sets of some parts.
func (s *state) contents(parts part, lean bool, now time.Time) contents {
	all := make(contents)
	for _, p := range []struct {
		of   part
		sets func() contents
	}{
		{addressesPart, s.addressSets},
		{sourcesPart, func() contents { return s.sourceSets(lean) }},
		{exemptPart, func() contents { return s.exemptSets(now) }},
		{locksPart, func() contents { return s.lockSets(now) }},
		{bypassPart, func() contents { return s.bypassSets(now) }},
		{interfacesPart, s.interfaceSets},
	} {
		if parts&p.of != 0 {
			maps.Copy(all, p.sets())
		}
	}
	return all
}

// filterModes are the chains of the modes.
var filterModes = map[bpf.Mode]string{
	bpf.ModePass: "pass", bpf.ModeObserve: "observed", bpf.ModeShadow: "intercept", bpf.ModeIntercept: "intercept",
	bpf.ModeReject: "reject", bpf.ModeDrop: "drop",
}

func familyOf(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 4
	}
	return 6
}

// everything is the prefix around all others of a family.
func everything(family int) netip.Prefix {
	if family == 4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

func bytesOf(a netip.Addr) string { return string(a.AsSlice()) }

// runElement is an interval.
func runElement[V any](r ruleset.Run[V]) element {
	return element{key: bytesOf(r.First), last: bytesOf(r.Last)}
}

// sourceSets are those that follow from the sources and the default. Where lean, sources that say what a look-up finds
// without them are left out: a network where all are alike needs no element at all.
func (s *state) sourceSets(lean bool) contents {
	out := make(contents)
	for _, family := range []int{4, 6} {
		var list []bpf.Source
		for p, src := range s.sources {
			if familyOf(p) == family {
				list = append(list, src)
			}
		}
		slices.SortFunc(list, func(a, b bpf.Source) int { return ruleset.ComparePrefix(a.Prefix, b.Prefix) })
		s.modes(out, family, list, lean)
		s.attributes(out, family, list)
		s.rated(out, family, list)
	}
	return out
}

// isHost tells which sources stand in a table of their own that is found by the address itself.
func isHost(p netip.Prefix) bool { return p.IsSingleIP() }

// modes fills the maps that lead to the chain of the mode: single addresses and, where nothing longer is inside, /64s by
// hash, which costs a third; all others by intervals.
func (s *state) modes(out contents, family int, list []bpf.Source, lean bool) {
	var hosts, subnets []bpf.Source
	var nets []ruleset.Entry[bpf.Mode]
	if lean { // first, so that it is the outermost even beside a source of everything
		nets = append(nets, ruleset.Entry[bpf.Mode]{Prefix: everything(family), Value: s.config.Default.Mode})
	}
	for i, src := range list {
		switch {
		case isHost(src.Prefix):
			hosts = append(hosts, src)
		case family == 6 && src.Prefix.Bits() == 64 && !longer(list, i):
			subnets = append(subnets, src)
		default:
			nets = append(nets, ruleset.Entry[bpf.Mode]{Prefix: src.Prefix, Value: src.Mode})
		}
	}
	fallback := filterModes[s.config.Default.Mode]
	runs := ruleset.Flatten(nets, func(around []bpf.Mode) (string, bool) {
		chain := filterModes[around[len(around)-1]]
		return chain, !lean || chain != fallback
	})
	name := func(set string) string { return fmt.Sprint(set, family) }
	chainOf := func(m string) string { return fmt.Sprint(m, family) }
	out[name("net")] = nil
	for _, r := range runs {
		e := runElement(r)
		e.chain = chainOf(r.Value)
		out[name("net")] = append(out[name("net")], e)
	}
	wide := func(a netip.Addr) string { return findRun(runs, a, fallback) }
	exact := make(map[netip.Addr]string)
	out[name("host")] = nil
	if family == 6 {
		out["subnet6"] = nil
	}
	for _, src := range subnets {
		chain := filterModes[src.Mode]
		if lean && chain == wide(src.Prefix.Addr()) {
			continue
		}
		exact[src.Prefix.Addr()] = chain
		out["subnet6"] = append(out["subnet6"], element{key: bytesOf(src.Prefix.Addr()), chain: chainOf(chain)})
	}
	for _, src := range hosts {
		chain, a := filterModes[src.Mode], src.Prefix.Addr()
		found, ok := "", false
		if family == 6 {
			found, ok = exact[netip.PrefixFrom(a, 64).Masked().Addr()]
		}
		if !ok {
			found = wide(a)
		}
		if lean && chain == found {
			continue
		}
		out[name("host")] = append(out[name("host")], element{key: bytesOf(a), chain: chainOf(chain)})
	}
}

// longer tells whether a prefix longer than /64, but no single address, stands inside the /64 at list[i]; the list is
// sorted.
func longer(list []bpf.Source, i int) bool {
	for _, o := range list[i+1:] {
		if !list[i].Prefix.Contains(o.Prefix.Addr()) {
			return false
		}
		if !isHost(o.Prefix) {
			return true
		}
	}
	return false
}

// findRun returns what holds at a; the runs are in order.
func findRun(runs []ruleset.Run[string], a netip.Addr, otherwise string) string {
	i, found := slices.BinarySearchFunc(runs, a, func(r ruleset.Run[string], a netip.Addr) int { return r.First.Compare(a) })
	if !found {
		i--
	}
	if i >= 0 && !runs[i].Last.Less(a) {
		return runs[i].Value
	}
	return otherwise
}

// rated fills the maps of sources that have another rate than the default's.
func (s *state) rated(out contents, family int, list []bpf.Source) {
	entries := []ruleset.Entry[uint16]{{Prefix: everything(family), Value: s.config.Default.PerSecond}}
	for _, src := range list {
		entries = append(entries, ruleset.Entry[uint16]{Prefix: src.Prefix, Value: src.PerSecond})
	}
	runs := ruleset.Flatten(entries, func(around []uint16) (uint16, bool) {
		rate := around[len(around)-1]
		return rate, rate != s.config.Default.PerSecond
	})
	name := fmt.Sprint("rate", family)
	out[name] = nil
	for _, r := range runs {
		e := runElement(r)
		e.chain = ruleset.RateChain(int(r.Value), family)
		out[name] = append(out[name], e)
	}
}

// rates are those that occur, in order.
func (s *state) rates() []int {
	all := map[int]bool{int(s.config.Default.PerSecond): true}
	for _, src := range s.sources {
		all[int(src.PerSecond)] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// traits are what other rules than those of the mode ask about a source.
type traits struct{ closed, strict, taken, observed bool }

func traitsOf(s bpf.Source) traits {
	return traits{
		closed: s.Fail == bpf.FailClosed, strict: s.Mode >= bpf.ModeReject,
		taken: s.Mode == bpf.ModeShadow || s.Mode == bpf.ModeIntercept, observed: s.Mode == bpf.ModeObserve,
	}
}

func (s *state) attributes(out contents, family int, list []bpf.Source) {
	entries := []ruleset.Entry[traits]{{Prefix: everything(family), Value: traitsOf(s.config.Default)}}
	for _, src := range list {
		entries = append(entries, ruleset.Entry[traits]{Prefix: src.Prefix, Value: traitsOf(src)})
	}
	runs := ruleset.Flatten(entries, ruleset.Innermost[traits])
	for set, has := range map[string]func(traits) bool{
		"closed":  func(t traits) bool { return t.closed },
		"guarded": func(t traits) bool { return t.closed && (t.strict || t.taken) },
		"strict":  func(t traits) bool { return t.strict },
		"seized":  func(t traits) bool { return t.taken && !t.closed },
		"observe": func(t traits) bool { return t.observed },
	} {
		out[fmt.Sprint(set, family)] = joined(runs, has)
	}
}

// joined makes elements of the runs that have something, neighbours as one. The runs cover everything.
func joined(runs []ruleset.Run[traits], has func(traits) bool) []element {
	var all []element
	before := false
	for _, r := range runs {
		is := has(r.Value)
		switch {
		case is && before:
			all[len(all)-1].last = bytesOf(r.Last)
		case is:
			all = append(all, runElement(r))
		}
		before = is
	}
	return all
}

// addressSets are the lists of prefixes.
func (s *state) addressSets() contents {
	out := make(contents)
	for name, list := range map[string][]netip.Prefix{"local": s.local, "delivery": s.delivery, "lockfree": s.lockFree} {
		for _, family := range []int{4, 6} {
			var entries []ruleset.Entry[bool]
			for _, p := range list {
				if familyOf(p) == family {
					entries = append(entries, ruleset.Entry[bool]{Prefix: p, Value: true})
				}
			}
			var all []element
			for _, r := range ruleset.Flatten(entries, ruleset.Innermost[bool]) {
				all = append(all, runElement(r))
			}
			out[fmt.Sprint(name, family)] = all
		}
	}
	return out
}

// interfaceSets are the names of interfaces.
func (s *state) interfaceSets() contents {
	out := contents{"customers": nil, "uplinks": nil}
	for set, names := range map[string][]string{"customers": s.customers, "uplinks": s.uplinks} {
		for _, n := range names {
			var key [16]byte // IFNAMSIZ
			copy(key[:], n)
			out[set] = append(out[set], element{key: string(key[:])})
		}
	}
	return out
}
