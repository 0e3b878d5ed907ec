package api

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func (f *fake) TLSRules(context.Context) ([]TLSRule, error) {
	return []TLSRule{{Policy: "terminate"}}, nil
}
func (f *fake) SetTLS(_ context.Context, _ string, p netip.Prefix, r TLSRequest) (*TLSRule, error) {
	return &TLSRule{User: r.User, Prefix: p.String(), Port: r.Port, Policy: r.Policy, Reason: r.Reason}, nil
}
func (f *fake) RemoveTLS(_ context.Context, _ string, p netip.Prefix, r TLSRequest) (*TLSRule, error) {
	return &TLSRule{User: r.User, Prefix: p.String(), Port: r.Port}, nil
}
func (f *fake) Authority(context.Context) (*Authority, error)   { return &Authority{}, nil }
func (f *fake) ListRefusals(context.Context) ([]Refusal, error) { return []Refusal{}, nil }
func (f *fake) AllowRefusal(_ context.Context, _ string, source netip.Addr, target netip.AddrPort, r RefusalRequest) (*Refusal, error) {
	return &Refusal{Source: source.String(), Target: target, Why: r.Reason}, nil
}
func (f *fake) ForgetRefusal(_ context.Context, _ string, source netip.Addr, target netip.AddrPort, _ string) (*Refusal, error) {
	return &Refusal{Source: source.String(), Target: target}, nil
}

// TestStartTLSIsNeverStrippedByAccident: a rule has a name that exists, a reason, and somebody or something it is for.
func TestStartTLSIsNeverStrippedByAccident(t *testing.T) {
	t.Parallel()
	c := serve(t, &fake{})
	past := time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		method, path string
		in           any
		want         string
	}{
		{"POST", "/v1/starttls", TLSRequest{Prefix: "198.51.100.7", Policy: "strip", Reason: "ticket"}, `"prefix":"198.51.100.7/32"`},
		{"POST", "/v1/starttls", TLSRequest{User: "alice", Policy: "pass", Reason: "ticket"}, `"user":"alice"`},
		{"POST", "/v1/starttls", TLSRequest{User: "alice", Policy: "strip"}, "needs a reason"},
		{"POST", "/v1/starttls", TLSRequest{User: "alice", Policy: "strip", Reason: "  "}, "needs a reason"},
		{"POST", "/v1/starttls", TLSRequest{User: "alice", Reason: "ticket"}, `"" is not a policy`},
		{"POST", "/v1/starttls", TLSRequest{User: "alice", Policy: "off", Reason: "ticket"}, `"off" is not a policy`},
		{"POST", "/v1/starttls", TLSRequest{Policy: "strip", Reason: "ticket"}, "one user or one prefix"},
		{"POST", "/v1/starttls", TLSRequest{User: "alice", Prefix: "198.51.100.7", Policy: "strip", Reason: "ticket"}, "one user or one prefix"},
		{"POST", "/v1/starttls", TLSRequest{User: "alice", Port: 25, Policy: "strip", Reason: "ticket"}, "a port belongs to a destination"},
		{"POST", "/v1/starttls", TLSRequest{Prefix: "198.51.100.7/24", Policy: "strip", Reason: "ticket"}, "bits set behind"},
		{"POST", "/v1/starttls", TLSRequest{Prefix: "198.51.100.7", Policy: "strip", Reason: "ticket", Until: &past}, "has passed"},
		{"POST", "/v1/starttls", TLSRequest{User: "alice", Policy: "strip", Reason: "ticket", Until: &past}, "has no end"},
		{"DELETE", "/v1/starttls?prefix=198.51.100.7&port=25", nil, `"port":25`},
		{"DELETE", "/v1/starttls?prefix=198.51.100.7&port=x", nil, "is not a port"},
		{"DELETE", "/v1/starttls", nil, "one user or one prefix"},
		{"POST", "/v1/refusals", RefusalRequest{Source: "192.0.2.7", Target: "198.51.100.7", Reason: "ticket"}, `"target":"198.51.100.7:25"`},
		{"POST", "/v1/refusals", RefusalRequest{Source: "192.0.2.7", Target: "[2001:db8::7]:2525", Reason: "ticket"}, `"target":"[2001:db8::7]:2525"`},
		{"POST", "/v1/refusals", RefusalRequest{Source: "192.0.2.0/24", Target: "198.51.100.7", Reason: "ticket"}, "not the address of a source"},
		{"POST", "/v1/refusals", RefusalRequest{Source: "192.0.2.7", Target: "mx.example", Reason: "ticket"}, "not the address of a destination"},
		{"POST", "/v1/refusals", RefusalRequest{Source: "192.0.2.7", Target: "198.51.100.7"}, "needs a reason"},
		{"POST", "/v1/refusals", RefusalRequest{Source: "192.0.2.7", Target: "198.51.100.7", Reason: "x", Until: &past}, "has passed"},
		{"DELETE", "/v1/refusals?source=192.0.2.7&target=198.51.100.7", nil, `"source":"192.0.2.7"`},
		{"DELETE", "/v1/refusals?source=192.0.2.7", nil, "not the address of a destination"},
	} {
		var raw jsonText
		err := c.Do(t.Context(), tt.method, tt.path, tt.in, &raw)
		got := string(raw)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s %s %+v: %s, want %s", tt.method, tt.path, tt.in, got, tt.want)
		}
	}
}
