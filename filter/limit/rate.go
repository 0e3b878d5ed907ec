package limit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// RatePhases are the phases at which Rate is asked.
var RatePhases = []filter.Phase{filter.Rcpt}

// Rate holds users to their messages and recipients per hour (LIM1). It reserves a message with the first recipient and
// each recipient as it is named, books them when the client was told 250 for the message, and gives them back otherwise.
type Rate struct {
	counter  Counter
	settings policy.Resolver
	open     [shards]openShard
}

// openShard holds the reservations of transactions under way. A flow has one at a time, so its id is the key.
type openShard struct {
	mu   sync.Mutex
	held map[flow.ID]held
}

type held struct {
	user                 uint32
	messages, recipients int
}

// NewRate returns the check that counts with c by the limits of s.
func NewRate(c Counter, s policy.Resolver) *Rate {
	r := &Rate{counter: c, settings: s}
	for i := range r.open {
		r.open[i].held = map[flow.ID]held{}
	}
	return r
}

// Check implements filter.Check in phase rcpt.
func (r *Rate) Check(_ context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	if p != filter.Rcpt {
		return hits
	}
	set := r.settings.Settings(m.Flow.User.ID)
	o := r.shard(m.Flow.ID)
	h := o.get(m.Flow.ID)
	h.user = m.Flow.User.ID
	had := h
	hits = r.reserve(&h, set, len(m.Envelope.To)+1, hits)
	if h != had {
		o.set(m.Flow.ID, h)
	}
	return hits
}

// reserve brings what h holds up to one message and want recipients. A recipient that was refused by another check or
// by the remote left its reservation behind; the next one uses it.
func (r *Rate) reserve(h *held, set *policy.Settings, want int, hits []filter.Hit) []filter.Hit {
	if h.messages == 0 && set.MessagesPerHour > 0 {
		wait, ok := r.counter.Reserve(hourly(h.user, Messages), 1, set.MessagesPerHour)
		if !ok {
			return append(hits, over("RATE-MSG", "messages", set.MessagesPerHour, wait))
		}
		h.messages = 1
	}
	if n := want - h.recipients; n > 0 && set.RecipientsPerHour > 0 {
		wait, ok := r.counter.Reserve(hourly(h.user, Recipients), n, set.RecipientsPerHour)
		if !ok {
			return append(hits, over("RATE-RCPT", "recipients", set.RecipientsPerHour, wait))
		}
		h.recipients = want
	}
	return hits
}

// Settle implements filter.Settler.
func (r *Rate) Settle(m *message.Message, out filter.Outcome) {
	o := r.shard(m.Flow.ID)
	o.mu.Lock()
	h, ok := o.held[m.Flow.ID]
	delete(o.held, m.Flow.ID)
	o.mu.Unlock()
	if !ok {
		// Without limits nothing was reserved; what was sent still counts for a limit that may be set later.
		h.user = m.Flow.User.ID
	}
	sent := min(1, out.Accepted)
	if h.messages+sent > 0 {
		r.counter.Settle(hourly(h.user, Messages), h.messages, sent)
	}
	if h.recipients+out.Accepted > 0 {
		r.counter.Settle(hourly(h.user, Recipients), h.recipients, out.Accepted)
	}
}

// get returns what is held for a flow. A flow's dialogue is one sequence, so nothing changes it until set.
func (o *openShard) get(id flow.ID) held {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.held[id]
}

func (o *openShard) set(id flow.ID, h held) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held[id] = h
}

func (r *Rate) shard(id flow.ID) *openShard { return &r.open[id%shards] }

func hourly(user uint32, what Quantity) Key { return Key{User: user, What: what, Window: time.Hour} }

func over(code, what string, limit int, wait time.Duration) filter.Hit {
	minutes := int((wait + time.Minute - 1) / time.Minute)
	return filter.Hit{
		Code: code, Class: filter.Policy, Action: filter.Defer, SMTP: 451, Enhanced: "4.7.1",
		Text:     fmt.Sprintf("this sender has reached its limit of %d %s per hour; try again in %d min", limit, what, max(1, minutes)),
		Evidence: fmt.Sprintf("%s in the last hour would exceed %d", what, limit),
	}
}
