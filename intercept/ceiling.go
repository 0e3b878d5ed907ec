package intercept

import (
	"net/netip"

	"sluice/bpf"
	"sluice/intercept/control"
)

// rules are what is said about sources by prefix.
type rules = control.Prefixes[control.Source]

// ceiling is what root's configuration allows, with what the proxy has no word in.
type ceiling struct {
	*control.Ceiling
	rate  uint16 // connections per second of whoever the configuration does not name
	rates control.Prefixes[uint16]
	binds map[netip.Prefix]Bind
	bound control.Prefixes[Bind] // the same, by what is inside them
	names *names
}

func newCeiling(c *Config) *ceiling {
	ce := &ceiling{rate: c.Default.PerSecond, binds: make(map[netip.Prefix]Bind, len(c.Binds))}
	for _, b := range c.Binds {
		ce.binds[b.Prefix] = b
		ce.bound.Put(b.Prefix, b)
	}
	sources := make([]control.Source, len(c.Sources))
	for i, s := range c.Sources {
		sources[i] = control.Source{Prefix: s.Prefix, Mode: s.Mode, Fail: s.Fail}
		if s.Fail != 0 {
			ce.rates.Put(s.Prefix, s.PerSecond)
		}
	}
	ce.Ceiling = control.NewCeiling(control.Source{Mode: c.Default.Mode, Fail: c.Default.Fail}, sources, c.Loosen, c.Exempt, c.MayExempt)
	return ce
}

// entry is what the kernel's table says of p.
func (ce *ceiling) entry(p netip.Prefix, runtime *rules) bpf.Source {
	h := ce.Holds(p, runtime)
	k := bpf.Source{Prefix: p, User: h.Owner.User, Mode: kernelMode(h.Mode), Fail: kernelFail(h.Fail), PerSecond: ce.rate}
	if rate, ok := ce.rates.Cover(p); ok {
		k.PerSecond = rate
	}
	if b, ok := ce.bindOf(h.Owner.Prefix); ok && h.Owner.Fail != 0 {
		k.MAC = b.MAC
		if b.Interface != "" {
			k.Ifindex = ce.names.index(b.Interface)
		}
	}
	switch {
	case h.Owner.Fail == 0:
		k.Owner = nobodys(p)
	case h.Owner.Prefix != p:
		k.Owner = h.Owner.Prefix
	}
	return k
}

// bindOf is what an owner's prefix is bound to. One that only the proxy knows is bound like what the configuration has around
// it: else a longer prefix of its own would free a customer's address.
func (ce *ceiling) bindOf(p netip.Prefix) (Bind, bool) {
	if b, ok := ce.binds[p]; ok || !p.IsValid() {
		return b, ok
	}
	if s, ok := ce.Sources().Get(p); ok && s.Fail != 0 {
		return Bind{}, false // root's own, and not bound
	}
	return ce.bound.Cover(p)
}

// nobodys is the owner of what belongs to nobody.
func nobodys(p netip.Prefix) netip.Prefix {
	all, _ := p.Addr().Prefix(0) // p has an address
	return all
}

// table is the kernel's table, whole.
func (ce *ceiling) table(runtime *rules) []bpf.Source {
	out := make([]bpf.Source, 0, ce.Sources().Len()+runtime.Len())
	for p := range ce.Sources().All() {
		if _, ok := runtime.Get(p); !ok {
			out = append(out, ce.entry(p, runtime))
		}
	}
	for p := range runtime.All() {
		out = append(out, ce.entry(p, runtime))
	}
	return out
}
