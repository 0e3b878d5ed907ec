package pool

import (
	"context"
	"hash/maphash"
	"net/netip"
	"time"
)

// recently is how long a decision holds for a mail that asks the same: what the DNS says is taken for older than that anyway.
const recently = time.Second

// Recent is what was decided a moment ago for whoever mails more of the same. The zero value is nothing. It belongs to one
// goroutine.
type Recent struct {
	pool              *Pool
	sender, recipient uint64 // prints of the domains: their names lie in commands of long ago, which nobody else reads again
	user              uint32
	auto, signed      bool
	to                netip.Addr
	when              time.Time
	d                 Decision
	version           uint64 // of what is remembered of choices
}

// prints are made with a seed that nobody outside knows.
var seed = maphash.MakeSeed()

func print(domain string) uint64 { return maphash.String(seed, domain) }

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
		*r = Recent{pool: p, sender: print(q.Sender), recipient: print(q.Recipient), user: q.User, auto: q.Auto, signed: q.Signed, to: q.To, when: q.At, d: d, version: version}
	}
	return d
}

// ExpectAgain does as Expect, unless what was decided a moment ago shows that it is known.
func (a *Authority) ExpectAgain(p *Pool, sender string, to netip.Addr, now time.Time, r *Recent) {
	if r.pool == nil || r.pool != p || r.to != to || !r.at(now) || r.sender != print(sender) || r.d.Why == NotAllowed {
		a.Expect(p, sender, to, now)
	}
}

// about tells whether the same was asked a moment ago.
func (r *Recent) about(p *Pool, q *Question) bool {
	return r.pool != nil && r.pool == p && r.user == q.User && r.to == q.To && r.auto == q.Auto && r.signed == q.Signed && r.at(q.At) &&
		r.recipient == print(q.Recipient) && r.sender == print(q.Sender)
}

// at tells whether it was a moment before now.
func (r *Recent) at(now time.Time) bool {
	age := now.Sub(r.when)
	return 0 <= age && age < recently
}

// bounds tells whether the addresses may send so much and no more.
func (a *Authority) bounds() bool { return a != nil && a.Ledger.Bounds() }
