package relay

import (
	"slices"
	"strings"

	"sluice/proxy/smtp"
)

// limits keeps count of what a destination bounds in one session of its own (RFC 9422 4).
type limits struct {
	domains []string // of recipients; only where their number is bounded
}

// sent counts a recipient.
func (l *limits) sent(most *smtp.Limits, domain string) {
	if most.RcptDomainMax > 0 && len(l.domains) <= most.RcptDomainMax && !smtp.HasFold(l.domains, domain) {
		l.domains = append(l.domains, domain)
	}
}

// Fits tells whether another transaction that begins with these recipients is within the destination's own bounds of a
// session. The open one always is: within it the bounds are the client's to keep, or the destination's to defend.
func (s *Session) Fits(rcpts []smtp.Rcpt) bool {
	if s.open || s.refused != nil {
		return true
	}
	most := &s.caps.Limits
	if most.MailMax > 0 && s.begun >= most.MailMax {
		return false
	}
	if most.RcptDomainMax == 0 {
		return true
	}
	n := len(s.limits.domains)
	for i := range rcpts {
		d := rcpts[i].Domain
		again := slices.ContainsFunc(rcpts[:i], func(r smtp.Rcpt) bool { return strings.EqualFold(r.Domain, d) })
		if !again && !smtp.HasFold(s.limits.domains, d) {
			n++
		}
	}
	return n <= most.RcptDomainMax
}
