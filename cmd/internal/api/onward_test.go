package api

import (
	"context"
	"errors"
	"net/netip"
	"testing"
)

func (f *fake) TLSPolicy(_ context.Context, domain string) (*TLSPolicy, error) {
	return &TLSPolicy{Domain: domain}, nil
}
func (f *fake) Broken(context.Context) ([]BrokenTLS, error) { return []BrokenTLS{}, nil }
func (f *fake) TryTLS(_ context.Context, _ string, target netip.AddrPort) (*BrokenTLS, error) {
	return &BrokenTLS{Target: target}, nil
}

func TestOnwardRoutes(t *testing.T) {
	t.Parallel()
	c := serve(t, &fake{})
	var p TLSPolicy
	if err := c.Do(t.Context(), "GET", "/v1/tls/policy/bank.example", nil, &p); err != nil || p.Domain != "bank.example" {
		t.Errorf("%+v, %v", p, err)
	}
	var b BrokenTLS
	if err := c.Do(t.Context(), "DELETE", "/v1/tls/broken/%5B2001:db8::25%5D:25", nil, &b); err != nil || b.Target != netip.MustParseAddrPort("[2001:db8::25]:25") {
		t.Errorf("%+v, %v", b, err)
	}
	var problem *Problem
	if err := c.Do(t.Context(), "DELETE", "/v1/tls/broken/mx.example", nil, &b); !errors.As(err, &problem) || problem.Code != "invalid" {
		t.Errorf("a name instead of an address: %v", err)
	}
}
