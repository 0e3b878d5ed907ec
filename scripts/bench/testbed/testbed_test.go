package testbed

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"sluice/scripts/bench/sink"
)

// TestPlanKeepsGatesApart proves that no address belongs to two gateways and none is a stranger's.
func TestPlanKeepsGatesApart(t *testing.T) {
	t.Parallel()
	b := plan(7, []string{"a", "b", "c", "d"})
	if len(b.Sources) != sources || b.Sources[0].String() != "192.0.2.1" || b.Sources[199].String() != "192.0.2.200" {
		t.Errorf("sources run from %v to %v", b.Sources[0], b.Sources[len(b.Sources)-1])
	}
	owner := map[netip.Addr]string{}
	claim := func(a netip.Addr, who string) {
		if o, taken := owner[a]; taken {
			t.Errorf("%v belongs to %s and %s", a, o, who)
		}
		owner[a] = who
	}
	docs := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24")}
	for i, g := range b.Gates {
		for _, kind := range g.Targets {
			for _, target := range kind {
				claim(target.Addr(), g.Name)
			}
		}
		for side := range 2 {
			claim(link(i, side, 1), g.Name)
			claim(link(i, side, 2), g.Name)
		}
		for a := g.Delivery.Addr(); g.Delivery.Contains(a); a = a.Next() {
			claim(a, g.Name)
		}
		if len(g.Targets[sink.Plain]) != sink.PerKind || g.Delivery != g.Delivery.Masked() {
			t.Errorf("gateway %s: %d targets, delivery %v", g.Name, len(g.Targets), g.Delivery)
		}
	}
	for a := range owner {
		if !docs[0].Contains(a) && !docs[1].Contains(a) {
			t.Errorf("%v is no documentation address", a)
		}
	}
}

func TestScriptNamesEachLinkOnce(t *testing.T) {
	t.Parallel()
	b := plan(7, []string{"forward", "relay"})
	steps := b.script()
	if len(steps) != 4 || steps[0].namespace != "sluice-bench-7-forward" || steps[3].namespace != b.Internet {
		t.Fatalf("steps are %+v", steps)
	}
	want := map[int][]string{
		1: {"link add cust0 type veth peer name gw1 netns sluice-bench-7-client", "addr add 203.0.113.9/30 dev cust0", "route add 192.0.2.0/24 via 203.0.113.10", "route add 198.51.100.64/26 via 203.0.113.14"},
		2: {"route add 198.51.100.64/26 via 203.0.113.9"},
		3: {"rule add from 198.51.100.64/26 lookup 102 pref 102", "route add 192.0.2.0/24 via 203.0.113.13 table 102", "route add 203.0.113.160/27 via 203.0.113.13"},
	}
	for i, lines := range want {
		for _, line := range lines {
			if !strings.Contains(steps[i].input, line+"\n") {
				t.Errorf("step %d lacks %q:\n%s", i, line, steps[i].input)
			}
		}
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	// No process can have this id: it is above the kernel's largest pid_max.
	dead := Name(1<<22 + 1)
	for path, want := range map[string]bool{
		"/run/netns/" + dead + "client":       true,
		"/tmp/" + dead + "12":                 true,
		"/tmp/" + Name(os.Getpid()) + "12":    false,
		"/run/netns/sluice-bench-x-client":    false,
		"/run/netns/other-" + dead + "client": false,
	} {
		if got := Gone(path); got != want {
			t.Errorf("Gone(%s) is %v", path, got)
		}
	}
}
