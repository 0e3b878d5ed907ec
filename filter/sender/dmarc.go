package sender

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-msgauth/dmarc"
	"golang.org/x/net/publicsuffix"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// mostSignatures bounds the signatures that are looked at.
const mostSignatures = 10

// predict tells whether a message would fail DMARC where its From's domain asks to reject that (FRM5): it has no signature
// of an aligned domain, and its envelope sender is of none. A signature is taken to verify, an aligned envelope sender to
// pass SPF: what is found here fails for sure.
func (r *Rules) predict(ctx context.Context, set *policy.Sender, m *message.Message, hits []filter.Hit) []filter.Hit {
	from, _ := fromHeader(m.Data)
	if len(from) != 1 { // RFC 7489 6.6.1: of several no policy is applied
		return hits
	}
	domain, err := policy.ALabel(from[0].Domain())
	if err != nil {
		return hits
	}
	if r.Signs != nil && r.Signs(m.Flow.User.ID, m.Login, domain) {
		return hits // by its author's domain, which is what is asked for
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	rec, below, err := r.record(ctx, domain)
	if err != nil || rec == nil || asks(rec, below) != dmarc.PolicyReject {
		return hits
	}
	signed := signers(m.Data)
	for _, d := range signed {
		if aligned(domain, d, rec.DKIMAlignment == dmarc.AlignmentStrict) {
			return hits
		}
	}
	if aligned(domain, m.Envelope.From.Domain(), rec.SPFAlignment == dmarc.AlignmentStrict) {
		return hits
	}
	h := filter.Hit{
		Code: "DMARC", Class: filter.Clean,
		Text:     fmt.Sprintf("receivers would refuse this: %s asks to reject mail (DMARC) that it neither signs nor sends from its own envelope sender", domain),
		Evidence: fmt.Sprintf("From %s, envelope sender %s, signed by %q", domain, quoted1(m.Envelope.From.Domain()), signed),
	}
	if set.DMARC == policy.DMARCRefuse {
		h.Class, h.Action, h.SMTP, h.Enhanced = filter.Policy, filter.Reject, 550, "5.7.1"
	}
	return append(hits, h)
}

// record returns the DMARC record that holds for a domain: its own, else that of its organisational domain, which is then
// said (RFC 7489 6.6.3). nil where there is none.
func (r *Rules) record(ctx context.Context, domain string) (rec *dmarc.Record, below bool, err error) {
	o := &dmarc.LookupOptions{LookupTXT: func(name string) ([]string, error) { return r.dns.LookupTXT(ctx, name) }}
	for _, d := range []string{domain, organisation(domain)} {
		rec, err = dmarc.LookupWithOptions(d, o)
		if err == nil {
			return rec, d != domain, nil
		}
		if !errors.Is(err, dmarc.ErrNoPolicy) {
			return nil, false, err
		}
	}
	return nil, false, nil
}

// asks is what a record asks for: for domains below the one that has it, sp stands before p.
func asks(rec *dmarc.Record, below bool) dmarc.Policy {
	if below && rec.SubdomainPolicy != "" {
		return rec.SubdomainPolicy
	}
	return rec.Policy
}

// aligned tells whether a domain that is authenticated speaks for the one in From (RFC 7489 3.1).
func aligned(from, authenticated string, strict bool) bool {
	a, err := policy.ALabel(authenticated)
	if err != nil || a == "" {
		return false
	}
	return a == from || !strict && organisation(a) == organisation(from)
}

// organisation is the organisational domain (RFC 7489 3.2).
func organisation(domain string) string {
	o, err := publicsuffix.EffectiveTLDPlusOne(domain)
	if err != nil {
		return domain
	}
	return o
}

// signers are the domains that DKIM signatures of a message name.
func signers(data []byte) (domains []string) {
	for name, value := range message.Header(data) {
		if !strings.EqualFold(string(name), "DKIM-Signature") || len(domains) >= mostSignatures {
			continue
		}
		for tag := range strings.SplitSeq(string(value), ";") {
			k, v, _ := strings.Cut(tag, "=")
			if strings.TrimSpace(k) == "d" {
				domains = append(domains, strings.ToLower(strings.TrimSpace(v)))
			}
		}
	}
	return domains
}
