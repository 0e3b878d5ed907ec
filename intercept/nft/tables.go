package nft

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bpf"
)

// SetConfig replaces the configuration; sources, locks and bypasses are not touched.
func (f *Filter) SetConfig(c bpf.Config) error {
	for _, p := range c.Ports {
		if p.Ifindex != 0 {
			return fmt.Errorf("could not treat port %d differently on one interface: the nftables path knows ports, not ports of interfaces", p.Port)
		}
	}
	if _, known := filterModes[c.Default.Mode]; !known {
		return fmt.Errorf("could not use the default for unknown sources: mode %s is none that packets can have", c.Default.Mode)
	}
	return f.change(everyPart, func(s *state) {
		s.config = c
	})
}

// Default gives what holds for unknown sources now.
func (f *Filter) Default() bpf.Source {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.config.Default
}

// ReplaceSources makes the table of sources equal to the list.
func (f *Filter) ReplaceSources(list []bpf.Source) (bpf.Change, error) {
	want := make(map[netip.Prefix]bpf.Source, len(list))
	for _, s := range list {
		if err := checkSource(s); err != nil {
			return bpf.Change{}, err
		}
		if _, twice := want[s.Prefix]; twice {
			return bpf.Change{}, fmt.Errorf("could not use source %s: it is given twice", s.Prefix)
		}
		want[s.Prefix] = s
	}
	return bpf.Change{Put: len(want)}, f.change(sourcesPart|locksPart, func(s *state) {
		s.sources = want
	})
}

// PutSources adds or changes single sources.
func (f *Filter) PutSources(list ...bpf.Source) error {
	for _, s := range list {
		if err := checkSource(s); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	plain := true
	was := make(map[netip.Prefix]bpf.Source)
	for _, s := range list {
		plain = plain && f.state.sameAsAround(s)
		if old, had := f.state.sources[s.Prefix]; had {
			was[s.Prefix] = old
		}
		f.state.sources[s.Prefix] = s
	}
	if plain { // nothing that the table holds depends on them
		return nil
	}
	err := f.apply(sourcesPart | locksPart)
	if err != nil {
		for _, s := range list {
			delete(f.state.sources, s.Prefix)
		}
		maps.Copy(f.state.sources, was)
	}
	return err
}

// DeleteSources takes single sources away; one that is not there is no error.
func (f *Filter) DeleteSources(prefixes ...netip.Prefix) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	plain := true
	gone := make(map[netip.Prefix]bpf.Source)
	for _, p := range prefixes {
		if old, had := f.state.sources[p]; had {
			delete(f.state.sources, p)
			gone[p] = old
			plain = plain && f.state.sameAsAround(old)
		}
	}
	if plain { // nothing that the table holds depends on them
		return nil
	}
	err := f.apply(sourcesPart | locksPart)
	if err != nil {
		maps.Copy(f.state.sources, gone)
	}
	return err
}

// sameAsAround tells whether the rules treat a source like its surroundings, and no lock may ask whose it is.
func (s *state) sameAsAround(src bpf.Source) bool {
	around := s.config.Default
	for bits := src.Prefix.Bits(); bits >= 0; bits-- {
		if o, ok := s.sources[netip.PrefixFrom(src.Prefix.Addr(), bits).Masked()]; ok {
			around = o
			break
		}
	}
	for p := range s.locks {
		if p.Overlaps(src.Prefix) {
			return false
		}
	}
	return filterModes[around.Mode] == filterModes[src.Mode] && traitsOf(around) == traitsOf(src) && around.PerSecond == src.PerSecond
}

func checkSource(s bpf.Source) error {
	if err := checkPrefix(s.Prefix); err != nil {
		return err
	}
	if _, known := filterModes[s.Mode]; !known {
		return fmt.Errorf("could not use source %s: mode %s is none that packets can have", s.Prefix, s.Mode)
	}
	if s.Ifindex != 0 || s.MAC != nil {
		return fmt.Errorf("could not bind source %s to an interface or MAC: the nftables path checks only the reverse path; use a kernel with BPF", s.Prefix)
	}
	return nil
}

// checkPrefix refuses what would be read as another prefix.
func checkPrefix(p netip.Prefix) error {
	if !p.IsValid() || p.Masked() != p || p.Addr().Is4In6() || p.Addr().Zone() != "" {
		return fmt.Errorf("could not use prefix %q: write a plain IPv4 or IPv6 prefix without bits beyond its length", p)
	}
	return nil
}

func checkPrefixes(list []netip.Prefix) error {
	for _, p := range list {
		if err := checkPrefix(p); err != nil {
			return err
		}
	}
	return nil
}

