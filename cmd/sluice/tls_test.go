package main

import (
	"context"
	"net/netip"
	"time"

	"sluice/cmd/internal/api"
)

func (fake) TLSRules(context.Context) ([]api.TLSRule, error) {
	until := now.Add(time.Hour)
	return []api.TLSRule{{Policy: "terminate", Origin: "config"}, {User: "alice", Policy: "pass", Origin: "run-time", Reason: "contract 12"},
		{Prefix: "198.51.100.7/32", Port: 25, Policy: "strip", Origin: "run-time", Reason: "their appliance", By: "root", Since: &now, Until: &until},
		{Prefix: "198.51.100.7/32", Port: 25, Policy: "pass", Origin: "config", Reason: "a partner", Beaten: true}}, nil
}

func (fake) SetTLS(_ context.Context, _ string, p netip.Prefix, r api.TLSRequest) (*api.TLSRule, error) {
	x := &api.TLSRule{User: r.User, Port: r.Port, Policy: r.Policy, Reason: r.Reason, Until: r.Until}
	if p.IsValid() {
		x.Prefix = p.String()
	}
	return x, nil
}

func (f fake) RemoveTLS(ctx context.Context, who string, p netip.Prefix, r api.TLSRequest) (*api.TLSRule, error) {
	r.Policy = "terminate"
	return f.SetTLS(ctx, who, p, r)
}

func (fake) Authority(context.Context) (*api.Authority, error) {
	return &api.Authority{Domains: []string{"customers.example", "partner.example"}, Fingerprint: "0123456789abcdef", NotAfter: now.Add(3650 * 24 * time.Hour), Leaves: 7,
		PEM: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"}, nil
}

func (fake) ListRefusals(context.Context) ([]api.Refusal, error) {
	until := now.Add(6 * 24 * time.Hour)
	dane := netip.MustParseAddrPort("198.51.100.7:25")
	return []api.Refusal{
		{Source: "192.0.2.7", Target: dane, User: "alice", Alerts: 2, Lefts: 1, Last: now.Add(-time.Minute), Allowed: true, Why: "the destination publishes TLSA", Until: &until, Connections: 12, Bytes: 40 << 20},
		{Source: "192.0.2.8", Target: dane, User: "bob", Shakes: 3, Last: now.Add(-time.Hour), Connections: 30, Bytes: 50 << 20},
		{Source: "2001:db8:1::/64", Target: dane, User: "carol", Last: now.Add(-time.Hour), Allowed: true, By: "root", Why: "ticket 4711", Until: &until, Connections: 30, Bytes: 50 << 20},
	}, nil
}

func (fake) AllowRefusal(_ context.Context, _ string, source netip.Addr, target netip.AddrPort, r api.RefusalRequest) (*api.Refusal, error) {
	until := now.Add(7 * 24 * time.Hour)
	return &api.Refusal{Source: source.String(), Target: target, Allowed: true, Why: r.Reason, Until: &until}, nil
}

func (fake) ForgetRefusal(_ context.Context, _ string, source netip.Addr, target netip.AddrPort, _ string) (*api.Refusal, error) {
	return &api.Refusal{Source: source.String(), Target: target}, nil
}
