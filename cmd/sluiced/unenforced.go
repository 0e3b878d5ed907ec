package main

import (
	"math"

	"sluice/filter"
	"sluice/filter/limit"
	"sluice/filter/lock"
	"sluice/filter/policy"
)

// unenforced judges mail that is not ours to stop. Nothing of it reaches what is enforced: its locks lock nobody, and what
// is observed counts in windows of its own. What goes through the proxy in shadow is booked like all mail that goes
// through it.
type unenforced struct {
	locks    *lock.Locks
	observed *filter.Pipeline
}

// newUnenforced makes it; locked hears of each lock that there would have been.
func newUnenforced(settings *policy.Table, checks func(limit.Counter, func(limit.Over)) *filter.Pipeline, locked func(lock.Event)) (*unenforced, error) {
	locks, err := lock.New(lock.Deps{Settings: ending{settingsOf{settings}}, Blocker: nowhere{}, Store: nowhere{}, Events: func(e lock.Event) {
		if e.Kind == lock.Locked {
			locked(e)
		}
	}})
	if err != nil {
		return nil, err
	}
	return &unenforced{locks: locks, observed: checks(limit.NewCounts(0), nil)}, nil
}

// ending lets every automatic lock end by itself: nobody can lift one that is not there.
type ending struct{ policy.Resolver }

func (e ending) Settings(user uint32) *policy.Settings {
	s := e.Resolver.Settings(user)
	if s == nil || s.Lock.MaxUnlocks == math.MaxInt {
		return s
	}
	own := *s
	own.Lock.MaxUnlocks = math.MaxInt
	return &own
}

// nowhere is the kernel and the disk of locks that lock nobody.
type nowhere struct{}

func (nowhere) Block(*lock.Lock) error                              { return nil }
func (nowhere) Unblock(uint32) error                                { return nil }
func (nowhere) SaveLock(*lock.Lock) error                           { return nil }
func (nowhere) SaveUnlocks(lock.Scope, int) error                   { return nil }
func (nowhere) LoadLocks() ([]lock.Lock, map[lock.Scope]int, error) { return nil, nil, nil }

// wouldLock hears of a lock that there would have been.
func (d *daemon) wouldLock(e lock.Event) {
	d.log.Info("would have locked a user who is only watched", "user", e.Lock.User.Name, "code", e.Lock.Code, "reason", e.Lock.Reason)
	d.observations.locked(e.Lock.User.ID)
}