// ReplaceExemptions makes the table of exempt destinations equal to the list.
func (f *Filter) ReplaceExemptions(list []bpf.Exemption) (bpf.Change, error) {
	for _, x := range list {
		if err := checkPrefix(x.Prefix); err != nil {
			return bpf.Change{}, err
		}
		if _, known := filterModes[x.Mode]; !known {
			return bpf.Change{}, fmt.Errorf("could not use the exemption of %s: mode %s is none that packets can have", x.Prefix, x.Mode)
		}
	}
	return bpf.Change{Put: len(list)}, f.change(exemptPart, func(s *state) {
		s.exempt = slices.Clone(list)
	})
}

// ReplaceLocal sets the gateway's own addresses.
func (f *Filter) ReplaceLocal(list []netip.Prefix) (bpf.Change, error) {
	return f.replacePrefixes(list, func(s *state) *[]netip.Prefix { return &s.local })
}

// ReplaceDelivery sets the addresses that the proxy delivers from.
func (f *Filter) ReplaceDelivery(list []netip.Prefix) (bpf.Change, error) {
	return f.replacePrefixes(list, func(s *state) *[]netip.Prefix { return &s.delivery })
}

// ReplaceLockExempt sets the destinations that locks leave open.
func (f *Filter) ReplaceLockExempt(list []netip.Prefix) (bpf.Change, error) {
	return f.replacePrefixes(list, func(s *state) *[]netip.Prefix { return &s.lockFree })
}

func (f *Filter) replacePrefixes(list []netip.Prefix, of func(*state) *[]netip.Prefix) (bpf.Change, error) {
	if err := checkPrefixes(list); err != nil {
		return bpf.Change{}, err
	}
	return bpf.Change{Put: len(list)}, f.change(addressesPart, func(s *state) {
		*of(s) = slices.Clone(list)
	})
}

// ReplaceLocks makes the locks equal to the list.
func (f *Filter) ReplaceLocks(list []bpf.Lock) (bpf.Change, error) {
	want := make(map[netip.Prefix]bpf.Lock, len(list))
	for _, l := range list {
		if err := checkPrefix(l.Prefix); err != nil {
			return bpf.Change{}, err
		}
		want[l.Prefix] = l
	}
	return bpf.Change{Put: len(want)}, f.change(locksPart, func(s *state) {
		s.locks = want
	})
}

// PutLocks adds or changes locks; each is in force for the next packet.
func (f *Filter) PutLocks(list ...bpf.Lock) error {
	for _, l := range list {
		if err := checkPrefix(l.Prefix); err != nil {
			return err
		}
	}
	return f.change(locksPart, func(s *state) {
		for _, l := range list {
			s.locks[l.Prefix] = l
		}
	})
}

// Unlock takes locks away, and the budgets that went with them; a prefix without a lock is no error.
func (f *Filter) Unlock(prefixes ...netip.Prefix) error {
	budgets := make(map[string]element) // by set
	err := f.change(locksPart, func(s *state) {
		for _, p := range prefixes {
			if l, ok := s.locks[p]; ok && f.live {
				budgets[fmt.Sprint("explained_", l.Budget)] = element{key: userKey(l.ID)}
			}
			delete(s.locks, p)
		}
	})
	for set, e := range budgets {
		b := newBatch()
		b.remove(set, []element{e})
		if gone := b.commit(); !errors.Is(gone, unix.ENOENT) { // where nothing was spent there is nothing
			err = errors.Join(err, gone)
		}
	}
	return err
}

// ReplaceBypasses makes the bypasses in force equal to the list; each ends by itself in the kernel.
func (f *Filter) ReplaceBypasses(list []bpf.Bypass) error {
	for _, b := range list {
		if b.Prefix != (netip.Prefix{}) {
			if err := checkPrefix(b.Prefix); err != nil {
				return err
			}
		}
	}
	return f.change(bypassPart, func(s *state) {
		s.bypasses = slices.Clone(list)
	})
}

// Bypasses gives those in force that this process knows.
func (f *Filter) Bypasses() ([]bpf.Bypass, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.state.bypasses), nil
}

// SetListener does nothing: tproxy finds the listening socket by its port.
func (f *Filter) SetListener(syscall.Conn) error { return nil }

// Preserve lets a socket of the host's own connect from src to dst past the guard, within two minutes. This way cannot
// tell one socket from another.
func (f *Filter) Preserve(_ uint64, src netip.Addr, dst netip.AddrPort) error {
	set := fmt.Sprint("preserved", familyOf(netip.PrefixFrom(src, src.BitLen())))
	pair := []element{{key: bytesOf(src) + bytesOf(dst.Addr())}}
	b := newBatch()
	b.add(set, pair, time.Now()) // so that it can be taken away, and be put anew with its whole time
	b.remove(set, pair)
	b.add(set, pair, time.Now())
	if err := b.commit(); err != nil {
		return fmt.Errorf("could not let a socket connect from %v to %v: %w", src, dst, err)
	}
	return nil
}
