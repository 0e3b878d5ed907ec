package main

import (
	"strings"

	"sluice/cmd/internal/config"
	"sluice/filter"
	"sluice/filter/limit"
	"sluice/filter/lock"
	"sluice/filter/policy"
)

// limitsOf makes the limits that the configuration says; it has checked the names.
func limitsOf(c *config.Limits) *policy.Limits {
	l := &policy.Limits{Max: [policy.LimitKinds]int64{
		policy.MessagesMinute: int64(c.MessagesPerMinute), policy.MessagesHour: int64(c.MessagesPerHour), policy.MessagesDay: int64(c.MessagesPerDay),
		policy.MessagesWeek: int64(c.MessagesPerWeek), policy.MessagesMonth: int64(c.MessagesPerMonth),
		policy.RecipientsMinute: int64(c.RecipientsPerMinute), policy.RecipientsHour: int64(c.RecipientsPerHour), policy.RecipientsDay: int64(c.RecipientsPerDay),
		policy.RecipientsWeek: int64(c.RecipientsPerWeek), policy.RecipientsMonth: int64(c.RecipientsPerMonth),
		policy.BytesDay: int64(c.BytesPerDay), policy.DistinctDay: int64(c.DistinctPerDay),
		policy.InvalidHour: int64(c.InvalidPerHour), policy.InvalidShare: int64(c.InvalidPercent), policy.FailedHour: int64(c.FailedPerHour), policy.NullHour: int64(c.NullPerHour),
		policy.QueuedMessages: int64(c.QueuedMessages),
	}}
	each := func(names []string, do func(policy.LimitKind, string)) {
		for _, n := range names {
			name, text, _ := strings.Cut(n, ":")
			if k, err := policy.ParseLimitKind(name); err == nil {
				do(k, strings.TrimSpace(text))
			}
		}
	}
	each(c.Reject, func(k policy.LimitKind, _ string) { l.Action[k] = policy.RejectOver })
	each(c.Lock, func(k policy.LimitKind, _ string) { l.Action[k] = policy.LockOver })
	each(c.Shadow, func(k policy.LimitKind, _ string) { l.Shadow[k] = true })
	each(c.Texts, func(k policy.LimitKind, text string) { l.Text[k] = text })
	return l
}

// identityLimits are those of each identity, nil where there are none.
func identityLimits(c *config.Identity) *policy.Limits {
	l := &policy.Limits{}
	l.Max[policy.MessagesHour], l.Max[policy.RecipientsHour] = int64(c.MessagesPerHour), int64(c.RecipientsPerHour)
	l.Max[policy.MessagesDay], l.Max[policy.RecipientsDay] = int64(c.MessagesPerDay), int64(c.RecipientsPerDay)
	if *l == (policy.Limits{}) {
		return nil
	}
	return l
}

// limitMet hears of limits that were met: one that locks locks. A budget is no single user's fault.
func (d *daemon) limitMet(o limit.Over) {
	if o.Shadow || o.Action != policy.LockOver || o.Scope > policy.OfIdentity {
		return
	}
	only := ""
	if o.Scope == policy.OfIdentity {
		only = o.Identity
	}
	d.locks.Demand(o.Flow.User, only, lock.Evidence{Message: o.Message, From: o.From, Check: "rate", Code: o.Code, Class: filter.Policy.String(), Detail: o.Evidence}, "went over "+o.Evidence)
}
