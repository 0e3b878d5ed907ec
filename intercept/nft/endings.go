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
