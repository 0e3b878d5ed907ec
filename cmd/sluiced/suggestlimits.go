package main

import (
	"context"
	"math"
	"slices"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/msglog"
	"sluice/filter/policy"
	"sluice/proxy"
)

const (
	suggestDays  = 30
	suggestLeast = 7 // days with mail, below which a history says too little
	suggestRoom  = 2 // times the busiest: a limit's window slides, and customers grow
)

// suggester counts what a user sent by the hour and the day of the clock.
type suggester struct {
	hours, days [2]map[int64]int64 // messages, recipients
	messages    int
}

func newSuggester() *suggester {
	s := &suggester{}
	for i := range s.hours {
		s.hours[i], s.days[i] = map[int64]int64{}, map[int64]int64{}
	}
	return s
}

// add counts a message that went out. What was refused or bad says nothing about what a user needs.
func (s *suggester) add(r *proxy.Record) bool {
	if r.Status != proxy.Delivered && r.Status != proxy.Queued || r.Verdict.Class.Bad() {
		return true
	}
	s.messages++
	rcpts := int64(0)
	for i := range r.To {
		if r.To[i].Code/100 == 2 {
			rcpts++
		}
	}
	for i, n := range [2]int64{1, rcpts} {
		s.hours[i][r.Start.Unix()/3600] += n
		s.days[i][r.Start.Unix()/86400] += n
	}
	return s.messages < mostReplayed
}

// limits proposes them beside those in force.
func (s *suggester) limits(now *policy.Limits) (all []api.SuggestedLimit) {
	for _, c := range []struct {
		kind policy.LimitKind
		seen map[int64]int64
	}{{policy.MessagesHour, s.hours[0]}, {policy.MessagesDay, s.days[0]}, {policy.RecipientsHour, s.hours[1]}, {policy.RecipientsDay, s.days[1]}} {
		var counts []int64
		for _, n := range c.seen {
			counts = append(counts, n)
		}
		slices.Sort(counts)
		l := api.SuggestedLimit{Limit: c.kind.String()}
		if now != nil {
			l.Now = now.Max[c.kind]
		}
		if n := len(counts); n > 0 {
			l.Busiest, l.Usual = counts[n-1], counts[n/2]
			l.Suggested = round(max(suggestRoom*l.Busiest, 10))
		}
		all = append(all, l)
	}
	return all
}

// round gives a number of two figures that is not smaller.
func round(n int64) int64 {
	unit := int64(math.Pow10(max(0, digits(n)-2)))
	return (n + unit - 1) / unit * unit
}

func digits(n int64) (d int) {
	for ; n > 0; n /= 10 {
		d++
	}
	return d
}

// Suggest proposes limits for a user from his own history (LIM8).
func (b backend) Suggest(ctx context.Context, user string) (*api.Suggestion, error) {
	m, err := b.find(user)
	if err != nil {
		return nil, err
	}
	select {
	case b.d.reporting <- struct{}{}:
		defer func() { <-b.d.reporting }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s := newSuggester()
	if err := b.d.messages.Each(ctx, msglog.Query{User: m.ID, From: time.Now().AddDate(0, 0, -suggestDays)}, s.add); err != nil {
		return nil, err
	}
	return &api.Suggestion{User: m.Name, Days: len(s.days[0]), Messages: s.messages, Enough: len(s.days[0]) >= suggestLeast, Limits: s.limits(b.d.policy.Settings(m.ID).Limits)}, nil
}
