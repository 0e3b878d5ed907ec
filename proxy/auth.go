package proxy

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"sluice/intercept/flow"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// Guard hears how attempts to authenticate at destinations end; whoever guesses passwords through us shows there.
type Guard interface {
	Authenticated(f *flow.Flow, accepted bool)
}

// offerAuth offers the mechanisms that the destination may be asked with; caps are what it can do (AUT4).
func (s *session) offerAuth(caps *relay.Caps) {
	s.offer.Set &^= smtp.ExtAuth
	s.offer.Auth = nil
	if s.user.RefuseAuth || s.authed || !caps.Has(smtp.ExtAuth) {
		return
	}
	if !caps.Encrypted && s.ground().Must() {
		return // the password would go by in plain text
	}
	if list := caps.Mechanisms(s.secure.Load()); len(list) > 0 {
		s.offer.Set |= smtp.ExtAuth
		s.offer.Auth = list
	}
}

// auth passes an AUTH dialogue on to the destination, line by line (RFC 4954). What is said in it is neither looked at
// nor kept. Who authenticates is the customer, not we: the session leaves from his own address, under his own name, and
// ends with the destination's.
func (s *session) auth(cmd *smtp.Command) {
	if s.house != nil {
		s.houseAuth(cmd)
		return
	}
	defer s.conn.WipeInput()
	mech, _, _ := bytes.Cut(cmd.Arg, []byte{' '})
	name := strings.ToUpper(string(mech[:min(len(mech), 20)]))
	switch {
	case s.helo == "":
		s.say(sayHelloFirst)
	case s.tx.open:
		s.say(authInMail)
	case s.authed:
		s.say(authAlready)
	case !s.offer.Has(smtp.ExtAuth):
		s.say(notImplemented)
	case !slices.Contains(s.offer.Auth, name):
		s.say(authUnknown)
	default:
		if s.noise(); !s.bye { // whoever guesses is slowed down
			s.relayAuth(name, cmd.Line)
		}
	}
}

// relayAuth leads the dialogue, whose first line is given.
func (s *session) relayAuth(mechanism string, line []byte) {
	if !s.ownRemote(mechanism) {
		return
	}
	s.stage(envelope)
	if err := s.remote.Ready(); err != nil {
		f := asFailure(err)
		s.loseRemote(f)
		s.tellFailure(f)
		return
	}
	for {
		reply, err := s.remote.Say(line)
		s.conn.WipeInput()
		if err != nil {
			f := asFailure(err)
			s.loseRemote(f)
			s.tellFailure(f)
			return
		}
		s.conn.WriteRaw(reply.Raw)
		s.last = line3(reply) // its text may tell what was said
		s.heard = s.last
		if reply.Code != 334 {
			s.endAuth(reply.Class() == 2)
			return
		}
		if line, err = s.conn.ReadSecret(smtp.MaxAuthLine); err != nil {
			s.dropRemote() // it waits in the midst of the dialogue
			s.unread(err)
			return
		}
	}
}

// line3 is a reply's code alone, with the enhanced one.
func line3(r *smtp.Reply) string { return strings.TrimSpace(line(r.Code, r.Enh, "")) }

// endAuth notes the end of a dialogue.
func (s *session) endAuth(accepted bool) {
	s.authed = accepted
	if s.srv.cfg.Guard != nil {
		s.srv.cfg.Guard.Authenticated(s.flow, accepted)
	}
	if accepted {
		s.remote.ByData() // one that does not take a chunk would have to be replaced, and this session cannot be
		// Encryption begun now would not cover what was said before it (RFC 3207 4.2): a client that wants it says so first.
		s.offer.Set &^= smtp.ExtStartTLS | smtp.ExtAuth
		s.offer.Auth = nil
		s.note = "authenticated at the destination"
	} else {
		s.note = "the destination refused to authenticate: " + s.last
	}
}

// ownRemote makes the onward session one from the customer's own address that can take the mechanism, or answers.
func (s *session) ownRemote(mechanism string) bool {
	s.own = true
	s.dropBlind()
	route := s.by(&pool.Decision{Own: true})
	if s.remote != nil && *s.remote.Route() != route {
		s.dropRemote()
	}
	s.dropEarly()
	terms := s.ground()
	if s.remote == nil || !s.remote.Alive() || s.remote.Meets(terms) != nil {
		s.closeRemote()
		if err := s.open(route, terms, time.Time{}); err != nil {
			s.fail(err)
			return false
		}
	}
	switch caps := s.remote.Caps(); {
	case s.weaker():
		s.say(plainOnward)
	case !caps.Has(smtp.ExtAuth) || !slices.Contains(caps.Mechanisms(s.secure.Load()), mechanism):
		s.say(authUnknown)
	default:
		return true
	}
	return false
}
