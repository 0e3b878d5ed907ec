package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sluice/cmd/internal/config"
	"sluice/cmd/internal/store"
	"sluice/intercept/control"
	"sluice/intercept/flow"
)

// rules is what happens to mail flows by source and destination: what operators decided at run time over what the
// configuration says. It finds what the kernel's tables say, by the same functions.
type rules struct {
	mu         sync.RWMutex
	ceiling    *control.Ceiling
	configured map[netip.Prefix]configuredMode
	made       map[netip.Prefix]store.Rule // at run time, for sources
	runtime    control.Prefixes[control.Source]
	destined   []store.Rule // at run time, for destinations
	exempt     *control.Exemptions
}

// configuredMode is a mode that stands in the file.
type configuredMode struct {
	mode    string
	percent int
	reason  string
	user    string // who has it in his settings; "" for [[mode]]
}

// newRules joins the configuration with what the store has.
func newRules(cfg *config.Config, st *store.Store) (*rules, error) {
	r := &rules{made: map[netip.Prefix]store.Rule{}, configured: configuredModes(cfg)}
	var err error
	if r.ceiling, err = ceilingOf(cfg, r.configured); err != nil {
		return nil, err
	}
	modes, err := st.Modes()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, m := range modes {
		if s := sourceOf(&m); !m.Over(now) && s.Mode != 0 {
			r.made[m.Prefix] = m
			r.runtime.Put(m.Prefix, s)
		}
	}
	if r.destined, err = st.Exemptions(); err != nil {
		return nil, err
	}
	r.destined = slices.DeleteFunc(r.destined, func(x store.Rule) bool { return x.Over(now) })
	r.exempt, _ = r.ceiling.Exemptions(exemptionsOf(r.destined), now)
	return r, nil
}

func configuredModes(cfg *config.Config) map[netip.Prefix]configuredMode {
	all := map[netip.Prefix]configuredMode{}
	for i := range cfg.User {
		u := &cfg.User[i]
		for _, p := range u.Prefixes {
			if u.ModeSet {
				all[p.Prefix] = configuredMode{mode: u.Mode, reason: "mode of user " + u.Name, user: u.Name}
			}
		}
	}
	for _, m := range cfg.Mode {
		all[m.Prefix.Prefix] = configuredMode{mode: m.Mode, percent: m.Percent, reason: m.Reason}
	}
	return all
}

// ceilingOf is what the configuration allows at run time, of modes; fail modes are the helper's to check.
func ceilingOf(cfg *config.Config, modes map[netip.Prefix]configuredMode) (*control.Ceiling, error) {
	fallback := control.Source{Fail: control.Open}
	if err := fallback.Mode.UnmarshalText([]byte(cfg.Intercept.DefaultMode)); err != nil {
		return nil, err
	}
	var sources []control.Source
	for p, m := range modes {
		s := control.Source{Prefix: p}
		if err := s.Mode.UnmarshalText([]byte(m.mode)); err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	exempt := make([]control.Exemption, len(cfg.Exempt))
	for i, x := range cfg.Exempt {
		exempt[i] = control.Exemption{Prefix: x.Prefix.Prefix, Port: x.Port, Until: x.Until}
		if err := exempt[i].Mode.UnmarshalText([]byte(x.Mode)); err != nil {
			return nil, err
		}
	}
	return control.NewCeiling(fallback, sources, plain(cfg.Intercept.RuntimeLoosen), exempt, plain(cfg.Intercept.RuntimeExempt)), nil
}

func plain(list []config.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, p := range list {
		out[i] = p.Prefix
	}
	return out
}

// sourceOf is a rule as the helper hears it; without a mode if it is none that this version knows.
func sourceOf(r *store.Rule) control.Source {
	s := control.Source{Prefix: r.Prefix, Until: r.Until}
	if s.Mode.UnmarshalText([]byte(r.Mode)) != nil {
		s.Mode = 0
	}
	return s
}

func exemptionsOf(list []store.Rule) []control.Exemption {
	var out []control.Exemption
	for _, r := range list {
		x := control.Exemption{Prefix: r.Prefix, Port: r.Port, Until: r.Until}
		if x.Mode.UnmarshalText([]byte(r.Mode)) == nil {
			out = append(out, x)
		}
	}
	return out
}

// verdict is the mode that holds for an address, and what says so.
type verdict struct {
	mode    control.Mode
	percent int          // of canary
	from    netip.Prefix // zero: the default for all that nothing is said of
	by      *store.Rule  // nil: the configuration
}

// of finds the mode of an address, or of all of a prefix.
func (r *rules) of(p netip.Prefix) verdict {
	r.mu.RLock()
	defer r.mu.RUnlock()
	h := r.ceiling.Holds(p, &r.runtime)
	v := verdict{mode: h.Mode, from: h.From}
	if m, ok := r.made[h.From]; ok {
		v.by, v.percent = &m, m.Percent
	} else {
		v.percent = r.configured[h.From].percent
	}
	return v
}

// towards finds the mode of a flow as the kernel did.
func (r *rules) towards(f *flow.Flow, now time.Time) verdict {
	r.mu.RLock()
	m := r.exempt.Towards(f.Target, now)
	r.mu.RUnlock()
	if m != 0 {
		return verdict{mode: m}
	}
	return r.of(netip.PrefixFrom(f.Client.Addr(), f.Client.Addr().BitLen()))
}

// at is what the helper has to hear about the mode of exactly p; zero where nothing is said of it.
func (r *rules) at(p netip.Prefix) (mode control.Mode, until time.Time) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if s, ok := r.runtime.Get(p); ok && r.ceiling.Check(s) == nil {
		return s.Mode, s.Until
	}
	return r.inFile(p), time.Time{}
}

