package main

import (
	"context"

	"sluice/cmd/internal/api"
	"sluice/filter/lock"
	"sluice/filter/lock/ladder"
	"sluice/filter/policy"
)

// conduct is how far a sender has come.
func (b backend) conduct(whom lock.Scope) api.Standing {
	s := b.d.locks.Standing(whom)
	return api.Standing{Rung: s.Rung.String(), Cause: s.Cause, Probation: s.Probation, Score: s.Score, Factors: shownFactors(s.Factors)}
}

func shownFactors(all []ladder.Factor) (shown []api.Factor) {
	for _, f := range all {
		shown = append(shown, api.Factor(f))
	}
	return shown
}

func shownRules(l *policy.Lock) api.LockRules {
	return api.LockRules{
		Never: l.Never, DayCount: l.DayCount, DayShare: l.DayShare, AverageCount: l.AverageCount, Average: l.Average, Viruses: l.Viruses, Phish: l.Phish, Traps: l.Traps, Complaints: l.Complaints,
		RemoteSpam: l.RemoteSpam, Unknown: l.Unknown, UnknownShare: l.UnknownShare, Guesses: l.Guesses, ForwardedShare: l.ForwardedShare, Identities: l.Origins,
		Throttled: l.Throttled, Probation: int(l.Probation.Seconds()), ProbationPerHour: l.ProbationRate,
		ScoreSlow: l.ScoreSlow, ScoreHeld: l.ScoreHeld, ScoreAlarm: l.ScoreAlarm, UnlocksByLink: l.ByLink,
	}
}

// Undo lifts all that a check locked by itself (LCK12).
func (b backend) Undo(_ context.Context, who string, r api.UndoRequest) ([]api.Lock, error) {
	undone := b.d.locks.Undo(r.Check, r.Since, who)
	ls := make([]api.Lock, len(undone))
	for i := range undone {
		ls[i] = *b.warned(shownLock(&undone[i]))
	}
	b.d.log.Warn("locks undone", "check", r.Check, "since", r.Since, "count", len(ls), "by", who)
	return ls, nil
}
