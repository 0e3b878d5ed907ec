package pool

import (
	"context"
	"net/netip"
	"time"
)

// recently is how long a decision holds for a mail that asks the same: what the DNS says is taken for older than that anyway.
const recently = time.Second

// Recent is what was decided a moment ago for whoever mails more of the same. The zero value is nothing. It belongs to one
// goroutine.
type Recent struct {
	pool    *Pool
	q       Question
	d       Decision
	version uint64 // of what is remembered of choices
}

// DecideAgain does as Decide, without asking anew what was decided a moment ago for the same, which it keeps in r.
func (a *Authority) DecideAgain(ctx context.Context, p *Pool, c *Choices, q *Question, r *Recent) Decision {
	if r.about(p, q) && r.version == c.version.Load() && !a.bounds() {
		if q.Auto {
			a.counts[r.d.Why].Add(1)
		}
		return r.d
	}
	version := c.version.Load()
	d := a.Decide(ctx, p, c, q)
	*r = Recent{}
	if keeps := d.Why == Told || d.Why == Exchanger || d.Why == Signed || d.Why == NotAllowed; keeps && p != nil { // others are counted, or may be better known the next time
		*r = Recent{pool: p, q: *q, d: d, version: version}
	}
	return d
}

// ExpectAgain does as Expect, unless what was decided a moment ago shows that it is known.
func (a *Authority) ExpectAgain(p *Pool, sender string, to netip.Addr, now time.Time, r *Recent) {
	if r.pool == nil || r.pool != p || r.q.Sender != sender || r.q.To != to || !r.at(now) || r.d.Why == NotAllowed {
		a.Expect(p, sender, to, now)
	}
}

// about tells whether the same was asked a moment ago.
func (r *Recent) about(p *Pool, q *Question) bool {
	return r.pool != nil && r.pool == p && r.q.Key == q.Key && r.q.To == q.To && r.q.Auto == q.Auto && r.q.Signed == q.Signed && r.at(q.At)
}

// at tells whether it was a moment before now.
func (r *Recent) at(now time.Time) bool {
	age := now.Sub(r.q.At)
	return 0 <= age && age < recently
}

// bounds tells whether the addresses may send so much and no more.
func (a *Authority) bounds() bool { return a != nil && a.Ledger.Bounds() }
