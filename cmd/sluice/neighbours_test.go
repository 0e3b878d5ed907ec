package main

import (
	"net/netip"
	"strings"
	"testing"

	"sluice/cmd/internal/config"
)

func TestSharedNetworks(t *testing.T) {
	t.Parallel()
	cfg := &config.Config{Template: config.Template{Unknown: "make", IPv6: 64}, User: []config.User{{Prefixes: []config.Prefix{{Prefix: netip.MustParsePrefix("2001:db8:2::/64")}}}}}
	cfg.Intercept.CustomerInterfaces = []string{"cust*"}
	at := func(addr, mac, device string) neighbour { return neighbour{netip.MustParseAddr(addr), mac, device} }
	h := &host{neighbours: func() ([]neighbour, error) {
		return []neighbour{
			at("2001:db8:1::1", "a", "cust0"), at("2001:db8:1::2", "b", "cust0"), at("2001:db8:1::3", "b", "cust0"), // two hosts
			at("2001:db8:2::1", "a", "cust0"), at("2001:db8:2::2", "b", "cust0"), // somebody's, by configuration
			at("2001:db8:3::1", "a", "cust0"), at("2001:db8:3::2", "a", "cust0"), // one host
			at("2001:db8:4::1", "a", "up0"), at("2001:db8:4::2", "b", "up0"), // no customers
			at("fe80::1", "a", "cust0"), at("fe80::2", "b", "cust0"),
		}, nil
	}}
	fs := h.shared(cfg)
	if len(fs) != 1 || !strings.Contains(fs[0].Text, "2 hosts in 2001:db8:1::/64 count as one user") || fs[0].Remedy == "" {
		t.Errorf("%+v", fs)
	}
	cfg.Template.IPv6 = 128
	if fs := h.shared(cfg); len(fs) != 0 {
		t.Errorf("each its own user: %+v", fs)
	}
}
