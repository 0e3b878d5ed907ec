package intercept

import (
	"slices"
	"time"

	"sluice/bpf"
	"sluice/intercept/control"
	"sluice/intercept/nft"
)

// recall takes the run-time sources, exemptions, locks and bypasses of the last helper. Locks come from its pinned maps if
// they outlived it, which is newer than their file, else from disk, as after a boot; the others' files are never older
// than the kernel.
func (e *Engine) recall() error {
	if err := e.bypasses.recall(e.data, time.Now()); err != nil {
		return err
	}
	for _, b := range e.bypasses.live(time.Now()) {
		e.log.Warn("bypass is in force", "bypass", b.String())
	}
	s, err := loadStored(e.cfg.StateDir)
	if err != nil {
		// Root's configuration is in force all the same, and the proxy sends its users and locks when it dials.
		e.log.Error("starting without the last applied state", "error", err)
		s = new(stored)
	}
	if e.exempt, err = loadExemptions(e.cfg.StateDir, time.Now()); err != nil {
		e.log.Error("starting without the exemptions of the last helper", "error", err)
	}
	if err := e.recallSources(s); err != nil {
		return err
	}
	s.Locks = slices.DeleteFunc(s.Locks, func(l control.Lock) bool {
		err := l.Valid()
		if err != nil {
			e.log.Error("a stored lock is left out", "error", err)
		}
		return err != nil
	})
	if e.adopted == nil || e.lost("locks") {
		if s.Locks, err = standingLocks(s.Locks, time.Now()); err != nil {
			return err
		}
		return e.locks.replace(e.data, s.Locks, time.Now())
	}
	have, err := e.adopted.Locks()
	if err != nil {
		return err
	}
	e.locks.adopt(have)
	return nil
}

// recallSources reads the journal. Without one, an older helper's pinned maps have its sources, or else its file.
func (e *Engine) recallSources(s *stored) error {
	set, found, err := e.journal.load()
	if err != nil {
		e.log.Error("starting with what the kernel still holds", "error", err)
	}
	if found {
		e.runtime = set
		return nil
	}
	if e.adopted != nil && !e.lost("source_hosts") && !e.lost("source_nets") {
		have, err := e.adopted.Sources()
		if err != nil {
			return err
		}
		s.Sources = runtimeSources(have)
	}
	for _, src := range s.Sources {
		if err := src.Valid(); err != nil { // a helper that does not start would leave the gate open
			e.log.Error("a stored source is left out", "error", err)
			continue
		}
		e.runtime.put(src)
	}
	return nil
}

// runtimeSources picks those of the kernel's table that a proxy has set, as far as they can be told: users, and modes of
// prefixes inside a user's.
func runtimeSources(have []bpf.Source) []control.Source {
	var out []control.Source
	for _, h := range have {
		if h.User == 0 {
			continue
		}
		s := control.Source{Prefix: h.Prefix}
		if s.Mode.UnmarshalText([]byte(h.Mode.String())) != nil {
			continue
		}
		if !h.Owner.IsValid() || h.Owner.Bits() == 0 { // older helpers knew no owner
			s.User, s.Fail = h.User, control.Open
			if h.Fail == bpf.FailClosed {
				s.Fail = control.Closed
			}
		}
		out = append(out, s)
	}
	return out
}

// standingLocks corrects what is on disk by what an nftables table holds: of a lock that came just before the last helper
// died the file may know nothing, and of its end neither.
func standingLocks(stored []control.Lock, now time.Time) ([]control.Lock, error) {
	have, stands, err := nft.StandingLocks(now)
	if err != nil || !stands {
		return stored, err
	}
	var table locks
	table.adopt(have)
	out := slices.DeleteFunc(stored, func(l control.Lock) bool { return len(table.user[l.User].Prefixes) == 0 })
	for _, l := range table.live(now) {
		if !slices.ContainsFunc(out, func(o control.Lock) bool { return o.User == l.User }) {
			out = append(out, l)
		}
	}
	return out, nil
}
