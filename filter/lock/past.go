package lock

import (
	"time"

	"sluice/filter/lock/ladder"
	"sluice/filter/policy"
)

// Past judges senders at moments that are over as Locks does at theirs: by the same count, without kernel, disk or brake, and
// with a lock's whole time for each. Not safe for concurrent use.
type Past struct {
	tallies *tallies
	until   map[Scope]time.Duration // locks
}

// NewPast returns one that knows nobody.
func NewPast() *Past { return &Past{newTallies(), map[Scope]time.Duration{}} }

// Judged counts a message of whom at a moment, by any clock; moments of one user come in order. It returns whom that locked and
// why, nil where nobody.
func (p *Past) Judged(at time.Duration, whom Scope, e ladder.Event, s *policy.Lock) (locked Scope, why *ladder.Cause) {
	if at < p.until[Scope{User: whom.User}] || at < p.until[whom] {
		return Scope{}, nil
	}
	f := p.tallies.tellAt(at, whom, e, Evidence{}, s).finding
	if f == nil || f.only {
		return Scope{}, nil
	}
	end := at + s.Time
	p.until[f.whom] = end
	p.tallies.forget(f.whom)
	p.tallies.release(end, f.whom, s)
	return f.whom, &f.cause
}
