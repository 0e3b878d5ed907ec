package intercept

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sluice/bpf"
	"sluice/intercept/control"
)

// sourceTable is the kernel's table of sources.
type sourceTable interface {
	PutSources(...bpf.Source) error
	DeleteSources(...netip.Prefix) error
	ReplaceSources([]bpf.Source) (bpf.Change, error)
}

// runtimeSet is what the proxy said about sources.
type runtimeSet struct {
	rules
	timed map[netip.Prefix]bool // those whose mode ends by itself
}

func (r *runtimeSet) put(s control.Source) {
	r.Put(s.Prefix, s)
	delete(r.timed, s.Prefix)
	if !s.Until.IsZero() {
		if r.timed == nil {
			r.timed = make(map[netip.Prefix]bool)
		}
		r.timed[s.Prefix] = true
	}
}

func (r *runtimeSet) remove(p netip.Prefix) {
	r.Delete(p)
	delete(r.timed, p)
}

// change is what one request does to the runtime set.
type change struct {
	put  []control.Source
	gone []netip.Prefix
}

// prefixes returns those that c speaks of, each once.
func (c *change) prefixes() []netip.Prefix {
	seen := make(map[netip.Prefix]bool, len(c.put)+len(c.gone))
	var all []netip.Prefix
	add := func(p netip.Prefix) {
		if !seen[p] {
			seen[p] = true
			all = append(all, p)
		}
	}
	for i := range c.put {
		add(c.put[i].Prefix)
	}
	for _, p := range c.gone {
		add(p)
	}
	return all
}

// apply does c to runtime and returns what would undo it. What goes goes first, so that a prefix may be in both.
func (c *change) apply(runtime *runtimeSet) (undo change) {
	for _, p := range c.prefixes() {
		if s, ok := runtime.Get(p); ok {
			undo.put = append(undo.put, s)
		} else {
			undo.gone = append(undo.gone, p)
		}
	}
	for _, p := range c.gone {
		runtime.remove(p)
	}
	for _, s := range c.put {
		runtime.put(s)
	}
	return undo
}

// kernelChange turns the kernel's table into another, entry by entry.
type kernelChange struct {
	before, after map[netip.Prefix]bpf.Source // only what differs; what is in one of them only comes or goes
}

// step does c to runtime, which mu guards against readers, and returns what it means for the kernel. Besides the prefixes of c, all that lie inside of them
// may change: they have what they leave out from there.
func step(ce *ceiling, runtime *runtimeSet, mu sync.Locker, c change) (k kernelChange, undo change) {
	touched := make(map[netip.Prefix]bool)
	for _, p := range c.prefixes() {
		touched[p] = true
		for q := range runtime.Inside(p) {
			touched[q] = true
		}
		for q := range ce.Sources().Inside(p) {
			touched[q] = true
		}
	}
	snapshot := func() map[netip.Prefix]bpf.Source {
		m := make(map[netip.Prefix]bpf.Source, len(touched))
		for p := range touched {
			_, ours := runtime.Get(p)
			if _, roots := ce.Sources().Get(p); ours || roots {
				m[p] = ce.entry(p, &runtime.rules)
			}
		}
		return m
	}
	k.before = snapshot()
	mu.Lock()
	undo = c.apply(runtime)
	mu.Unlock()
	k.after = snapshot()
	for p, s := range k.before {
		if t, ok := k.after[p]; ok && same(s, t) {
			delete(k.before, p)
			delete(k.after, p)
		}
	}
	return k, undo
}

// same compares two entries of one prefix.
func same(a, b bpf.Source) bool {
	return a.User == b.User && a.Mode == b.Mode && a.Fail == b.Fail && a.Owner == b.Owner && a.PerSecond == b.PerSecond && a.ReversePath == b.ReversePath &&
		a.Ifindex == b.Ifindex && slices.Equal(a.MAC, b.MAC)
}

