// Package nft is the data path without BPF: one nftables table that gives mail connections to the proxy by tproxy.
//
// The rules are text that nft reads, so what an operator lists is what was written. Elements of sets go by netlink
// instead: nft reads every interval of a table back before it adds one, and a heartbeat comes every second.
package nft

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bpf"
	"sluice/intercept/control"
	"sluice/intercept/ruleset"
)

// Path is this way's name beside tcx and clsact.
const Path = "nftables"

// tcp is the one key of sets that say yes or no: the number of the protocol.
const tcp = "\x06"

// Filter is the table of one network namespace. Its methods may be called at the same time. What they say comes into
// force with the first Sync, all in one step, and stays after Close.
type Filter struct {
	log    *slog.Logger
	port   uint16 // of the listening socket
	nft    tool
	heart  *os.File
	beat   *control.Heartbeat
	since  uint64 // CLOCK_MONOTONIC; a proxy that never beat is away since then
	stop   chan struct{}
	ended  chan struct{}
	reason string

	mu     sync.Mutex // guards what follows
	state  state
	wanted bool      // the table is to be in force
	live   bool      // it is
	have   contents  // what the kernel's sets hold
	shape  shape     // what the kernel's rules are
	chain  string    // in these, that of unknown sources
	ending time.Time // the first moment at which an element ends and another may have to stand in its place
	pulse  pulse     // what the kernel was told of the proxy
	own    uint32    // generation of the kernel's rules after our last change
}

// shape is the text that nft was given.
type shape struct{ sets, rules string }

// Open finds nft and makes the memory in which the proxy beats; the kernel does not change. The port is that of the
// listening socket, which must be no mail port. The reason is why this way is in use.
func Open(port uint16, mail []uint16, reason string, log *slog.Logger) (*Filter, error) {
	f, err := newFilter(port, mail, reason, log)
	if err != nil {
		return nil, err
	}
	go f.keep()
	return f, nil
}

func newFilter(port uint16, mail []uint16, reason string, log *slog.Logger) (*Filter, error) {
	if slices.Contains(mail, port) {
		return nil, fmt.Errorf("could not listen on port %d by nftables: it is a mail port, and tproxy cannot tell what was sent to the listener itself; change intercept.listen_port", port)
	}
	n, err := findTool()
	if err != nil {
		return nil, err
	}
	f := &Filter{log: log, port: port, nft: n, reason: reason, since: control.Monotonic(), have: make(contents),
		stop: make(chan struct{}), ended: make(chan struct{}),
		state: state{sources: make(map[netip.Prefix]bpf.Source), locks: make(map[netip.Prefix]bpf.Lock)}}
	f.state.config.Default.Mode = bpf.ModePass // nothing is touched before SetConfig
	f.heart, f.beat, err = newHeart()
	return f, err
}

