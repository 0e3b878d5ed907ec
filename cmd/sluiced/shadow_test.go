package main

import (
	"net/netip"
	"testing"

	"sluice/cmd/internal/api"
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
