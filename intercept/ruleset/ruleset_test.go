package ruleset

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares whole text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs\ngot:\n%s\nwant:\n%s", file, got, want)
	}
}

func TestDesired(t *testing.T) {
	t.Parallel()
	p := netip.MustParsePrefix
	golden(t, "plain.txt", Desired(Input{Mark: 0x02000000, Table: 5325, Priority: 90}).Text())
	delivery := Desired(Input{Mark: 0x100, Table: 200, Priority: 1000, Delivery: []netip.Prefix{
		p("2001:db8:25::/64"), p("203.0.113.16/28"), p("203.0.113.16/28"), p("203.0.113.8/32"),
	}})
	golden(t, "delivery.txt", delivery.Text())
	golden(t, "room.txt", delivery.WithRoom().Text())
}

func TestSeats(t *testing.T) {
	t.Parallel()
	links := []Link{
		{Index: 1, Name: "lo", Loop: true},
		{Index: 2, Name: "up0"},
		{Index: 3, Name: "cust1"},
		{Index: 4, Name: "cust0"},
		{Index: 5, Name: "wg0", Raw: true},
		{Index: 6, Name: "port1", Master: "bridge", Over: "br0"},
		{Index: 7, Name: "br0"},
		{Index: 8, Name: "cust9", Master: "vrf", Over: "red"},
		{Index: 9, Name: "slave0", Master: "bond", Over: "bond0"},
		{Index: 10, Name: "tun0", Raw: true},
		{Index: 11, Name: "mgmt0"},
		{Index: 20, Name: "cust-door", Kind: "veth", Door: true},
		{Index: 12, Name: "both0"},
		{Index: 13, Name: "cust-red", Kind: "vrf"},
		{Index: 14, Name: "cust-ib", Header: "infiniband"},
		{Index: 15, Name: "cust-gre", Raw: true, Outer: true},
		{Index: 16, Name: "cust-gre1", Kind: "gre", Raw: true},
		{Index: 17, Name: "cust-mv", Kind: "macvlan"},
		{Index: 18, Name: "cust-lag", Master: "team", Over: "team0"},
		{Index: 19, Name: "cust-hsr", Master: "hsr", Over: "hsr0"},
		{Index: 20, Name: "up-red", Master: "vrf", Over: "red"},
	}
	golden(t, "seats.txt", SeatsText(Seats(links,
		[]string{"cust*", "wg0", "port?", "br0", "slave[0-9]", "lo", "both0", "["}, []string{"up0", "up-*", "tun*", "both*"})))
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]Link{
		"ether": {}, "loopback": {Loop: true}, "infiniband": {Header: "infiniband"}, "generic": {Header: "generic"},
		"none": {Raw: true}, "ppp": {Raw: true}, "ipip": {Raw: true}, "gre": {Raw: true}, "sit": {Raw: true}, "tunnel6": {Raw: true},
	} {
		var l Link
		if l.SetHeader(kind); l != want {
			t.Errorf("%s: %+v, want %+v", kind, l, want)
		}
	}
}

func TestConflicts(t *testing.T) {
	t.Parallel()
	got := Conflicts(90, []Foreign{
		{4, 0, "from all lookup local"}, {4, 50, "from 192.0.2.0/24 lookup 7"}, {6, 105, "fwmark 1 lookup 8"}, {4, 32766, "from all lookup main"},
	})
	golden(t, "conflicts.txt", strings.Join(got, "\n")+"\n")
}
