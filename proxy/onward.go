package proxy

import (
	"context"
	"net/netip"
	"time"

	"sluice/filter/policy"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
	"sluice/proxy/tlspolicy"
)

// Onward says how the onward leg has to be protected, and tells how it compares with what domains ask for. The first
// decides, the second only reports: whether to insist on what a domain publishes is the client's own to decide, who is
// offered no more than the onward leg gives (DEL6, DEL7).
type Onward interface {
	// Terms returns what a connection to target must be that carries a user's mail for a domain, or that he authenticates
	// by before a recipient is known, "" then; nil takes what it can get. The same terms are the same pointer. It may ask the DNS, until ctx ends, where a setting depends on names; the
	// error says that there was no answer.
	Terms(ctx context.Context, u *policy.Settings, target netip.AddrPort, domain string) (*tlspolicy.Policy, error)
	// Proof returns what the connection must be for a mail that may go only to who proves to be the domain's server
	// (REQUIRETLS); nil where nothing that is published would prove it. It may ask the DNS, as Terms.
	Proof(ctx context.Context, target netip.AddrPort, domain string) (*tlspolicy.Policy, error)
	// Judge compares a connection to server with what a domain asks for; false where that is not known. It waits for
	// nothing.
	Judge(domain string, server netip.Addr, leg *tlspolicy.Leg) (tlspolicy.Report, bool)
}

// agree finds what the onward leg must be for a recipient. One for whom it must be more than for the first is put off:
// the client sends him a message of his own. What is kept here goes to each domain as that asks for, by the queue.
func (s *session) agree(r *smtp.Rcpt, refuse func(answer)) bool {
	t := &s.tx
	if s.srv.cfg.Onward == nil || s.house != nil {
		return true
	}
	var p *tlspolicy.Policy
	var err error
	if t.mail.RequireTLS {
		p, err = s.srv.cfg.Onward.Proof(&s.ctx, s.flow.Target, r.Domain)
	} else {
		p, err = s.srv.cfg.Onward.Terms(&s.ctx, s.user, s.flow.Target, r.Domain)
	}
	var why answer
	switch {
	case err != nil:
		why = termsUnknown
		if s.note == "" {
			s.note = err.Error()
		}
	case p == nil && t.mail.RequireTLS:
		why = noProof
	case len(t.passed)+len(t.asked) == 0:
		t.terms = p
		return true
	case p != t.terms && p.Must():
		why = splitTerms
	default:
		return true
	}
	refuse(why)
	s.noteRcpt(r.Address, why.code, s.set.Name+": "+why.text)
	return false
}

// ground is what the onward leg must be whoever the recipient.
func (s *session) ground() *tlspolicy.Policy {
	if s.srv.cfg.Onward == nil {
		return nil
	}
	p, _ := s.srv.cfg.Onward.Terms(&s.ctx, s.user, s.flow.Target, "") // without a domain it asks nobody
	return p
}

// report has the onward leg compared with what the first recipient's domain asks for. What is known by the end of the
// message stands in its record.
func (s *session) report() {
	t := &s.tx
	if s.srv.cfg.Onward == nil || s.remote == nil || len(t.passed) == 0 || t.reported == s.remote {
		return
	}
	k, domain := &s.known, t.passed[0].Domain
	if k.leg != s.remote || k.domain != domain || t.start.Sub(k.at) > comparedFor {
		r, known := s.srv.cfg.Onward.Judge(domain, s.flow.Target.Addr(), s.remote.Leg())
		if !known {
			return
		}
		*k = comparison{s.remote, domain, t.start, r}
	}
	t.rec.Asks, t.reported = k.with, s.remote
}

// comparison is of an onward leg with what a domain asks for.
type comparison struct {
	leg    *relay.Session
	domain string
	at     time.Time
	with   tlspolicy.Report
}

// comparedFor is how long a comparison holds for further mail to the domain on the same leg.
const comparedFor = 10 * time.Second
