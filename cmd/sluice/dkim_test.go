package main

import (
	"context"
	"strings"
	"time"

	"sluice/cmd/internal/api"
)

// DKIMKeys are two of a domain, one of which takes the other's place, and one that cannot be read.
func (f fake) DKIMKeys(context.Context) ([]api.DKIMKey, error) {
	made, until := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	key := func(selector, state, dns string) api.DKIMKey {
		return api.DKIMKey{Domain: "customer.example", Selector: selector, Type: "rsa", State: state, Made: &made, Name: selector + "._domainkey.customer.example", Record: "v=DKIM1; k=rsa; p=" + strings.Repeat("MIIB", 80), DNS: dns}
	}
	old := key("s20260101", "retired", "")
	old.Until = &until
	return []api.DKIMKey{key("s20261101", "signing", "good"), old, {Domain: "shop.example", Selector: "s1", State: "unreadable", Name: "s1._domainkey.shop.example", Error: "others may read it (mode 0644)"}}, nil
}

// DKIMDomain shows the first.
func (f fake) DKIMDomain(ctx context.Context, _, domain string) ([]api.DKIMKey, error) {
	all, err := f.DKIMKeys(ctx)
	switch domain {
	case "customer.example":
		all[0].Asked = all[0].Made
		return all[:2], err
	case "shop.example":
		return all[2:], err
	}
	return nil, &api.Problem{Status: 404, Code: "no-such-key", What: domain + " has no key", Remedy: "`sluice dkim generate " + domain + "` makes one"}
}

// MakeDKIM makes what waits for its record.
func (f fake) MakeDKIM(ctx context.Context, _ string, r api.DKIMRequest) ([]api.DKIMKey, error) {
	all, err := f.DKIMKeys(ctx)
	k := all[0]
	k.Domain, k.State, k.DNS, k.Record = r.Domain, "waiting", "", "v=DKIM1; k=ed25519; p=x"
	if k.Type = r.Type; r.Selector != "" {
		k.Selector = r.Selector
	}
	k.Name = k.Selector + "._domainkey." + k.Domain
	return []api.DKIMKey{k}, err
}

// RemoveDKIM removes two.
func (f fake) RemoveDKIM(ctx context.Context, _, domain, _, _ string) ([]api.DKIMKey, error) {
	return f.DKIMDomain(ctx, "", domain)
}
