package limit

import (
	"context"
	"fmt"
	"math"
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
	return &Rate{counter: c, settings: s, over: over}
}

// Check implements filter.Check in phases rcpt and data; in phase part it reserves what has come so far.
func (r *Rate) Check(_ context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	set := r.settings.Settings(m.Flow.User.ID)
	if set.Limits == nil && set.PerIdentity == nil && set.Budgets == nil {
		return hits
	}
	h := &m.Reserved
	if p >= filter.Data && h.More == nil && set.PerIdentity == nil && set.Budgets == nil && set.Limits.Max[policy.BytesDay] == 0 {
		return hits // all was asked before
	}
	if p == filter.Rcpt && r.usual(set, m) {
		return hits
	}
	a := asking{r: r, p: p, m: m, h: h, to: len(m.Envelope.To), hits: hits}
	if p == filter.Rcpt {
		a.to++ // the one that is asked about
	}
	a.all(set)
	if w, ok := h.More.(*more); ok && p == filter.Data {
		a.hits = append(a.hits, w.shadows...)
	}
	return a.hits
}

// usual reserves for a recipient where the limits are those of an hour alone, and all of them let it pass, as nearly always.
// Where it returns false nothing was reserved, and each limit is asked by itself.
func (r *Rate) usual(set *policy.Settings, m *message.Message) bool {
	l, h := set.Limits, &m.Reserved
	if set.PerIdentity != nil || set.Budgets != nil || h.More != nil || m.HandedIn || m.Envelope.From == "" || !l.Hourly() {
		return false
	}
	n, most := Hour{}, Hour{math.MaxInt, math.MaxInt}
	if v := l.Max[policy.MessagesHour]; v != 0 {
		n.Messages, most.Messages = max(0, 1-h.Messages), int(v)
	}
	if v := l.Max[policy.RecipientsHour]; v != 0 {
		n.Recipients, most.Recipients = max(0, len(m.Envelope.To)+1-h.Recipients), int(v)
	}
	unbound := Past{math.MaxInt, math.MaxInt}
	bad := unbound
	if v := l.Max[policy.InvalidHour]; v != 0 {
		bad.Invalid = int(v)
	}
	if l.Max[policy.InvalidShare] != 0 {
		bad.Invalid = min(bad.Invalid, policy.LeastInvalid)
	}
	if v := l.Max[policy.FailedHour]; v != 0 {
		bad.Failed = int(v)
	}
	if (n != (Hour{}) || bad != unbound) && !r.counter.ReserveHour(m.Flow.User.ID, n, most, bad) {
		return false
	}
	h.Messages += n.Messages
	h.Recipients += n.Recipients
	return true
}

// Settle implements filter.Settler.
func (r *Rate) Settle(m *message.Message, out filter.Outcome) {
	h := m.Reserved // without limits nothing was reserved; what was sent still counts for one that may be set later
	m.Reserved = message.Reserved{}
	if h.Waits != 0 {
		r.Waiting.Give(h.Waits)
	}
	user, reserved, booked := m.Flow.User.ID, Hour{h.Messages, h.Recipients}, Hour{min(1, out.Accepted), out.Accepted}
	if reserved != (Hour{}) || booked != (Hour{}) {
		r.counter.SettleHour(user, reserved, booked)
	}
	if out.Invalid > 0 {
		r.counter.Settle(hourly(user, Invalid), 0, out.Invalid)
	}
	if out.Failed > 0 {
		r.counter.Settle(hourly(user, Failed), 0, out.Failed)
	}
	if w, ok := h.More.(*more); ok {
		w.settle(r.counter, m, &out)
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
