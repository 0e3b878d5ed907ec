package tlspolicy

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// host finds addresses and TLSA records of one exchanger and tells how long the answer may be remembered. Where the list
// of exchangers, or the host's addresses, are not vouched for by DNSSEC its records are not asked for: they would prove
// nothing, and name servers that know no DNSSEC sometimes fail at TLSA (RFC 7672 2.2.2).
func (f *Finder) host(ctx context.Context, d *Domain, h *Host) (ttl time.Duration) {
	ttl = longest
	if !hostName(h.Host) {
		h.Policy = &Policy{Bar: "it is no name of a host", Level: Encrypt, Why: "the exchanger's name is none"}
		return ttl
	}
	a, err := f.o.DNS.Look(ctx, h.Host, Addresses)
	if err != nil {
		h.Err = fmt.Errorf("could not ask for the addresses of %s: %w", h.Host, err)
		return shortest
	}
	h.Answer, ttl = a, min(ttl, a.TTL)
	if !d.Secure || len(a.Addrs) == 0 {
		return ttl
	}
	bases, err := f.bases(ctx, h.Host, &a)
	if err != nil {
		h.Err = err
		return shortest
	}
	for _, base := range bases {
		r, err := f.o.DNS.Look(ctx, "_25._tcp."+base, Records)
		if err != nil {
			h.Err = fmt.Errorf("could not ask for the TLSA records of %s: %w", base, err)
			return shortest
		}
		ttl = min(ttl, r.TTL)
		if r.Secure && len(r.TLSA) > 0 {
			h.Policy = byRecords(r.TLSA, base, h.Host, d.Name)
			return ttl
		}
	}
	return ttl
}

// bases are the names under which a host's TLSA records may stand, the best first: where its alias leads to, and its own
// (RFC 7672 2.2.2). None: DNSSEC does not reach it.
func (f *Finder) bases(ctx context.Context, host string, a *Answer) ([]string, error) {
	switch {
	case a.Secure && a.Name != host:
		return []string{a.Name, host}, nil
	case a.Secure:
		return []string{host}, nil
	case a.Name == host:
		return nil, nil
	}
	// The alias led out of what DNSSEC vouches for: its beginning may be vouched for all the same.
	first, err := f.o.DNS.Look(ctx, host, Aliases)
	if err != nil {
		return nil, fmt.Errorf("could not ask for the alias of %s: %w", host, err)
	}
	if first.Secure {
		return []string{host}, nil
	}
	return nil, nil
}

// byRecords makes the policy of a host with TLSA records. Where none can be used, encryption is asked for, without a
// look at the certificate (RFC 7672 2.2).
func byRecords(all []TLSA, base, host, domain string) *Policy {
	p := &Policy{Level: DANE, Source: TLSAs, SNI: base}
	why := ""
	for _, t := range all {
		if err := t.Unusable(); err != nil {
			why = err.Error()
			continue
		}
		p.TLSA = append(p.TLSA, t)
	}
	if len(p.TLSA) == 0 {
		p.Level = Encrypt
		p.Why = fmt.Sprintf("TLSA records at _25._tcp.%s, of which none can be used: %s", base, why)
		return p
	}
	for _, n := range []string{base, host, domain} { // RFC 7672 3.2.2
		if !slices.Contains(p.Names, n) {
			p.Names = append(p.Names, n)
		}
	}
	p.Why = fmt.Sprintf("TLSA records at _25._tcp.%s", base)
	return p
}
