package main

import (
	"context"
	"net/netip"
	"time"

	"sluice/cmd/internal/api"
)

var dayBroken = api.BrokenTLS{Target: netip.MustParseAddrPort("198.51.100.30:25"), Since: now.Add(-26 * time.Hour), Last: now.Add(-time.Hour),
	Again: now.Add(19 * time.Hour), Failures: 8, Why: "TLS handshake failed: remote error: tls: protocol version not supported"}

func (fake) TLSPolicy(_ context.Context, domain string) (*api.TLSPolicy, error) {
	if domain != "bank.example" {
		return nil, &api.Problem{Status: 502, Code: "no-answer", What: "could not ask for the mail exchangers of " + domain, Remedy: "check the name"}
	}
	return &api.TLSPolicy{
		Domain: domain, MXSecure: true, Rule: "required: contract", STSError: "could not fetch the MTA-STS policy: the web server answered 404",
		MTASTS: &api.MTASTS{ID: "2027", Mode: "testing", MX: []string{"*.bank.example"}, Fetched: now.Add(-48 * time.Hour), Until: now.Add(240 * time.Hour)},
		Hosts: []api.TLSHost{
			{Host: "mx1.bank.example", Secure: true, Level: "dane", Source: "dane", TLSA: []string{"3 1 1 0011223344556677…"}, Why: "TLSA records at _25._tcp.mx1.bank.example"},
			{Host: "mx.other.example", Level: "opportunistic", Source: "default", Why: "nothing is published", Testing: "MTA-STS policy 2027 of bank.example, mode testing; the policy does not list mx.other.example"},
			{Host: "mx3.bank.example", Error: "could not ask for the addresses of mx3.bank.example"},
		},
	}, nil
}

func (fake) Broken(context.Context) ([]api.BrokenTLS, error) { return []api.BrokenTLS{dayBroken}, nil }

func (fake) TryTLS(_ context.Context, _ string, target netip.AddrPort) (*api.BrokenTLS, error) {
	if target != dayBroken.Target {
		return nil, &api.Problem{Status: 404, Code: "not-broken", What: "nothing is remembered of " + target.String(), Remedy: "`sluice tls broken` lists all"}
	}
	return &dayBroken, nil
}
