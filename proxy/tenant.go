package proxy

import (
	"strings"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/intercept/flow"
	"sluice/proxy/auth"
	"sluice/proxy/smtp"
)

// Tenant is a customer at a mail service that hands in the mail of many (AUT7).
type Tenant struct {
	*auth.Connector
	User flow.User // who answers for his mail
}

// tenancy is what a session knows of the service that leads it.
type tenancy struct {
	all []Tenant // that may be meant
	now *Tenant  // whose message it is; nil: it is not known yet
}

// byTenant tells whether a service leads the session that may speak for customers: it has an address of the service, and
// has shown the certificate.
func (s *session) byTenant() bool {
	if s.tenancy != nil {
		return len(s.tenancy.all) > 0
	}
	if s.house.Tenants == nil || s.who.Login != "" || s.flow.User.ID != 0 || !s.secure.Load() {
		return false
	}
	s.tenancy = &tenancy{}
	st, _ := s.conn.TLS()
	for _, t := range s.house.Tenants(s.flow.Client.Addr()) {
		if err := t.Shown(&st, s.house.Roots); err != nil {
			s.note = "connector " + t.Name + ": " + err.Error()
			continue
		}
		s.tenancy.all = append(s.tenancy.all, t)
	}
	return len(s.tenancy.all) > 0
}

// unclaimed tells whether the message is one whose customer only the message itself can tell.
func (s *session) unclaimed() bool {
	return s.tenancy != nil && len(s.tenancy.all) > 0 && s.tenancy.now == nil
}

// login is under what name the message is handed in; "" where none is needed.
func (s *session) login() string {
	if s.tenancy != nil && s.tenancy.now != nil {
		return s.tenancy.now.Name
	}
	return s.who.Login
}

// tenantMail finds whose message begins, and answers MAIL where it can be nobody's; true when it is answered. A message
// without a sender may be any tenant's.
func (s *session) tenantMail(mail *smtp.Mail) bool {
	all := s.tenancy.all
	s.tenancy.now = nil
	if mail.Address == "" && len(all) > 1 {
		s.srv.become(s, flow.User{})
		return false
	}
	for i := range all {
		if mail.Address == "" || all[i].Sends(message.Address(mail.Address)) {
			return !s.claim(&all[i])
		}
	}
	s.srv.become(s, flow.User{})
	s.tenancy.now = &Tenant{} // nobody
	s.refuseSender(mail, "CONNECTOR", "no customer here sends as <"+brief(mail.Address)+"> by your service")
	return true
}

// claim makes the message one of a tenant's; false ends the session, since he has too many.
func (s *session) claim(t *Tenant) bool {
	if !s.srv.become(s, t.User) {
		s.leave(crowdedUser)
		return false
	}
	s.tenancy.now = t
	if u := s.srv.cfg.Policy.Settings(t.User.ID); u != nil {
		s.user = u
	}
	s.explains.Store(s.locked())
	return true
}

// authored tells whether the header of a message at a smarthost says what it must of who wrote it, and gives what the
// checks see; if not, that is answered and logged.
func (s *session) authored(body *smtp.Body, data []byte) ([]byte, bool) {
	header := data[:min(body.HeaderLen(), int64(len(data)))]
	whole := int64(len(header)) == body.HeaderLen()
	why := tooLongHeader
	switch {
	case s.who.Login != "" && !s.house.AnyFrom:
		if whole {
			why = s.who.mayWrite(s.tx.mail.Address, header)
		}
		if why == "" {
			return data, true
		}
		s.say(answer{550, smtp.Enhanced{5, 7, 1}, coded(s.set, "SENDER", "whoever logs in as "+s.who.Login+" may not write this: "+brief(why), "")})
		s.finish(ending{status: Refused, note: why, size: body.Size()})
		return nil, false
	case s.tenancy == nil || len(s.tenancy.all) == 0:
		return data, true
	case whole:
		var from, to int
		if why, from, to = s.proved(header); why == "" && s.tenancy.now.Secret {
			shared := len(data) > 0 && len(body.Bytes()) >= len(data) // else it is a copy
			if !body.CutHeader(from, to) {
				why = tooLongHeader
			} else if shared {
				data = data[:len(data)-(to-from)]
			} else {
				data = append(data[:from], data[to:]...)
			}
		}
	}
	if why == "" {
		return data, s.claimed()
	}
	s.say(answer{550, smtp.Enhanced{5, 7, 1}, coded(s.set, "CONNECTOR", "the message is not proved to be a customer's: "+brief(why), "")})
	s.finish(ending{status: Refused, note: why, size: body.Size()})
	return nil, false
}

const tooLongHeader = "its header is too long to be looked at"

// proved finds the tenant whose message it is, or says why it is nobody's.
func (s *session) proved(header []byte) (why string, from, to int) {
	if now := s.tenancy.now; now != nil {
		return now.Proves(header)
	}
	for i := range s.tenancy.all {
		t := &s.tenancy.all[i]
		if why, from, to = t.Proves(header); why != "" {
			continue
		}
		if !s.claim(t) {
			return "too many sessions", 0, 0
		}
		s.tx.rec.Flow = *s.flow
		s.tx.late = true
		return "", from, to
	}
	return why, 0, 0
}

// claimed asks about the envelope of a message whose customer has only now come to light.
func (s *session) claimed() bool {
	t := &s.tx
	if !t.late {
		return true
	}
	v := s.ask(filter.Mail, &t.msg)
	to := t.msg.Envelope.To
	for i := range to {
		if v.Refused() {
			break
		}
		t.msg.Envelope.To = to[:i] // as it was when the recipient came
		v = s.askRcpt(string(to[i]))
	}
	t.msg.Envelope.To = to
	if !v.Refused() {
		return true
	}
	s.say(refusal(s.set, &v, ""))
	s.finish(ending{status: statusOf(&v), verdict: v})
	return false
}

// mayWrite tells why whoever logged in may not be the author of a message with that header; "" where he may (FRM1). A mailing list
// of his own domain, and what is sent on under an address of his own, have another's From.
func (c *Client) mayWrite(sender string, header []byte) string {
	if c.Login == "" || sender == "" {
		return ""
	}
	all, err := message.Authors(header)
	if err != nil {
		return err.Error()
	}
	for _, a := range all {
		if !c.mayUse(string(a)) && !c.sendsOn(sender, header) {
			return "its From field names <" + brief(string(a)) + ">"
		}
	}
	return ""
}

// sendsOn tells whether a message is another's, sent on by the login: resent (RFC 5322 3.6.6), by a list (RFC 2919) of its
// domain, or with its sender rewritten.
func (c *Client) sendsOn(sender string, header []byte) bool {
	if value, _, _, n := message.Field(header, "Resent-From"); n == 1 {
		a, err := message.Authors([]byte("From: " + string(value) + "\r\n\r\n"))
		if err == nil && len(a) == 1 && c.mayUse(string(a[0])) {
			return true
		}
	}
	if c.Kind == auth.Mailbox {
		return false
	}
	if value, _, _, n := message.Field(header, "List-Id"); n == 1 {
		id := strings.ToLower(strings.TrimSpace(string(value)))
		if i := strings.LastIndexByte(id, '<'); i >= 0 && strings.HasSuffix(id, "."+strings.ToLower(c.Login)+">") {
			return true
		}
	}
	return strings.HasPrefix(strings.ToUpper(sender), "SRS0") || strings.HasPrefix(strings.ToUpper(sender), "SRS1")
}
