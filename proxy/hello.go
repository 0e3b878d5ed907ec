package proxy

import (
	"errors"
	"time"

	"sluice/filter"
	"sluice/filter/policy"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// noticed is how long a greeting may take to come before that counts as waiting at a cap.
const noticed = 10 * time.Millisecond

// greet lets the session in and greets.
func (s *session) greet() bool {
	s.user = s.srv.cfg.Policy.Settings(s.flow.User.ID)
	target, client := s.flow.Target.Addr(), s.flow.Client.Addr()
	switch {
	case s.user == nil:
		return s.leave(unknownUser)
	case s.set.Pool.Has(target) || s.set.Local != nil && s.set.Local(target):
		return s.leave(ownTarget)
	case s.set.Pool.Has(client):
		return s.leave(ownSource)
	}
	if s.srv.cfg.Gate != nil {
		begin := time.Now()
		ctx := &entry{budget: newBudget(s.srv.drain, begin.Add(s.set.Timeouts.Gate)), session: &s.ctx}
		defer ctx.end()
		r, err := s.srv.cfg.Gate.Enter(ctx, client, target, s.user.SessionsPerSource, s.user.SessionsPerPair)
		if wait := time.Since(begin); wait >= noticed {
			s.waited = wait
		}
		if err != nil && s.srv.drain.Err() != nil {
			return s.leave(stopping)
		}
		if err != nil && s.ctx.Err() != nil {
			return false // cut
		}
		if err != nil {
			s.block = AtCap
			return s.leave(crowded)
		}
		s.gate = r
	}
	if !s.passes() {
		return false
	}
	if s.decideTLS(); s.starttls != policy.Pass {
		s.dialEarly()
	}
	if s.set.Mirror {
		return s.mirror()
	}
	s.conn.WriteRaw(s.set.fixed.greeting)
	return true
}

// passes asks the filter about a session that is let in, and notes whether it begins under a lock; else that is answered.
func (s *session) passes() bool {
	m := s.base()
	if v := s.ask(filter.Connect, &m); v.Refused() {
		return s.leave(refusal(s.set, &v, ""))
	}
	s.explains.Store(s.locked())
	return true
}

// hello answers EHLO and HELO: what the client sees is what the destination and we both can do.
func (s *session) hello(cmd *smtp.Command) {
	busy := s.tx.open && s.tx.tried > 0 || s.helo == ""
	if s.tx.open {
		s.finish(ending{status: s.tx.outcome(), note: "client said EHLO within the transaction"})
	}
	if !busy {
		if s.noise(); s.bye {
			return
		}
	}
	name, err := smtp.ParseHello(string(cmd.Arg))
	if err != nil {
		s.sayError(err)
		return
	}
	s.helo, s.esmtp = name, cmd.Verb == smtp.EHLO
	s.name.Store(&name)
	m := s.base()
	if v := s.ask(filter.Helo, &m); v.Refused() {
		s.helo = ""
		s.say(refusal(s.set, &v, ""))
		return
	}
	if !s.learn() {
		return
	}
	if !s.esmtp {
		s.conn.WriteReply(250, smtp.Enhanced{}, s.hostName())
		return
	}
	s.conn.WriteRaw(s.offer.AppendReply(nil, s.hostName()+" greets "+name))
}

// sayError answers a client's mistake that the wire engine found.
func (s *session) sayError(err error) {
	if code, enh, text, ok := smtp.ReplyFor(err); ok {
		s.say(answer{code, enh, text})
		return
	}
	s.say(notKnown)
}

// traceRoom is more than our trace field takes.
const traceRoom = 512

// learn finds what can be offered: from what is known of the destination, else by asking it now, so that the client
// hears of a dead one at the first moment and tries its next MX. A locked user's client is offered our own list, and
// nobody is asked. False means that the session was answered and ends.
func (s *session) learn() bool {
	s.host = ""
	if s.house != nil {
		s.offerHouse()
		return true
	}
	if _, is := s.srv.cfg.Locks.Locked(s.flow.User.ID); is {
		s.dropRemote()
		s.dropEarly()
		s.dropBlind()
		s.srv.cfg.Dialer.Drop(s.flow.User.ID)
		s.offer = smtp.Extensions{Set: ours, Size: s.maxSize()}
		s.offerOurs(true)
		return true
	}
	s.decideTLS()
	caps, err := s.inquire()
	if err != nil {
		s.fail(err)
		return false
	}
	s.host = caps.Name
	s.promise(&caps)
	s.offerAuth(&caps)
	s.offerOurs(caps.Encrypted || s.blind != nil && s.blind.OffersTLS())
	return true
}

// inquire asks what the destination can do, by the leg on which the client's STARTTLS would go. One that wants a certificate
// which only the client can have is left to them both, where that may be.
func (s *session) inquire() (relay.Caps, error) {
	if s.starttls == policy.Pass {
		return s.askBlind()
	}
	caps, err := s.askCaps()
	if s.esmtp && (caps.WantsCert || err != nil && asFailure(err).Cert) {
		s.certWanted("it goes on under TLS with nobody who has none")
		if s.decideTLS(); s.starttls == policy.Pass {
			return s.askBlind()
		}
	}
	return caps, err
}

// askCaps returns what the destination can do: from the session at hand, from what is known of it, or by asking it.
func (s *session) askCaps() (relay.Caps, error) {
	if s.remote != nil {
		return *s.remote.Caps(), nil
	}
	if s.authed {
		return relay.Caps{}, lostAuth()
	}
	route := s.opening()
	if s.early != nil {
		route = s.early.route
	}
	if err := s.failedEarly(); err != nil {
		return relay.Caps{}, err
	}
	if known, ok := s.srv.cfg.Dialer.Known(&route); ok {
		return known, nil
	}
	if err := s.takeEarly(route); err != nil {
		return relay.Caps{}, err
	}
	if s.remote == nil {
		if err := s.open(route, nil, time.Time{}); err != nil {
			return relay.Caps{}, err
		}
	}
	return *s.remote.Caps(), nil
}

// offerOurs adds what depends on us: PIPELINING and CHUNKING always, since both can be turned into what the destination
// understands (DEL8), STARTTLS where the onward leg keeps what it promises (DEL7) and nobody withholds it.
func (s *session) offerOurs(encrypted bool) {
	s.offer.Set |= smtp.ExtPipelining | smtp.ExtChunking
	if !encrypted || s.srv.cfg.TLS == nil || s.secure.Load() || s.authed {
		return
	}
	if s.starttls == policy.Strip {
		s.withhold()
		return
	}
	s.offer.Set |= smtp.ExtStartTLS
}

// maxSize is the largest message of this user.
func (s *session) maxSize() int64 { return maxSizeOf(s.set, s.user) }

func maxSizeOf(set *resolved, user *policy.Settings) int64 {
	if n := user.MessageSize; n > 0 && n < set.MaxSize {
		return n
	}
	return set.MaxSize
}

// fail answers a failure of the destination where nothing but the session depends on it.
func (s *session) fail(err error) {
	var f *relay.Failure
	if !errors.As(err, &f) {
		f = &relay.Failure{Code: 451, Enh: smtp.Enhanced{4, 4, 2}, Text: "the destination failed", Err: err}
	}
	s.tellFailure(f)
	if s.note == "" {
		s.note = f.Error()
	}
	s.bye = true
}

// tellFailure writes what the client is to hear of a failure.
func (s *session) tellFailure(f *relay.Failure) {
	if f.Raw != nil {
		s.heard = firstLine(f.Raw)
		s.pass(f.Raw)
	} else {
		s.say(failure(f))
	}
	s.bye = s.bye || f.Close
}