// write brings the kernel's table from `from` to `to`. Longer prefixes come first and shorter ones go first, and nothing
// goes before all has come: so at each moment an address has what it had before or what it shall have.
func write(t sourceTable, from, to map[netip.Prefix]bpf.Source) error {
	var put []bpf.Source
	var gone []netip.Prefix
	for _, s := range to {
		put = append(put, s)
	}
	for p := range from {
		if _, stays := to[p]; !stays {
			gone = append(gone, p)
		}
	}
	slices.SortFunc(put, func(a, b bpf.Source) int { return b.Prefix.Bits() - a.Prefix.Bits() })
	slices.SortFunc(gone, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	if err := t.PutSources(put...); err != nil {
		return err
	}
	return t.DeleteSources(gone...)
}

// changeUsers does one change of the runtime set: all of it or nothing.
func (e *Engine) changeUsers(c change) error {
	e.change.Lock()
	defer e.change.Unlock()
	for _, s := range c.put {
		if err := e.ceiling.Check(s); err != nil {
			return err
		}
		if was, ok := e.runtime.Get(s.Prefix); ok && was.Mode == s.Mode {
			continue
		}
		if err := e.possible(s.Prefix, s.Mode); err != nil {
			return err
		}
	}
	more := 0
	for _, s := range c.put {
		if _, known := e.runtime.Get(s.Prefix); !known {
			more++
		}
	}
	if more > 0 && e.runtime.Len()+more > control.MaxEntries {
		return control.Errorf(control.CodeInvalid, "could not add sources: more than %d", control.MaxEntries)
	}
	return e.applyChange(c)
}

// applyChange does a change that is allowed. e.change is held.
func (e *Engine) applyChange(c change) error {
	k, undo := step(e.ceiling, e.runtime, &e.mu, c)
	e.journal.append(c) // first: what the next helper finds on disk is never older than the kernel
	closed := closedAmong(maps.Values(k.after))
	err := e.guard(closed > 0)
	if err == nil {
		err = write(e.data, k.before, k.after)
	}
	e.mu.Lock()
	if err == nil {
		e.inKernel += len(k.after) - len(k.before)
		e.closed += closed - closedAmong(maps.Values(k.before))
		e.mu.Unlock()
		return nil
	}
	undo.apply(e.runtime)
	e.mu.Unlock()
	e.journal.append(undo)
	if back := write(e.data, k.after, k.before); back != nil {
		e.log.Error("a change of sources failed half-way and could not be taken back; the table is written anew", "error", back)
		_, back = e.data.ReplaceSources(e.ceiling.table(&e.runtime.rules))
		if back != nil {
			e.log.Error("the source table is not as desired", "error", back)
		}
	}
	return err
}

// setUsers replaces the runtime set, if none of it is looser than the ceiling.
func (e *Engine) setUsers(list []control.Source) error {
	e.change.Lock()
	defer e.change.Unlock()
	next := new(runtimeSet)
	for _, s := range list {
		if err := e.ceiling.Check(s); err != nil {
			return err
		}
		if was, ok := next.Get(s.Prefix); ok {
			return control.Errorf(control.CodeInvalid, "could not set %v: it is given twice, with users %d and %d", s.Prefix, was.User, s.User)
		}
		next.put(s)
	}
	was := e.runtime
	if err := e.journal.replace(was, next); err != nil {
		e.log.Error("after a restart the sources before this change would be applied until the proxy sends them", "error", err)
	}
	err := e.fillSources(e.ceiling, next)
	if err == nil {
		return nil
	}
	if back := e.fillSources(e.ceiling, was); back != nil {
		e.log.Error("the source table is not as desired", "error", back)
	}
	if back := e.journal.replace(next, was); back != nil {
		e.log.Error("the sources on disk are not those in force", "error", back)
	}
	return err
}

func (e *Engine) fillSources(ce *ceiling, runtime *runtimeSet) error {
	table := ce.table(&runtime.rules)
	closed := closedAmong(slices.Values(table))
	if err := e.guard(closed > 0); err != nil {
		return err
	}
	if _, err := e.data.ReplaceSources(table); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inKernel, e.closed, e.runtime = len(table), closed, runtime
	return nil
}

// endModes takes modes out whose time is over. That needs nobody's leave: what is left of an entry was allowed once, and the
// ceiling is laid over it again.
func (e *Engine) endModes(now time.Time) error {
	e.change.Lock()
	defer e.change.Unlock()
	var c change
	e.mu.RLock()
	for p := range e.runtime.timed {
		s, ok := e.runtime.Get(p)
		if !ok || !s.Over(now) {
			continue
		}
		if s.Mode, s.Until = 0, (time.Time{}); s.Fail != 0 {
			c.put = append(c.put, s)
		} else {
			c.gone = append(c.gone, p)
		}
	}
	e.mu.RUnlock()
	if len(c.put)+len(c.gone) == 0 {
		return nil
	}
	e.log.Info("modes are over", "prefixes", c.prefixes())
	return e.applyChange(c)
}
