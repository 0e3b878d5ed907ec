package proxy

import (
	"context"
	"errors"
	"time"

	"sluice/filter/policy"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
	"sluice/proxy/tlspolicy"
)

// asFailure gives the failure in an error of package relay.
func asFailure(err error) *relay.Failure {
	var f *relay.Failure
	if errors.As(err, &f) {
		return f
	}
	return &relay.Failure{Code: 451, Enh: smtp.Enhanced{4, 4, 2}, Text: "the destination failed", Err: err}
}

// reach gives the transaction an onward session from the address that is chosen for it: the one at hand where it
// leaves from there, else a new one; fresh tells which. Opening it ends with the moment until, if that is not zero.
// With reuse it may be one that is kept from the user's last mail this way: it may be dead all the same.
func (s *session) reach(until time.Time, reuse bool) (fresh bool, f *relay.Failure) {
	t := &s.tx
	if reuse && len(t.passed) > 0 {
		return false, s.stay()
	}
	from := s.decide(&s.ctx, t.asked[0].Domain)
	if from.Why == pool.Spent && !from.Own {
		return true, &relay.Failure{Code: spent.code, Enh: spent.enh, Text: spent.text}
	}
	route := s.by(from)
	if at := s.unused(); at != nil && *at != route && !route.Own && s.adopt(at) {
		route = *at
	}
	if s.delivery() != policy.Own && !t.risk && !t.aside && route != s.taken {
		s.srv.ways.took(way{s.flow.User.ID, s.flow.Target}, route)
		s.taken = route
	}
	if s.remote != nil && (*s.remote.Route() != route || !s.remote.Fits(t.asked)) {
		s.dropRemote()
	}
	if err := s.takeEarly(route); err != nil {
		return true, asFailure(err)
	}
	if s.remote != nil && time.Since(s.used) > time.Second && !s.remote.Alive() {
		s.closeRemote()
	}
	if s.remote != nil && !s.authed && s.remote.Meets(t.terms) != nil {
		s.dropRemote() // it was opened before it was known what it must be: a fresh one may be that
	}
	if s.remote == nil && s.authed {
		return true, lostAuth()
	}
	if s.remote == nil && reuse {
		s.warm(route)
		if s.remote != nil && (s.weaker() || s.remote.Meets(t.terms) != nil || !s.remote.Fits(t.asked)) {
			s.dropRemote() // from a mail in plain text, of other terms, or at the destination's own bounds: a fresh one may do
		}
	}
	if s.remote == nil {
		fresh = true
		if err := s.open(route, t.terms, until); err != nil {
			return fresh, asFailure(err)
		}
	}
	if a := s.unfit(t.asked); a != nil {
		return fresh, &relay.Failure{Code: a.code, Enh: a.enh, Text: a.text}
	}
	return fresh, nil
}

// open makes a new onward session.
func (s *session) open(route relay.Route, terms *tlspolicy.Policy, until time.Time) error {
	ctx, end := s.ctx.brief()
	defer end()
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	r, err := s.srv.cfg.Dialer.OpenUnder(ctx, route, terms)
	if err == nil {
		s.take(r)
	}
	return err
}

var spent = answer{451, smtp.Enhanced{4, 3, 2}, "the gateway has sent to that provider what it may for now, try again later"}

// stay gives further recipients to the onward session at which the first ones stand, whatever domain they are of: another
// one would know nothing of those, and its 250 would be no answer for them.
func (s *session) stay() *relay.Failure {
	if s.remote == nil {
		return &relay.Failure{Code: lostSession.code, Enh: lostSession.enh, Text: lostSession.text}
	}
	if a := s.unfit(s.tx.asked); a != nil {
		return &relay.Failure{Code: a.code, Enh: a.enh, Text: a.text}
	}
	return nil
}

// lostAuth: a session in which the customer authenticated has no successor.
func lostAuth() *relay.Failure {
	return &relay.Failure{Code: authLost.code, Enh: authLost.enh, Text: authLost.text, Close: true}
}

// weaker tells whether the onward session protects less than the client's own leg: then nothing of his goes over it (DEL7).
func (s *session) weaker() bool { return s.secure.Load() && !s.remote.Protected() }

// take makes r the onward session.
func (s *session) take(r *relay.Session) {
	s.remote, s.used = r, time.Now()
	s.cut.Store(r)
	if s.ctx.Err() != nil {
		r.Cut() // killed in between
	}
}

// warm takes the onward session that stands from the user's last mail by the route, if there is one.
func (s *session) warm(route relay.Route) {
	if r := s.srv.cfg.Dialer.Take(s.flow.User.ID, route); r != nil {
		s.take(r)
	}
}

// keep leaves the onward session to the user's next mail by the same way, where it may be used again (DEL13).
func (s *session) keep() bool {
	r := s.remote
	if s.authed || s.own || s.srv.drain.Err() != nil || !s.srv.cfg.Dialer.Room(s.flow.User.ID, r) {
		return false
	}
	if _, is := s.srv.cfg.Locks.Locked(s.flow.User.ID); is || !s.cut.CompareAndSwap(r, nil) {
		return false // locked, or being cut
	}
	if s.srv.cfg.Dialer.Keep(s.flow.User.ID, r) {
		return true
	}
	s.cut.Store(r)
	if s.ctx.Err() != nil {
		r.Cut() // killed in between
	}
	return false
}

// dropRemote says goodbye to the destination, which is not waited for: the client waits.
func (s *session) dropRemote() {
	if s.remote != nil {
		s.remote.Quit()
		s.closeRemote()
	}
}

func (s *session) closeRemote() {
	if s.remote != nil {
		s.remote.Close()
		s.remote = nil
	}
}

// loseRemote closes an onward session that failed.
func (s *session) loseRemote(f *relay.Failure) {
	if f.Raw != nil {
		s.heard = firstLine(f.Raw)
	}
	s.closeRemote()
}

// noop keeps the destination patient during an upload. When it is gone a new session is opened once the whole message
// is here, since that may take hours.
func (s *session) noop() error {
	if s.remote == nil {
		return nil
	}
	switch {
	case s.remote.Streams():
		s.streamTick()
		return nil
	case s.remote.Waits():
		s.breakOff()
		return nil
	}
	err := s.remote.Noop()
	if err != nil {
		s.loseRemote(asFailure(err))
	}
	return err
}

// replay opens a new onward session and gives it the envelope; the destination must accept all that the client was
// told it had accepted.
func (s *session) replay(until time.Time) *relay.Failure {
	t := &s.tx
	s.closeRemote()
	t.asked = append(t.asked[:0], t.passed...)
	defer func() { t.asked = t.asked[:0] }()
	if _, f := s.reach(until, false); f != nil {
		return f
	}
	s.remote.Bound(until)
	var again agreement
	for from := 0; from < len(t.asked); from += batch {
		if err := s.remote.Recipients(&t.mail, t.asked[from:min(from+batch, len(t.asked))], &again); err != nil {
			f := asFailure(err)
			s.loseRemote(f)
			return f
		}
	}
	if again.refused {
		s.remote.Abandon()
		s.remote.Bound(time.Time{})
		a := notReplayed
		if t.risk || t.aside {
			a = notApart
		}
		return &relay.Failure{Code: a.code, Enh: a.enh, Text: a.text}
	}
	return nil
}

// agreement hears whether all recipients are accepted again.
type agreement struct{ refused bool }

// Answer hears the reply to one recipient.
func (a *agreement) Answer(_ int, r *smtp.Reply) { a.refused = a.refused || r.Class() != 2 }