// Try puts the table in force in the calling thread's network namespace, which is one of a trial: there it takes
// everybody's mail to the listening socket at the port.
func Try(c bpf.Config, port uint16, seat ruleset.Seat) error {
	f, err := newFilter(port, nil, "", slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	c.Default.Mode, c.Default.PerSecond = bpf.ModeIntercept, 0
	if err = f.SetConfig(c); err == nil {
		_, err = f.Sync([]ruleset.Seat{seat})
	}
	return errors.Join(err, f.beat.Close(), f.heart.Close())
}

// Close lets go; the table stays in force, and where the proxy is alive it is taken for so a while longer.
func (f *Filter) Close() error {
	close(f.stop)
	<-f.ended
	return errors.Join(f.beat.Close(), f.heart.Close())
}

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
	return f.change(func(s *state) error {
		s.config = c
		return nil
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
	return bpf.Change{Put: len(want)}, f.change(func(s *state) error {
		s.sources = want
		return nil
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
	err := f.apply()
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
	err := f.apply()
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
	return filterModes[around.Mode] == filterModes[src.Mode] && traitsOf(around) == traitsOf(src)
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
	return bpf.Change{Put: len(list)}, f.change(func(s *state) error {
		s.exempt = slices.Clone(list)
		return nil
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
	return bpf.Change{Put: len(list)}, f.change(func(s *state) error {
		*of(s) = slices.Clone(list)
		return nil
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
	return bpf.Change{Put: len(want)}, f.change(func(s *state) error {
		s.locks = want
		return nil
	})
}

// PutLocks adds or changes locks; each is in force for the next packet.
func (f *Filter) PutLocks(list ...bpf.Lock) error {
	for _, l := range list {
		if err := checkPrefix(l.Prefix); err != nil {
			return err
		}
	}
	return f.change(func(s *state) error {
		for _, l := range list {
			s.locks[l.Prefix] = l
		}
		return nil
	})
}

// Unlock takes locks away, and the budgets that went with them; a prefix without a lock is no error.
func (f *Filter) Unlock(prefixes ...netip.Prefix) error {
	budgets := make(map[string]element) // by set
	err := f.change(func(s *state) error {
		for _, p := range prefixes {
			if l, ok := s.locks[p]; ok && f.live {
				budgets[fmt.Sprint("explained_", l.Budget)] = element{key: userKey(l.ID)}
			}
			delete(s.locks, p)
		}
		return nil
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
	return f.change(func(s *state) error {
		s.bypasses = slices.Clone(list)
		return nil
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

// change changes what is desired and, once this is in force, the kernel. After an error the desired state is as before.
func (f *Filter) change(with func(*state) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.state.clone()
	if err := with(&f.state); err != nil {
		return err
	}
	if err := f.apply(); err != nil {
		f.state = was
		return err
	}
	return nil
}

// clone copies what a change may write into.
func (s *state) clone() state {
	out := *s
	out.locks = maps.Clone(s.locks)
	return out
}

// rules are the text's input.
func (s *state) rules(port uint16) ruleset.Filter {
	r := ruleset.Filter{
		Mark: s.config.InterceptMark, JudgedMark: s.config.JudgedMark, Port: port, ReversePath: s.config.ReversePath,
		Default: filterModes[s.config.Default.Mode], Budgets: s.budgets(), PerSecond: int(s.config.Default.PerSecond),
	}
	for _, p := range s.ports() {
		r.Ports = append(r.Ports, ruleset.FilterPort{Port: p})
	}
	for _, p := range s.config.Ports {
		i := slices.IndexFunc(r.Ports, func(o ruleset.FilterPort) bool { return o.Port == p.Port })
		switch p.Mode {
		case bpf.ModePass:
			r.Ports[i].Verdict = "pass"
		case bpf.ModeReject:
			r.Ports[i].Verdict = "reject"
		}
	}
	return r
}

// apply brings the kernel to the desired state, if that is in force already. It needs the lock.
func (f *Filter) apply() error {
	if !f.live {
		return nil
	}
	rules := f.state.rules(f.port)
	want := shape{rules.Sets(), rules.Rules()}
	if want.sets != f.shape.sets {
		if err := f.nft.run(want.sets); err != nil {
			return err
		}
		f.shape.sets = want.sets
	}
	now := time.Now()
	if want.rules != f.shape.rules {
		// While the default changes nobody may depend on it.
		lean := f.shape.rules == "" || f.chain == rules.Default
		if err := f.fill(f.state.contents(now, lean), now); err != nil {
			return err
		}
		if err := f.nft.run(want.rules); err != nil {
			return err
		}
		f.shape.rules, f.chain = want.rules, rules.Default
		if lean {
			return nil
		}
	}
	return f.fill(f.state.contents(now, true), now)
}

// contents are the elements of all sets.
func (s *state) contents(now time.Time, lean bool) contents {
	all := make(contents)
	for _, part := range []contents{s.addressSets(), s.sourceSets(lean), s.exemptSets(now), s.lockSets(now), s.bypassSets(now), s.interfaceSets()} {
		for name, list := range part {
			all[name] = list
		}
	}
	return all
}

// fill makes the kernel's sets hold what they should, in one step.
func (f *Filter) fill(want contents, now time.Time) error {
	b := newBatch()
	f.ending = time.Time{}
	for name, list := range want {
		for _, e := range list {
			if !e.until.IsZero() && (f.ending.IsZero() || e.until.Before(f.ending)) {
				f.ending = e.until
			}
		}
		have, known := f.have[name]
		switch {
		case known && slices.Equal(have, list):
		case known && exact(have) && exact(list):
			gone, fresh := difference(have, list)
			b.remove(name, gone)
			b.add(name, fresh, now)
		default:
			b.flush(name)
			b.add(name, list, now)
		}
	}
	if b.empty() {
		return nil
	}
	if err := b.commit(); err != nil {
		clear(f.have) // what the kernel holds is no longer known for sure
		return fmt.Errorf("could not fill the nftables sets: %w", err)
	}
	for name, list := range want {
		f.have[name] = list
	}
	return f.remember()
}

// exact tells whether no element is an interval or ends by itself.
func exact(list []element) bool {
	return !slices.ContainsFunc(list, func(e element) bool { return e.last != "" || !e.until.IsZero() })
}

// difference gives what is in one list only.
func difference(have, want []element) (gone, fresh []element) {
	old := make(map[element]bool, len(have))
	for _, e := range have {
		old[e] = true
	}
	for _, e := range want {
		if !old[e] {
			fresh = append(fresh, e)
		}
		delete(old, e)
	}
	for _, e := range have {
		if old[e] {
			gone = append(gone, e)
		}
	}
	return gone, fresh
}