// get is the rule made at run time for exactly p.
func (r *rules) get(p netip.Prefix) (m store.Rule, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m, ok = r.made[p]
	return m, ok
}

// inFile is the mode that the configuration gives exactly p; 0 for none.
func (r *rules) inFile(p netip.Prefix) control.Mode {
	s, _ := r.ceiling.Sources().Get(p)
	return s.Mode
}

// prefixes are all that have a mode of their own.
func (r *rules) prefixes() map[netip.Prefix]bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make(map[netip.Prefix]bool, len(r.configured)+len(r.made))
	for p := range r.configured {
		all[p] = true
	}
	for p := range r.made {
		all[p] = true
	}
	return all
}

// put puts rules in force and takes others out.
func (r *rules) put(put []store.Rule, gone []netip.Prefix) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range gone {
		delete(r.made, p)
		r.runtime.Delete(p)
	}
	for _, m := range put {
		r.made[m.Prefix] = m
		r.runtime.Put(m.Prefix, sourceOf(&m))
	}
}

// exemptAnew replaces the rules for destinations.
func (r *rules) exemptAnew(list []store.Rule, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.destined = list
	r.exempt, _ = r.ceiling.Exemptions(exemptionsOf(list), now)
}

// allowed are the exemptions that the helper is told.
func (r *rules) allowed(list []store.Rule, now time.Time) (out []control.Exemption) {
	for _, x := range exemptionsOf(list) {
		if !x.Over(now) && r.ceiling.CheckExemption(x, now) == nil {
			out = append(out, x)
		}
	}
	return out
}

// any tells whether some source or destination has a mode.
func (r *rules) any(mode control.Mode) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	has := r.ceiling.Default() == mode
	for p := range r.ceiling.Sources().All() {
		if has {
			return true
		}
		has = r.ceiling.Holds(p, &r.runtime).Mode == mode
	}
	for p := range r.runtime.All() {
		if has {
			return true
		}
		has = r.ceiling.Holds(p, &r.runtime).Mode == mode
	}
	return has || slices.ContainsFunc(r.exempt.List(), func(x control.Exemption) bool { return x.Mode == mode && !x.Over(time.Now()) })
}

// inside counts the prefixes inside p that have modes of their own.
func (r *rules) inside(p netip.Prefix) (n int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for q := range r.runtime.Inside(p) {
		if _, twice := r.configured[q]; !twice && q != p {
			n++
		}
	}
	for q := range r.ceiling.Sources().Inside(p) {
		if q != p {
			n++
		}
	}
	return n
}

// nextEnd is when the next rule ends by itself; zero for never.
func (r *rules) nextEnd() (next time.Time) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, m := range r.made {
		sooner(m.Until)
	}
	for _, x := range r.destined {
		sooner(x.Until)
	}
	return next
}

// listed are the rules made for sources, by prefix.
func (r *rules) listed() []store.Rule {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]store.Rule, 0, len(r.made))
	for _, m := range r.made {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b store.Rule) int { return comparePrefixes(a.Prefix, b.Prefix) })
	return list
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// canaryShare places a user between 0 and 100 by his name, so that all his addresses, every restart and every gateway
// agree, and a larger share holds the users of a smaller one.
func canaryShare(user string) float64 {
	sum := sha256.Sum256([]byte(user))
	return float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53) * 100
}

// enforced tells on which side of a canary a user is.
func (v *verdict) enforced(user string) bool {
	return v.mode == control.Intercept || v.mode == control.Canary && canaryShare(user) < float64(v.percent)
}
