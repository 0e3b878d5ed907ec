package intercept

import (
	"net/netip"
	"slices"

	"sluice/bpf"
	"sluice/intercept/control"
)

// ceiling holds what root's configuration allows: the proxy may tighten anywhere and loosen only inside some prefixes.
type ceiling struct {
	fallback Source
	sources  lpm[Source]
	loosen   lpm[struct{}]
}

func newCeiling(c *Config) *ceiling {
	ce := &ceiling{fallback: c.Default}
	for _, s := range c.Sources {
		ce.sources.put(s.Prefix, s)
	}
	for _, p := range c.Loosen {
		ce.loosen.put(p, struct{}{})
	}
	return ce
}

// over returns what the configuration says about all of p. More specific prefixes of it keep their own entries in the
// kernel, so only p and wider ones count.
func (ce *ceiling) over(p netip.Prefix) Source {
	if s, ok := ce.sources.cover(p); ok {
		return s
	}
	return ce.fallback
}

// check refuses a source that is looser than the configuration, by mode or by fail mode.
func (ce *ceiling) check(s control.Source) error {
	if _, ok := ce.loosen.cover(s.Prefix); ok {
		return nil
	}
	base := ce.over(s.Prefix)
	switch {
	case s.Mode < base.Mode:
		return control.Errorf(control.CodeCeiling, "could not set %v to mode %v: the configuration of sluice-intercept says %v; name the prefix in intercept.runtime_loosen to allow less", s.Prefix, s.Mode, base.Mode)
	case s.Fail < base.Fail:
		return control.Errorf(control.CodeCeiling, "could not set %v to fail %v: the configuration of sluice-intercept says %v; name the prefix in intercept.runtime_loosen to allow less", s.Prefix, s.Fail, base.Fail)
	}
	return nil
}

// clamp tightens a source to what the configuration now says; a reload may have made it stricter.
func (ce *ceiling) clamp(s control.Source) control.Source {
	if ce.check(s) != nil {
		base := ce.over(s.Prefix)
		s.Mode, s.Fail = max(s.Mode, base.Mode), max(s.Fail, base.Fail)
	}
	return s
}

// merge lays the runtime sources over the configured ones: the kernel's table.
func (ce *ceiling) merge(runtime map[netip.Prefix]control.Source) []bpf.Source {
	out := make([]bpf.Source, 0, len(ce.sources.entries)+len(runtime))
	for p, s := range ce.sources.entries {
		if _, ok := runtime[p]; !ok {
			out = append(out, bpf.Source{Prefix: p, Mode: kernelMode(s.Mode), Fail: kernelFail(s.Fail), PerSecond: s.PerSecond})
		}
	}
	for _, s := range runtime {
		out = append(out, ce.kernel(ce.clamp(s)))
	}
	return out
}

// kernel returns a source of the proxy's in the words of the data path, with the rate that the configuration gives it.
func (ce *ceiling) kernel(s control.Source) bpf.Source {
	return bpf.Source{Prefix: s.Prefix, User: s.User, Mode: kernelMode(s.Mode), Fail: kernelFail(s.Fail), PerSecond: ce.over(s.Prefix).PerSecond}
}

// lpm finds the longest of its prefixes that covers another. It knows which lengths occur, so that a look-up costs as
// many steps as there are lengths, not 129.
type lpm[V any] struct {
	entries map[netip.Prefix]V
	lengths [2][]int // by family, longest first
}

func (l *lpm[V]) put(p netip.Prefix, v V) {
	if l.entries == nil {
		l.entries = make(map[netip.Prefix]V)
	}
	l.entries[p] = v
	f := 0
	if p.Addr().Is6() {
		f = 1
	}
	i, found := slices.BinarySearchFunc(l.lengths[f], p.Bits(), func(have, want int) int { return want - have })
	if !found {
		l.lengths[f] = slices.Insert(l.lengths[f], i, p.Bits())
	}
}

// cover returns the entry of the longest prefix that holds all of p.
func (l *lpm[V]) cover(p netip.Prefix) (v V, ok bool) {
	f := 0
	if p.Addr().Is6() {
		f = 1
	}
	for _, bits := range l.lengths[f] {
		if bits > p.Bits() {
			continue
		}
		q := netip.PrefixFrom(p.Addr(), bits).Masked()
		if v, ok = l.entries[q]; ok {
			return v, true
		}
	}
	return v, false
}
