package main

import (
	"context"
	"net/netip"

	"blitiri.com.ar/go/spf"

	"sluice/cmd/internal/resolver"
)

// senderDNS is what the DNS says about the mail in the log; it is asked for reports, never while mail waits.
type senderDNS struct {
	spf        *lookups[spfQuestion, spf.Result]
	exchangers *lookups[string, []netip.Addr]
}

// spfQuestion is one evaluation: may this address send for this domain?
type spfQuestion struct {
	domain string
	from   netip.Addr
}

func newSenderDNS(r *resolver.Resolver) *senderDNS {
	return &senderDNS{
		spf: newLookups(func(ctx context.Context, q spfQuestion) (spf.Result, bool) {
			// The local part matters to macros only, which nearly nobody uses; one answer holds for the whole domain.
			res, _ := spf.CheckHostWithSender(q.from.AsSlice(), q.domain, "postmaster@"+q.domain, spf.WithResolver(r), spf.WithContext(ctx))
			return res, res != spf.TempError
		}),
		exchangers: newLookups(func(ctx context.Context, domain string) ([]netip.Addr, bool) {
			as, err := r.Exchangers(ctx, domain)
			return as, err == nil
		}),
	}
}

// mayUse reports whether a result lets a gateway's own address be used: nothing forbids it.
func mayUse(r spf.Result) bool { return r == spf.Pass || r == spf.None || r == spf.Neutral }

// takes reports whether target is one of a domain's exchangers, or close to one: large receivers answer with a few of
// many addresses, and with others the next minute.
func takes(exchangers []netip.Addr, target netip.Addr) bool {
	bits := 48
	if target.Is4() {
		bits = 24
	}
	near, err := target.Prefix(bits)
	if err != nil {
		return false
	}
	for _, a := range exchangers {
		if near.Contains(a) {
			return true
		}
	}
	return false
}
