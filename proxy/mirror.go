package proxy

import (
	"sluice/filter/policy"
	"sluice/proxy/smtp"
)

// mirror greets in the words of the destination, where that is wanted (DEL15) and the destination can be asked before the
// client has said its name: one that is reached only from the customer's own address, or by a locked user, is not, so the
// gateway's own greeting stands in. False: the destination failed, which is answered, and the session ends.
func (s *session) mirror() bool {
	_, locked := s.srv.cfg.Locks.Locked(s.flow.User.ID)
	route := s.opening()
	known, ok := s.srv.cfg.Dialer.Known(&route)
	if !ok && !locked && !route.Own && s.starttls != policy.Pass {
		asked, err := s.askCaps()
		if err != nil {
			s.fail(err)
			return false
		}
		known, ok = asked, true
	}
	if !ok || locked || known.Greeting == "" {
		s.conn.WriteRaw(s.set.fixed.greeting)
		return true
	}
	s.conn.WriteReply(220, smtp.Enhanced{}, known.Greeting)
	return true
}

// hostName is the name by which the client is answered EHLO: the destination's own, as far as it is known, where that is
// wanted. All other replies of ours carry the gateway's, whoever is mirrored.
func (s *session) hostName() string {
	if s.set.Mirror && s.host != "" {
		return s.host
	}
	return s.set.Name
}
