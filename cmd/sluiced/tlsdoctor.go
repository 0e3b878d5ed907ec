package main

import (
	"context"
	"fmt"
	"strings"

	"sluice/cmd/internal/api"
)

// legFindings tell where the clients' leg is not what it is by default: mail that nobody encrypts or reads by somebody's
// word, and clients that refuse the certificate.
func legFindings(rules []api.TLSRule, refusals []api.Refusal) []api.Finding {
	var stripped, passed []string
	for i := range rules {
		r := &rules[i]
		who := "all others"
		switch {
		case r.Beaten:
			continue
		case r.User != "":
			who = r.User
		case r.Prefix != "":
			who = "to " + r.Prefix
		}
		switch r.Policy {
		case "strip":
			stripped = append(stripped, who)
		case "pass":
			passed = append(passed, who)
		}
	}
	refused, allowed := 0, 0
	for i := range refusals {
		if refusals[i].Allowed {
			allowed++
		} else {
			refused++
		}
	}
	var fs []api.Finding
	if len(stripped) > 0 {
		fs = append(fs, finding("STARTTLS", true, api.Warn, "withheld from clients, whose mail anybody on the way can read: "+fewOf(stripped), "`sluice tls` tells why; `sluice tls remove` or tls.starttls = \"terminate\" ends it"))
	}
	if len(passed) > 0 {
		fs = append(fs, finding("STARTTLS", false, api.OK, "left to client and destination, unread: "+fewOf(passed), ""))
	}
	if refused+allowed > 0 {
		fs = append(fs, finding("refusals", refused > 0, api.Warn, fmt.Sprintf("%d pairs of source and destination refuse the gateway's certificate, and %d more pass unread", refused, allowed),
			"`sluice tls refusals` lists them; give tls.certificate one that they trust, or let them pass"))
	}
	return fs
}

// fewOf names the first of many.
func fewOf(names []string) string {
	if n := len(names) - mostNamed; n > 0 {
		return strings.Join(names[:mostNamed], ", ") + fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(names, ", ")
}

// leg is legFindings of this daemon.
func (b backend) leg(ctx context.Context) []api.Finding {
	rules, err := b.TLSRules(ctx)
	if err != nil {
		return []api.Finding{finding("STARTTLS", true, api.Warn, err.Error(), "journalctl -u sluiced")}
	}
	refusals, err := b.ListRefusals(ctx)
	if err != nil {
		return []api.Finding{finding("refusals", true, api.Warn, err.Error(), "journalctl -u sluiced")}
	}
	return legFindings(rules, refusals)
}
