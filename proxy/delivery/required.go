package delivery

import (
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// Mail with REQUIRETLS goes to an exchanger that proves to be one of its recipient's domain, by what that publishes, under TLS,
// and that keeps REQUIRETLS as well. Each is looked at; where none is such a one the sender hears it (RFC 8689 4.2.1).

// keeps tells whether a session by the way is such.
func (w *way) keeps(s *relay.Session) bool {
	c := s.Caps()
	return w.proof != nil && c.Encrypted && c.Has(smtp.ExtRequireTLS) && s.Meets(w.proof) == nil
}

// unkept answers everybody where none of the ways that were looked at keeps REQUIRETLS; open is why another may, nil: there is none.
func (t *try) unkept(open error) {
	t.missed = "" // the destination was reached
	if open == nil {
		t.all(ours(554, smtp.Enhanced{5, 7, 30}, "REQUIRETLS is asked for, and the destination cannot keep it"))
		return
	}
	t.all(ours(451, smtp.Enhanced{4, 7, 30}, "REQUIRETLS is asked for, and no server of the destination that was reached can keep it; of another: "+open.Error()))
}
