package ruleset

import (
	"net/netip"
	"slices"
)

// Entry is a prefix with what holds inside it.
type Entry[V any] struct {
	Prefix netip.Prefix
	Value  V
}

// Run is all addresses from First to Last of one family.
type Run[V any] struct {
	First, Last netip.Addr
	Value       V
}

// Flatten turns prefixes inside each other into runs that touch no address twice, in order, since a set of intervals
// cannot hold one inside another. What holds for an address is asked of pick, which gets the values of all prefixes
// around it, the longest last; where it says false there is no run. Neighbours with equal values become one run.
// Equal prefixes are passed in the order of the list. All prefixes must be of one family and masked.
func Flatten[V any, W comparable](list []Entry[V], pick func(around []V) (W, bool)) []Run[W] {
	order := func(a, b Entry[V]) int { return ComparePrefix(a.Prefix, b.Prefix) }
	sorted := list
	if !slices.IsSortedFunc(list, order) {
		sorted = slices.Clone(list)
		slices.SortStableFunc(sorted, order)
	}
	f := flattener[V, W]{pick: pick}
	for _, e := range sorted {
		first := e.Prefix.Addr()
		f.close(func(last netip.Addr) bool { return last.Less(first) })
		if len(f.ends) > 0 && f.next.Less(first) {
			f.emit(first.Prev())
		}
		f.next = first
		f.around, f.ends = append(f.around, e.Value), append(f.ends, LastOf(e.Prefix))
	}
	f.close(func(netip.Addr) bool { return true })
	return f.runs
}

// flattener walks over the addresses from the lowest to the highest.
type flattener[V any, W comparable] struct {
	pick   func([]V) (W, bool)
	around []V          // values of the prefixes around next
	ends   []netip.Addr // their last addresses
	next   netip.Addr   // the first that stands in no run yet; the zero one past the highest address of all
	runs   []Run[W]
}

// close leaves the prefixes whose last address is over.
func (f *flattener[V, W]) close(over func(last netip.Addr) bool) {
	for n := len(f.ends); n > 0 && over(f.ends[n-1]); n = len(f.ends) {
		last := f.ends[n-1]
		if f.next.IsValid() && !last.Less(f.next) {
			f.emit(last)
		}
		f.around, f.ends = f.around[:n-1], f.ends[:n-1]
	}
}

// emit ends a run at last.
func (f *flattener[V, W]) emit(last netip.Addr) {
	if w, ok := f.pick(f.around); ok {
		n := len(f.runs)
		if n > 0 && f.runs[n-1].Value == w && f.runs[n-1].Last.Next() == f.next {
			f.runs[n-1].Last = last
		} else {
			f.runs = append(f.runs, Run[W]{f.next, last, w})
		}
	}
	f.next = last.Next()
}

// LastOf returns the highest address of a prefix.
func LastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		if free := 8*(i+1) - p.Bits(); free >= 8 {
			b[i] = 0xff
		} else if free > 0 {
			b[i] |= 1<<free - 1
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Innermost picks the value of the longest prefix.
func Innermost[V comparable](around []V) (V, bool) { return around[len(around)-1], true }

// Prefixes cuts a run of addresses into the fewest prefixes, in order.
func Prefixes(first, last netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for first.IsValid() && !last.Less(first) {
		bits := first.BitLen()
		for bits > 0 {
			wider := netip.PrefixFrom(first, bits-1)
			if wider.Masked().Addr() != first || last.Less(LastOf(wider)) {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(first, bits)
		out = append(out, p)
		first = LastOf(p).Next()
	}
	return out
}
