package proxy

import (
	"context"
	"time"

	"sluice/filter/policy"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
)

// delivery is how the user's mail leaves in this session.
func (s *session) delivery() policy.Delivery {
	if s.own {
		return policy.Own
	}
	return s.user.Delivery
}

// pool is where the user's mail leaves through: that of the mail at hand, else the one he has usually.
func (s *session) pool() *pool.Pool {
	switch {
	case s.set.Pools == nil:
		return s.set.Pool
	case s.work != nil && s.tx.open && s.tx.risk:
		return s.set.Pools.Risky()
	case s.work != nil && s.tx.open && s.tx.aside:
		return s.set.Pools.Forwarded(s.tx.msg.Envelope.From.Domain())
	case s.work != nil && s.tx.open:
		return s.set.Pools.For(s.flow.User.Name, s.tx.msg.Envelope.From.Domain())
	}
	return s.set.Pools.Of(s.flow.User.Name)
}

// opening is the way of an onward session that is opened before an envelope is known. Where it depends on the DNS whether
// a delivery address may be used, that is one only towards a destination that is known to take mail for its own
// recipients: others may not let a stranger in.
func (s *session) opening() relay.Route {
	target := s.flow.Target.Addr()
	managed := s.delivery() == policy.Managed
	if s.delivery() == policy.Auto && s.srv.cfg.Authority != nil {
		last, seen := s.srv.ways.foresee(way{s.flow.User.ID, s.flow.Target})
		exchanger, relay := s.srv.cfg.Authority.Seen(target, time.Now())
		managed = exchanger && !relay && !(seen && last.Own)
	}
	if managed {
		if a, ok := s.pool().Default(s.flow.User.ID, target); ok && !s.pool().Own() {
			return s.by(&pool.Decision{Address: a})
		}
	}
	return s.by(&pool.Decision{Own: true})
}

// decide chooses once for a transaction, by the domain of its first recipient, from where it leaves.
func (s *session) decide(ctx context.Context, domain string) *pool.Decision {
	t := &s.tx
	if t.decided {
		return &t.way
	}
	t.decided = true
	if s.delivery() == policy.Own {
		t.way = pool.Decision{Own: true}
		return &t.way
	}
	q := pool.Question{Key: s.key(domain), To: s.flow.Target.Addr(), Auto: s.delivery() == policy.Auto, Signed: s.signs(), At: t.start}
	t.way = s.srv.cfg.Authority.DecideAgain(ctx, s.pool(), s.srv.cfg.Choices, &q, &s.lately)
	if t.aside && !t.risk && (t.way.Why == pool.Spent || t.way.Own && !s.pool().Own()) { // not by its own pool: as his other mail
		t.aside = false
		t.way = s.srv.cfg.Authority.Decide(ctx, s.pool(), s.srv.cfg.Choices, &q)
	}
	switch {
	case t.way.Why != pool.Told:
		t.rec.Way = t.way.Why.String()
	case t.aside && !t.risk:
		t.rec.Way = "pool of forwarded mail"
	}
	return &t.way
}

// expectSender has the DNS asked about a sender before his recipients are known.
func (s *session) expectSender() {
	target := s.flow.Target.Addr()
	switch s.delivery() {
	case policy.Own:
		return
	case policy.Managed:
		if !s.pool().Several(target) {
			return
		}
	}
	s.srv.cfg.Authority.ExpectAgain(s.pool(), s.tx.msg.Envelope.From.Domain(), target, s.tx.start, &s.lately)
}

// key is what the choice of a delivery address depends on.
func (s *session) key(domain string) pool.Key {
	return pool.Key{User: s.flow.User.ID, Sender: s.tx.msg.Envelope.From.Domain(), Recipient: domain}
}

// by is the route of a decision: from the customer's own address it is under the customer's own name.
func (s *session) by(d *pool.Decision) relay.Route {
	if d.Own {
		return relay.Route{Target: s.flow.Target, Source: s.flow.Client.Addr(), Own: true, Helo: s.helo}
	}
	return relay.Route{Target: s.flow.Target, Source: d.IP, Helo: d.Helo}
}

// adopt tells whether the transaction, which may leave from a delivery address, may leave by a session that was opened
// before its domains were known. Otherwise the first mail to a destination would pay for two.
func (s *session) adopt(at *relay.Route) bool {
	target := s.flow.Target.Addr()
	if at.Own || s.delivery() == policy.Own {
		return false
	}
	if first, ok := s.pool().Default(s.flow.User.ID, target); !ok || first.IP != at.Source || first.Helo != at.Helo {
		return false
	}
	k := s.key(s.tx.asked[0].Domain)
	must := s.delivery() == policy.Auto && s.tx.way.Why != pool.Signed
	if !s.srv.cfg.Authority.Fits(k, at.Source, must, s.tx.start) {
		return false
	}
	return s.srv.cfg.Choices.Adopt(s.pool(), k, target, s.tx.start)
}
