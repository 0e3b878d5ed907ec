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
var RatePhases = []filter.Phase{filter.Rcpt, filter.Data, filter.Part}

// Rate holds users, their identities and the budgets they share to their limits (LIM1 to LIM7). It reserves a message with
// the first recipient and each recipient as it is named, at the end of data what is known only then, books them when the
// client was told 250 for the message, and gives them back otherwise. So a message that is deferred ten times counts once.
type Rate struct {
	counter  Counter
	settings policy.Resolver
	over     func(Over) // may be nil
	// Waiting bounds what waits in the queue; nil: nothing does. It is set before the first message.
	Waiting *Waiting
	open    [shards]openShard
}

// Over is a limit that was met.
type Over struct {
	Flow     *flow.Flow
	Message  string // its id
	From     string
	Identity string
	Kind     policy.LimitKind
	Scope    policy.Scope
	Whose    string // name of the account or plan
	Max      int64
	Action   policy.LimitAction
	Shadow   bool // nothing was refused
	Code     string
	Evidence string
}

// openShard holds the reservations of transactions under way. A flow has one at a time, so its id is the key.
type openShard struct {
	mu   sync.Mutex
	held map[flow.ID]held
}

// held is what a transaction reserved: of its user's hour, which nearly everybody has limits for, and of anything else.
type held struct {
	messages, recipients int
	waits                uint32 // the user whose place in the queue it is; 0: none
	more                 *more
}

// more is what few transactions reserve.
type more struct {
	taken   []taken
	shadows []filter.Hit // limits that are only reported
	told    uint32       // of which kinds, so that each is said once
}

// taken is what was reserved of one count.
type taken struct {
	key Key
	n   int
}

// NewRate returns the check that counts with c by the limits of s. Whoever wants to hear of limits that were met gives
// over, which must not block; it may be nil.
func NewRate(c Counter, s policy.Resolver, over func(Over)) *Rate {
	r := &Rate{counter: c, settings: s, over: over}
	for i := range r.open {
		r.open[i].held = map[flow.ID]held{}
	}
	return r
}

// Check implements filter.Check in phases rcpt and data; in phase part it reserves what has come so far.
func (r *Rate) Check(_ context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	set := r.settings.Settings(m.Flow.User.ID)
	if set.Limits == nil && set.PerIdentity == nil && set.Budgets == nil {
		return hits
	}
	o := r.shard(m.Flow.ID)
	had := o.get(m.Flow.ID)
	if p >= filter.Data && had.more == nil && set.PerIdentity == nil && set.Budgets == nil && set.Limits.Max[policy.BytesDay] == 0 {
		return hits // all was asked before
	}
	a := asking{r: r, p: p, m: m, h: had, to: len(m.Envelope.To), hits: hits}
	if p == filter.Rcpt {
		a.to++ // the one that is asked about
	}
	a.all(set)
	if a.h != had {
		o.set(m.Flow.ID, a.h)
	}
	if p == filter.Data && a.h.more != nil {
		a.hits = append(a.hits, a.h.more.shadows...)
	}
	return a.hits
}

// Settle implements filter.Settler.
func (r *Rate) Settle(m *message.Message, out filter.Outcome) {
	o := r.shard(m.Flow.ID)
	o.mu.Lock()
	h := o.held[m.Flow.ID] // without limits nothing was reserved; what was sent still counts for one that may be set later
	delete(o.held, m.Flow.ID)
	o.mu.Unlock()
	if h.waits != 0 {
		r.Waiting.Give(h.waits)
	}
	user, sent := m.Flow.User.ID, min(1, out.Accepted)
	if h.messages+sent > 0 {
		r.counter.Settle(hourly(user, Messages), h.messages, sent)
	}
	if h.recipients+out.Accepted > 0 {
		r.counter.Settle(hourly(user, Recipients), h.recipients, out.Accepted)
	}
	if out.Invalid > 0 {
		r.counter.Settle(hourly(user, Invalid), 0, out.Invalid)
	}
	if out.Failed > 0 {
		r.counter.Settle(hourly(user, Failed), 0, out.Failed)
	}
	if h.more != nil {
		h.more.settle(r.counter, m, &out)
	}
}

func (w *more) settle(c Counter, m *message.Message, out *filter.Outcome) {
	for _, t := range w.taken {
		booked := 0
		switch t.key.What {
		case Messages, Null:
			booked = min(1, out.Accepted)
		case Recipients:
			booked = out.Accepted
		case Bytes:
			if out.Accepted > 0 {
				booked = int(m.DataSize)
			}
		case Distinct:
			var hashes []uint64
			if out.Accepted > 0 {
				for _, to := range m.Envelope.To {
					hashes = append(hashes, hashOf(string(to)))
				}
			}
			c.SettleNew(t.key, t.n, hashes)
			continue
		}
		c.Settle(t.key, t.n, booked)
	}
}

// Undelivered books what became of a user's mail later: deliveries that failed for good, and recipients who are unknown at
// their destinations.
func Undelivered(c Counter, user uint32, failed, invalid int) {
	if failed > 0 {
		c.Settle(hourly(user, Failed), 0, failed)
	}
	if invalid > 0 {
		c.Settle(hourly(user, Invalid), 0, invalid)
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

// hashOf tells recipients and identities apart; letters count without case.
func hashOf(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	h ^= h >> 32
	h *= 0x9E3779B97F4A7C15
	h ^= h >> 29
	h *= 0xBF58476D1CE4E5B9
	return h ^ h>>32
}

// codes are the public codes by what is counted.
var codes = [...]string{Messages: "RATE-MSG", Recipients: "RATE-RCPT", Bytes: "RATE-BYTES", Distinct: "RATE-DISTINCT", Invalid: "RATE-INVALID", Failed: "RATE-FAILED", Null: "RATE-NULL", Queued: "QUEUE-MAX"}

// minutes is a wait as a reply tells it.
func minutes(wait time.Duration) string {
	n := max(1, int((wait+time.Minute-1)/time.Minute))
	if n > 180 {
		return fmt.Sprintf("%d h", (n+59)/60)
	}
	return fmt.Sprintf("%d min", n)
}
