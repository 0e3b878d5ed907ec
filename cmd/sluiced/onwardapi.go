package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/proxy/relay"
	"sluice/proxy/tlspolicy"
)

// TLSPolicy shows what a domain publishes.
func (b backend) TLSPolicy(ctx context.Context, domain string) (*api.TLSPolicy, error) {
	o := b.d.onward
	d, err := o.finder.Domain(ctx, domain)
	if err != nil {
		return nil, &api.Problem{Status: http.StatusBadGateway, Code: "no-answer", What: err.Error(), Remedy: "check the name, and the resolvers of [dns] or /etc/resolv.conf"}
	}
	p := &api.TLSPolicy{Domain: d.Name, MXSecure: d.Secure, NullMX: d.Null, STSError: d.STSWhy, Hosts: []api.TLSHost{}}
	if k := d.STS; k != nil {
		p.MTASTS = &api.MTASTS{ID: k.ID, Mode: string(k.Mode), MX: k.MX, Fetched: k.Fetched, Until: k.Until}
	}
	if r, ok := o.rules.Load().find(netip.Addr{}, d.Name); ok {
		p.Rule = r.Level.String() + ": " + r.Why
	}
	p.Validator, _ = o.unvalidated(ctx)
	for i := range d.Hosts {
		p.Hosts = append(p.Hosts, shownHost(&d.Hosts[i]))
	}
	return p, nil
}

func shownHost(h *tlspolicy.Host) api.TLSHost {
	s := api.TLSHost{Host: h.Host, Addresses: h.Answer.Addrs, Secure: h.Answer.Secure}
	if h.Err != nil {
		s.Error = h.Err.Error()
		return s
	}
	s.Level, s.Source, s.Names, s.Barred, s.Why = h.Policy.Level.String(), h.Policy.Source.String(), h.Policy.Names, h.Policy.Bar, h.Policy.Why
	for _, t := range h.Policy.TLSA {
		s.TLSA = append(s.TLSA, t.String())
	}
	if h.Wish != nil {
		if s.Testing = h.Wish.Why; h.Wish.Bar != "" {
			s.Testing += "; " + h.Wish.Bar
		}
	}
	return s
}

// Broken lists destinations whose handshake fails.
func (b backend) Broken(context.Context) ([]api.BrokenTLS, error) {
	all := b.d.dialer.Broken()
	out := make([]api.BrokenTLS, len(all))
	for i := range all {
		out[i] = shownBroken(&all[i])
	}
	return out, nil
}

func shownBroken(r *relay.Broken) api.BrokenTLS {
	return api.BrokenTLS{Target: r.Target, Since: r.Since, Last: r.Last, Again: r.Again, Failures: r.Failures, Why: r.Why}
}

// TryTLS forgets that a destination's handshake fails.
func (b backend) TryTLS(_ context.Context, who string, target netip.AddrPort) (*api.BrokenTLS, error) {
	for _, r := range b.d.dialer.Broken() {
		if r.Target != target || !b.d.dialer.TryAgain(target) {
			continue
		}
		shown := shownBroken(&r)
		shown.Again = time.Now()
		return &shown, b.d.store.Audit(store.Act{At: shown.Again, Who: who, What: "tls tried again", Subject: target.String(), Detail: r.Why})
	}
	return nil, &api.Problem{Status: http.StatusNotFound, Code: "not-broken", What: fmt.Sprintf("nothing is remembered of a failing handshake with %v", target), Remedy: "`sluice tls broken` lists all"}
}

// onwardTLS are the figures of the onward leg.
func (d *daemon) onwardTLS() api.OnwardTLS {
	l, a := d.dialer.Legs(), &d.onward.asked
	return api.OnwardTLS{
		Encrypted: l.Encrypted.Load(), Plain: l.Plain.Load(), Avoided: l.Avoided.Load(), Unmet: l.Unmet.Load(), Broken: len(d.dialer.Broken()),
		DANE:     api.Met{OK: a.dane.ok.Load(), Failed: a.dane.failed.Load()},
		Enforced: api.Met{OK: a.enforce.ok.Load(), Failed: a.enforce.failed.Load()},
		Testing:  api.Met{OK: a.testing.ok.Load(), Failed: a.testing.failed.Load()},
	}
}

// counters tells them by name.
func (d *daemon) onwardCounters(to map[string]uint64) {
	o, l := d.onwardTLS(), d.dialer.Legs()
	for name, n := range map[string]uint64{
		"encrypted": o.Encrypted, "plain": o.Plain, "plain_avoiding_tls": o.Avoided, "unmet": o.Unmet, "handshakes_failed": l.Failed.Load(),
		"starttls_refused": l.Refused.Load(), "certificate_asked": l.Asked.Load(), "resumed": l.Resumed.Load(), "asks_unknown": d.onward.asked.unknown.Load(),
		"dane_ok": o.DANE.OK, "dane_failed": o.DANE.Failed, "mta_sts_enforce_ok": o.Enforced.OK, "mta_sts_enforce_failed": o.Enforced.Failed,
		"mta_sts_testing_ok": o.Testing.OK, "mta_sts_testing_failed": o.Testing.Failed,
	} {
		to["onward_"+name] = n
	}
}

// unvalidated tells why no TLSA record can be used at all, "" where they can; broken where that is not as it was meant.
func (o *onward) unvalidated(ctx context.Context) (why string, broken bool) {
	ctx, cancel := context.WithTimeout(ctx, validatorWait)
	defer cancel()
	switch trusted, err := o.dns.Validates(ctx); {
	case err != nil:
		return err.Error(), true
	case !trusted:
		return "no resolver is trusted on DNSSEC: none is on this host, and dns.dnssec does not say otherwise", false
	}
	return "", false
}

const validatorWait = 3 * time.Second

// dnssecFinding tells whether DANE can be judged.
func (o *onward) dnssecFinding(ctx context.Context) api.Finding {
	why, broken := o.unvalidated(ctx)
	if why == "" {
		return finding("dnssec", false, "", "the resolver validates: TLSA records of destinations count", "")
	}
	return finding("dnssec", broken, api.Warn, "TLSA records of destinations are not used: "+why, "run a validating resolver such as unbound on this host, and name it in [dns] or /etc/resolv.conf")
}
