package nft

import (
	"cmp"
	"encoding/binary"
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

// ending is what holds until a moment; the zero moment is for good.
type ending struct {
	chain string
	user  uint32 // of a lock
	keep  bool   // of a lock: open flows may end by themselves
	until time.Time
}

// exemptSets are those of destinations, by port.
func (s *state) exemptSets(now time.Time) contents {
	out := make(contents)
	for _, port := range s.ports() {
		for _, family := range []int{4, 6} {
			var entries []ruleset.Entry[bpf.Exemption]
			for _, own := range []bool{false, true} { // of equal prefixes the one with a port is the inner one
				for _, x := range s.exempt {
					if familyOf(x.Prefix) == family && x.Port == map[bool]uint16{true: port}[own] {
						entries = append(entries, ruleset.Entry[bpf.Exemption]{Prefix: x.Prefix, Value: x})
					}
				}
			}
			runs := ruleset.Flatten(entries, func(around []bpf.Exemption) (ending, bool) {
				for _, x := range slices.Backward(around) {
					if x.Until.IsZero() || x.Until.After(now) {
						return ending{chain: filterModes[x.Mode], until: x.Until}, true
					}
				}
				return ending{}, false
			})
			exempt, free := fmt.Sprintf("exempt%d_%d", family, port), fmt.Sprintf("free%d_%d", family, port)
			out[exempt], out[free] = nil, nil
			for _, r := range runs {
				e := runElement(r)
				e.until = r.Value.until
				if r.Value.chain == "pass" || r.Value.chain == "observed" {
					out[free] = append(out[free], e)
				}
				e.chain = fmt.Sprint(r.Value.chain, family)
				out[exempt] = append(out[exempt], e)
			}
		}
	}
	return out
}

// ports are the mail ports, 25 first.
func (s *state) ports() []uint16 {
	out := []uint16{25}
	for _, p := range s.config.Ports {
		if !slices.Contains(out, p.Port) {
			out = append(out, p.Port)
		}
	}
	return out
}

// layer is a source or a lock around an address.
type layer struct {
	source *bpf.Source
	lock   *bpf.Lock
}

// lockSets are those of locks. A lock does not mean a longer source prefix inside it that belongs to somebody else.
func (s *state) lockSets(now time.Time) contents {
	out := make(contents)
	for _, family := range []int{4, 6} {
		runs := ruleset.Flatten(s.layers(family), func(around []layer) (ending, bool) { return s.locked(around, now) })
		lock, id := fmt.Sprint("lock", family), fmt.Sprint("lockid", family)
		locked, cut := fmt.Sprint("locked", family), fmt.Sprint("cut", family)
		out[lock], out[id], out[locked], out[cut] = nil, nil, nil, nil
		for _, r := range runs {
			e := runElement(r)
			e.until = r.Value.until
			out[locked] = append(out[locked], e)
			if !r.Value.keep {
				out[cut] = append(out[cut], e)
			}
			e.value = userKey(r.Value.user)
			out[id] = append(out[id], e)
			e.value = ""
			e.chain, e.jump = fmt.Sprintf("%s_%d", r.Value.chain, family), true
			out[lock] = append(out[lock], e)
		}
	}
	return out
}

// userKey is a user's number as the sets of budgets know it.
func userKey(user uint32) string { return string(binary.NativeEndian.AppendUint32(nil, user)) }

// layers are the locks of a family with the sources inside and around them.
func (s *state) layers(family int) []ruleset.Entry[layer] {
	var entries []ruleset.Entry[layer]
	around := make(map[netip.Prefix]bool)
	for p, l := range s.locks {
		if familyOf(p) != family {
			continue
		}
		entries = append(entries, ruleset.Entry[layer]{Prefix: p, Value: layer{lock: &l}})
		for bits := p.Bits(); bits >= 0; bits-- {
			around[netip.PrefixFrom(p.Addr(), bits).Masked()] = true
		}
	}
	if len(entries) == 0 {
		return nil
	}
	slices.SortFunc(entries, func(a, b ruleset.Entry[layer]) int { return ruleset.ComparePrefix(a.Prefix, b.Prefix) })
	wide := make(lengths)
	for p := range s.locks {
		wide.add(p)
	}
	for p, src := range s.sources {
		if familyOf(p) == family && (around[p] || wide.covered(p, func(q netip.Prefix) bool { _, ok := s.locks[q]; return ok })) {
			entries = append(entries, ruleset.Entry[layer]{Prefix: p, Value: layer{source: &src}})
		}
	}
	return entries
}

// lengths are the lengths of prefixes that occur, by family.
type lengths map[int][]int

func (l lengths) add(p netip.Prefix) {
	if f := familyOf(p); !slices.Contains(l[f], p.Bits()) {
		l[f] = append(l[f], p.Bits())
	}
}

// covered tells whether a prefix around p, or p, is one that has says yes to.
func (l lengths) covered(p netip.Prefix, has func(netip.Prefix) bool) bool {
	return slices.ContainsFunc(l[familyOf(p)], func(bits int) bool {
		return bits <= p.Bits() && has(netip.PrefixFrom(p.Addr(), bits).Masked())
	})
}

// locked says what the locks around an address make of it.
func (s *state) locked(around []layer, now time.Time) (ending, bool) {
	var lock *bpf.Lock
	src, found := &s.config.Default, false
	owner := 0 // length of the user's own prefix
	for _, l := range slices.Backward(around) {
		if l.lock != nil && lock == nil && (l.lock.Until.IsZero() || l.lock.Until.After(now)) {
			lock = l.lock
		}
		if l.source != nil && !found {
			src, found, owner = l.source, true, l.source.Prefix.Bits()
			if src.Owner.IsValid() {
				owner = src.Owner.Bits()
			}
		}
	}
	if lock == nil || (lock.Prefix.Bits() < owner && (src.User == 0 || src.User != lock.ID)) {
		return ending{}, false
	}
	e := ending{user: lock.ID, keep: lock.KeepFlows, until: lock.Until}
	switch src.Mode {
	case bpf.ModeDrop:
		e.chain = ruleset.DroppedChain
	case bpf.ModeReject:
		e.chain = ruleset.LockedChain(0)
	default:
		e.chain = ruleset.LockedChain(int(lock.Budget))
	}
	return e, true
}

// budgets are those that locks have, in order, and the usual one, so that a lock seldom needs another rule.
func (s *state) budgets() []int {
	all := map[int]bool{int(bpf.DefaultLockBudget): true}
	for _, l := range s.locks {
		if l.Budget > 0 {
			all[int(l.Budget)] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// bypassSets are those of the operator's way out; the widest and the longest-lasting hold.
func (s *state) bypassSets(now time.Time) contents {
	out := contents{"bypass": nil, "bypass4": nil, "bypass6": nil}
	for _, family := range []int{4, 6} {
		var entries []ruleset.Entry[time.Time]
		for _, b := range s.bypasses {
			if b.Prefix.IsValid() && familyOf(b.Prefix) == family {
				entries = append(entries, ruleset.Entry[time.Time]{Prefix: b.Prefix, Value: bypassEnd(b)})
			}
		}
		runs := ruleset.Flatten(entries, func(around []time.Time) (time.Time, bool) {
			until := slices.MaxFunc(around, compareEnds)
			return until, until.IsZero() || until.After(now)
		})
		name := fmt.Sprint("bypass", family)
		for _, r := range runs {
			e := runElement(r)
			e.until = r.Value
			out[name] = append(out[name], e)
		}
	}
	var all []time.Time
	for _, b := range s.bypasses {
		if !b.Prefix.IsValid() {
			all = append(all, bypassEnd(b))
		}
	}
	if len(all) > 0 {
		if until := slices.MaxFunc(all, compareEnds); until.IsZero() || until.After(now) {
			out["bypass"] = []element{{key: tcp, until: until}}
		}
	}
	return out
}

func bypassEnd(b bpf.Bypass) time.Time {
	if b.Until.Equal(bpf.BypassForGood) {
		return time.Time{}
	}
	return b.Until
}

// compareEnds orders by time; the zero time is the last of all.
func compareEnds(a, b time.Time) int {
	switch {
	case a.IsZero() || b.IsZero():
		return cmp.Compare(endless(a), endless(b))
	}
	return a.Compare(b)
}

func endless(t time.Time) int {
	if t.IsZero() {
		return 1
	}
	return 0
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
