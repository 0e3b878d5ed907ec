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
	"time"

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

// change changes what is desired and, once this is in force, the kernel. After an error the desired state is as before.
func (f *Filter) change(parts part, with func(*state)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.state.clone()
	with(&f.state)
	if err := f.apply(parts); err != nil {
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
		Default: filterModes[s.config.Default.Mode], Budgets: s.budgets(), PerSecond: int(s.config.Default.PerSecond), Rates: s.rates(),
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

// apply brings parts of the kernel's sets to the desired state, and all of it when the rules change, if that is in force
// already. It needs the lock.
func (f *Filter) apply(parts part) error {
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
		if err := f.replaceRules(rules, now); err != nil {
			return err
		}
		parts = everyPart
	}
	return f.fill(parts, true, now)
}

// replaceRules puts other rules in the place of those that stand. No element leads to a chain that has no rule yet, and
// while the default changes nobody depends on it. Where there is no rule at all the sets are filled first.
func (f *Filter) replaceRules(rules ruleset.Filter, now time.Time) error {
	if f.shape.rules == "" {
		if err := f.fill(everyPart, true, now); err != nil {
			return err
		}
	} else if rules.Default != f.chain {
		before := rules
		before.Default = f.chain
		if err := f.nft.run(before.Rules()); err != nil {
			return err
		}
		if err := f.fill(everyPart, false, now); err != nil {
			return err
		}
	}
	text := rules.Rules()
	if err := f.nft.run(text); err != nil {
		return err
	}
	f.shape.rules, f.chain = text, rules.Default
	return nil
}

// fill makes the kernel's sets hold what they should, in one step.
func (f *Filter) fill(parts part, lean bool, now time.Time) error {
	want := f.state.contents(parts, lean, now)
	b := newBatch()
	if parts&endingParts == endingParts {
		f.ending = time.Time{}
	}
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
