package main

import (
	"net/netip"
	"testing"

	"sluice/intercept/flow"
)

func TestOneSourceOfIPv6IsItsSlash64(t *testing.T) {
	t.Parallel()
	table, err := flow.NewTable([]flow.User{
		{ID: 1, Name: "alice", Prefix: netip.MustParsePrefix("2001:db8::/32")},
		{ID: 2, Name: "bob", Prefix: netip.MustParsePrefix("2001:db8:0:1:8000::/68")},
	})
	if err != nil {
		t.Fatal(err)
	}
	g := gate{sources: table}
	for src, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8::1": "2001:db8::", "2001:db8::ffff:0:0:2": "2001:db8::",
		"2001:db8:0:1::5": "2001:db8:0:1::", "2001:db8:0:1:8123::5": "2001:db8:0:1:8000::", "fe80::1": "fe80::",
	} {
		if got := g.source(netip.MustParseAddr(src)); got.String() != want {
			t.Errorf("%s counts as %v, want %s", src, got, want)
		}
	}
}
