package control

import (
	"net/netip"
	"time"
)

// Ceiling holds what root's configuration allows the proxy: it may tighten anywhere and loosen only where root says so.
// The helper goes by it, and the proxy too, so that it does not ask for what it cannot get. It is not changed once made.
type Ceiling struct {
	fallback Source // mode and fail mode of sources of which the configuration says nothing
	sources  Prefixes[Source]
	loosen   Prefixes[struct{}]
	exempt   []Exemption
	open     Prefixes[struct{}]
	closed   Mode // the strictest mode of any source; an exemption goes before the source's mode
}

// NewCeiling takes what the configuration says: of sources that it does not name, of those that it names, where the proxy
// may go below that, of destinations, and which of them the proxy may exempt.
func NewCeiling(fallback Source, sources []Source, loosen []netip.Prefix, exempt []Exemption, mayExempt []netip.Prefix) *Ceiling {
	c := &Ceiling{fallback: fallback, exempt: exempt, closed: fallback.Mode}
	for _, s := range sources {
		c.sources.Put(s.Prefix, s)
		c.closed = max(c.closed, s.Mode)
	}
	for _, p := range loosen {
		c.loosen.Put(p, struct{}{})
	}
	for _, p := range mayExempt {
		c.open.Put(p, struct{}{})
	}
	return c
}

// Default is the mode of sources of which nothing is said.
func (c *Ceiling) Default() Mode { return c.fallback.Mode }

// Sources are those that the configuration names; they are not to be changed.
func (c *Ceiling) Sources() *Prefixes[Source] { return &c.sources }

// Exempt are the configuration's exemptions.
func (c *Ceiling) Exempt() []Exemption { return c.exempt }

// Over returns what the configuration says about all of p. Longer prefixes inside p keep what it says of them, so only p
// and wider ones count.
func (c *Ceiling) Over(p netip.Prefix) Holds { return c.filled(HoldsFor(p, &c.sources)) }

// filled gives what is left out the configuration's default.
func (c *Ceiling) filled(h Holds) Holds {
	if h.Mode == 0 {
		h.Mode = c.fallback.Mode
	}
	if h.Fail == 0 {
		h.Fail = c.fallback.Fail
	}
	return h
}

// Check refuses a source that is looser than the configuration, by mode or by fail mode.
func (c *Ceiling) Check(s Source) error {
	if _, ok := c.loosen.Cover(s.Prefix); ok {
		return nil
	}
	base := c.Over(s.Prefix)
	switch {
	case s.Mode != 0 && s.Mode < base.Mode:
		return Errorf(CodeCeiling, "could not set %v to mode %v: the configuration of sluice-intercept says %v; name the prefix in intercept.runtime_loosen to allow less", s.Prefix, s.Mode, base.Mode)
	case s.Fail != 0 && s.Fail < base.Fail:
		return Errorf(CodeCeiling, "could not set %v to fail %v: the configuration of sluice-intercept says %v; name the prefix in intercept.runtime_loosen to allow less", s.Prefix, s.Fail, base.Fail)
	}
	return nil
}

// Holds is what is true of all of p: what the proxy said, over what the configuration says. A reload may have made the
// configuration stricter since the proxy was allowed to say so: then that counts.
func (c *Ceiling) Holds(p netip.Prefix, runtime *Prefixes[Source]) Holds {
	h := c.filled(HoldsFor(p, runtime, &c.sources))
	if c.Check(Source{Prefix: p, Mode: h.Mode, Fail: h.Fail}) != nil {
		base := c.Over(p)
		h.Mode, h.Fail = max(h.Mode, base.Mode), max(h.Fail, base.Fail)
	}
	return h
}

// CheckExemption refuses one that is looser than what the configuration says of the destination, or, where it says nothing of
// it or of some of the ports, than mode intercept and the strictest mode it gives to any source: the exemption would go before
// that.
func (c *Ceiling) CheckExemption(x Exemption, now time.Time) error {
	if _, ok := c.open.Cover(x.Prefix); ok {
		return nil
	}
	if base := c.overExemption(x, now); x.Mode < base {
		return Errorf(CodeCeiling, "could not exempt %v with mode %v: the configuration of sluice-intercept says %v; name the prefix in intercept.runtime_exempt to allow less", x.Prefix, x.Mode, base)
	}
	return nil
}

// overExemption is the strictest mode that the configuration has for any port of x.
func (c *Ceiling) overExemption(x Exemption, now time.Time) (strictest Mode) {
	configured := NewExemptions(now, c.exempt)
	ports := []uint16{x.Port}
	for _, y := range c.exempt {
		if x.Port == 0 && y.Port != 0 {
			ports = append(ports, y.Port)
		}
	}
	for _, port := range ports {
		mode := configured.modeAround(x.Prefix, port)
		if mode == 0 {
			mode = max(Intercept, c.closed)
		}
		strictest = max(strictest, mode)
	}
	return strictest
}

// Exemptions joins the configuration's exemptions with those of the proxy that are allowed, each for as long as it is: what
// it stands on may end before it does.
func (c *Ceiling) Exemptions(runtime []Exemption, now time.Time) (joined *Exemptions, refused []error) {
	var allowed []Exemption
	for _, x := range runtime {
		if err := c.CheckExemption(x, now); err != nil {
			refused = append(refused, err)
			continue
		}
		x.Until = c.allowedUntil(x, now)
		allowed = append(allowed, x)
	}
	return NewExemptions(now, allowed, c.exempt), refused
}

// allowedUntil is when x ends: by itself, or when an exemption of the configuration does without which x is too loose.
func (c *Ceiling) allowedUntil(x Exemption, now time.Time) time.Time {
	for _, y := range c.exempt {
		around := y.Prefix.Bits() <= x.Prefix.Bits() && y.Prefix.Contains(x.Prefix.Addr())
		sooner := !y.Until.IsZero() && !y.Over(now) && (x.Until.IsZero() || y.Until.Before(x.Until))
		if around && sooner && c.CheckExemption(x, y.Until) != nil {
			x.Until = y.Until
		}
	}
	return x.Until
}
