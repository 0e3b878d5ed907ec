package proxy

import (
	"context"

	"sluice/filter/message"
	"sluice/filter/policy"
)

// foreign tells whether a whole message has a signature by which others than its user wrote it.
func (s *Server) foreign(ctx context.Context, m *message.Message) bool {
	return s.cfg.Signatures != nil && int64(len(m.Data)) == m.DataSize && s.cfg.Signatures.Foreign(ctx, m)
}

// hasAside tells whether forwarded mail of the sender at hand has a pool by which it may leave: the customer's own address
// or login is not what the destination goes by.
func (s *session) hasAside() bool {
	return !s.authed && s.delivery() != policy.Own && s.set.Pools.Forwarded(s.tx.msg.Envelope.From.Domain()) != nil
}

// goAside has a forwarded message leave through the pool for forwarded mail, where there is one (ATT10). Mostly that it is
// one shows in its header, when the destination has the envelope already, from elsewhere: then it is given the same in a new
// session, and a recipient who is refused there costs 451. What cannot leave that way leaves as its user's other mail.
func (s *session) goAside() {
	t := &s.tx
	if !t.msg.Forwarded || t.aside || t.keeping || s.house != nil || !s.hasAside() {
		return
	}
	before := t.rec.Way
	t.aside, t.decided, t.rec.Way = true, false, ""
	d := s.decide(&s.ctx, t.passed[0].Domain)
	if !t.aside {
		t.rec.Way = before
		return
	}
	if s.remote != nil && *s.remote.Route() == s.by(d) {
		return
	}
	s.dropRemote()
	s.dropEarly()
}
