package proxy

import (
	"sluice/filter/policy"
	"sluice/proxy/pool"
	"sluice/proxy/smtp"
)

// apart has a message that the filter takes for risky leave through the pool of risky mail: the onward session in which the
// destination has its envelope is given up, and a new one is given the same, so that a recipient who is refused there after
// 250 was said costs 451. With false it cannot, and is put off: there is no such pool; the customer's own address or login is
// what the destination goes by; or the DNS forbids it.
func (s *session) apart() bool {
	t := &s.tx
	if s.set.Pools.Risky() == nil || s.authed || s.house == nil && s.delivery() == policy.Own {
		return false
	}
	t.risk = true
	if s.house != nil || t.keeping {
		return true
	}
	t.decided, t.rec.Way = false, ""
	d := s.decide(&s.ctx, t.passed[0].Domain)
	if d.Own || d.Why == pool.Spent {
		t.risk, t.decided = false, false
		return false
	}
	if t.rec.Way == "" {
		t.rec.Way = "pool of risky mail"
	}
	s.dropRemote()
	s.dropEarly()
	return true
}

// taken is all that is said of a message that goes nowhere.
var taken = answer{250, smtp.Enhanced{2, 0, 0}, "taken"}

// discard answers a message that a setting lets vanish: its sender is to learn nothing.
func (s *session) discard(e *ending) {
	s.dropRemote()
	s.say(taken)
	e.status, e.accepted = Discarded, len(s.tx.passed)
	s.finish(*e)
}
