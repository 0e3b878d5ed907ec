package pool

import (
	"context"
	"math"
	"net/netip"
	"strings"
	"time"
)

// Why is the reason for which mail leaves from where it does.
type Why uint8

// The reasons. Those from Exchanger on are of delivery "auto".
const (
	Told       Why = iota // the setting says so
	NoFamily              // there is no delivery address of the destination's family
	Exchanger             // managed: the destination takes mail for the recipient's domain, and SPF allows it
	Signed                // managed: so does it, and SPF does not, but the mail is signed by its author's domain
	Relayed               // own: the destination takes mail for domains of others, and may know the customer by his address
	NotAllowed            // own: SPF forbids each delivery address
	Unanswered            // own: the DNS did not answer in time
	NotAsked              // own: nobody can ask the DNS
	Spent                 // each delivery address has sent to that provider what it may for now: own by delivery auto, else none
	whys
)

// Name is the reason's short name.
func (w Why) Name() string {
	return [...]string{"set", "family", "exchanger", "signed", "relay", "spf", "unanswered", "unasked", "spent"}[min(w, Spent)]
}

// String tells the reason.
func (w Why) String() string {
	return [...]string{
		"as set", "no delivery address of this family", "auto: the destination takes mail for the recipient's domain, and SPF allows the delivery address",
		"auto: SPF does not allow the delivery address, and the mail is signed by its author's domain",
		"auto: the destination takes no mail for the recipient's domain by itself, and may know the customer by address",
		"auto: SPF of the sender's domain forbids the delivery addresses", "auto: the DNS did not answer in time", "auto: the DNS is not asked",
		"each delivery address has sent to that provider what it may for now",
	}[min(w, Spent)]
}

// Question is what a decision is about.
type Question struct {
	Key
	To     netip.Addr // the destination
	Auto   bool       // a delivery address only where the DNS shows that it does no harm; else wherever there is one
	Signed bool       // the sender's mail is known to be signed by its author's domain
	At     time.Time
}

// Decision is from where a mail leaves.
type Decision struct {
	Address      // of ours; zero where Own
	Own     bool // from the customer's own address
	Why     Why
}

// Decide says from where a mail leaves (DIP2, DIP7, DIP9). Answers of the DNS that are known cost less than a microsecond;
// others are waited for where Auto depends on them, until ctx ends or a.Wait is over. What is not known then is taken for the
// worse: the customer's own address, which is where the mail would have left from without us. Without an Authority SPF is
// not asked.
func (a *Authority) Decide(ctx context.Context, p *Pool, c *Choices, q *Question) Decision {
	to := q.To.Unmap()
	if p.Own() {
		return Decision{Own: true}
	}
	if p == nil || len(p.family(to)) == 0 {
		return Decision{Own: true, Why: NoFamily}
	}
	if !q.Auto {
		best, _ := a.choose(p, c, q, to)
		if a != nil && a.Ledger.Bounds() {
			return a.bound(p, q, to, Decision{Address: best})
		}
		return Decision{Address: best}
	}
	if a == nil {
		return Decision{Own: true, Why: NotAsked}
	}
	d := a.auto(p, c, q, to)
	if d.Why == Unanswered {
		ctx, cancel := context.WithTimeout(ctx, a.Wait)
		a.await(ctx, p, q, to)
		cancel()
		d = a.auto(p, c, q, to)
	}
	if !d.Own && a.Ledger.Bounds() {
		d = a.bound(p, q, to, d)
	}
	a.counts[d.Why].Add(1)
	if d.Why != Unanswered {
		a.learn(to, q.Recipient, d.Why != Relayed, q.At)
	}
	return d
}

// bound replaces an address that has sent what it may to the provider for now by the next of the pool that may send and
// that SPF allows as well.
func (a *Authority) bound(p *Pool, q *Question, to netip.Addr, d Decision) Decision {
	provider := a.provider(q.Recipient, q.At)
	if a.Ledger.May(d.IP, provider, q.At) {
		return d
	}
	domain, base, set, top, found := strings.ToLower(q.Sender), q.Key.hash(), p.family(to), math.Inf(-1), false
	for i := range set {
		m := &set[i]
		if !a.Ledger.May(m.IP, provider, q.At) || d.Why == Exchanger && q.Sender != "" && !a.leave(domain, m.IP, q.At).OK() {
			continue
		}
		if s := m.score(base); s > top {
			d.Address, top, found = m.Address, s, true
		}
	}
	if !found {
		d.Why, d.Own = Spent, q.Auto
	}
	return d
}

// auto decides by what is known.
func (a *Authority) auto(p *Pool, c *Choices, q *Question, to netip.Addr) Decision {
	x, known := a.Exchangers.Peek(strings.ToLower(q.Recipient), q.At)
	best, leave := a.choose(p, c, q, to) // asks, too, so that both questions go out at once
	switch {
	case !known:
		return Decision{Own: true, Why: Unanswered}
	case !x.Has(to):
		return Decision{Own: true, Why: Relayed}
	case leave.OK():
		return Decision{Address: best, Why: Exchanger}
	case q.Signed:
		return Decision{Address: best, Why: Signed}
	case leave == Unasked:
		return Decision{Own: true, Why: Unanswered}
	}
	return Decision{Own: true, Why: NotAllowed}
}

// await waits for the answers that a decision needs.
func (a *Authority) await(ctx context.Context, p *Pool, q *Question, to netip.Addr) {
	if x, known := a.Exchangers.Get(ctx, strings.ToLower(q.Recipient), q.At); !known || !x.Has(to) || q.Sender == "" {
		return
	}
	domain := strings.ToLower(q.Sender)
	for i, set := 0, p.family(to); i < len(set) && ctx.Err() == nil; i++ {
		if l, known := a.SPF.Get(ctx, SPFQuestion{domain, set[i].IP}, q.At); known && l == Unsaid {
			return
		}
	}
}

// choose returns the address for a mail with what SPF says of it: the one that is remembered or that the pool chooses,
// unless SPF forbids that and allows another.
func (a *Authority) choose(p *Pool, c *Choices, q *Question, to netip.Addr) (Address, Leave) {
	first, _ := c.Choose(p, q.Key, to, q.At)
	if a == nil || q.Sender == "" { // a null sender is judged by the HELO name (RFC 7208 2.4), which is ours
		return first, Allowed
	}
	set := p.family(to)
	if !q.Auto && len(set) == 1 {
		return first, Unasked // there is no choice
	}
	domain := strings.ToLower(q.Sender)
	leave := a.leave(domain, first.IP, q.At)
	if leave >= Unsaid || len(set) == 1 {
		return first, leave
	}
	base, best, most, top := q.Key.hash(), first, leave, math.Inf(1)
	for i := range set {
		m := &set[i]
		if m.IP == first.IP {
			continue
		}
		l, s := a.leave(domain, m.IP, q.At), m.score(base)
		if l > most || l == most && s > top {
			best, most, top = m.Address, l, s
		}
	}
	return best, most
}

func (a *Authority) leave(domain string, from netip.Addr, now time.Time) Leave {
	if l, known := a.SPF.Peek(SPFQuestion{domain, from}, now); known {
		return l
	}
	return Unasked
}
