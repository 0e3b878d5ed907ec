package main

import (
	"net/netip"
	"testing"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/intercept/flow"
)

// flowFrom is a flow of whoever answers for an address.
func (g *gateway) flowFrom(addr string) flow.Flow {
	g.t.Helper()
	a := netip.MustParseAddr(addr)
	u, ok := g.daemon.sources.Attribute(a)
	if !ok {
		g.t.Fatalf("nobody answers for %s", a)
	}
	return flow.Flow{Client: netip.AddrPortFrom(a, 1025), Target: netip.MustParseAddrPort("198.51.100.20:25"), User: u}
}

func TestExemptionLikeTheKernel(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := func(s string) config.Prefix { return config.Prefix{Prefix: netip.MustParsePrefix(s)} }
	list := []config.Exempt{
		{Prefix: p("198.51.100.0/24"), Mode: "shadow"},
		{Prefix: p("198.51.100.0/25"), Port: 2525, Mode: "intercept"},
		{Prefix: p("198.51.100.0/25"), Mode: "pass"},
		{Prefix: p("198.51.100.7/32"), Mode: "drop", Until: now.Add(-time.Second)},
		{Prefix: p("2001:db8::/32"), Port: 25, Mode: "shadow", Until: now.Add(time.Hour)},
	}
	for to, want := range map[string]string{
		"198.51.100.200:25": "shadow", "198.51.100.7:25": "pass", "198.51.100.7:2525": "intercept", "203.0.113.1:25": "",
		"[2001:db8::1]:25": "shadow", "[2001:db8::1]:26": "",
	} {
		if mode, ok := exempted(list, netip.MustParseAddrPort(to), now); mode != want || ok != (want != "") {
			t.Errorf("%s: %q %v, want %q", to, mode, ok, want)
		}
	}
}

// TestWhoIsShadowed decides by the user's mode, by that of unknown sources, and not for a locked user.
func TestWhoIsShadowed(t *testing.T) {
	t.Parallel()
	g := newGateway(t, `
[[user]]
name = "watched"
prefixes = ["127.0.0.1/32"]
mode = "shadow"
`)
	g.start()
	defer g.end()
	f := g.flowFrom("127.0.0.1")
	if !g.daemon.shadowed(&f) {
		t.Error("the user in shadow is not")
	}
	if f := g.flowFrom("192.0.2.77"); g.daemon.shadowed(&f) {
		t.Error("an unknown source is")
	}
	if err := g.api.Do(t.Context(), "POST", "/v1/lock", api.LockRequest{User: "watched", Seconds: 60, Reason: "test"}, new(api.Lock)); err != nil {
		t.Fatal(err)
	}
	if g.daemon.shadowed(&f) {
		t.Error("a locked user is watched instead of told")
	}
}
