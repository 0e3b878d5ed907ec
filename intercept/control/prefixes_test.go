package control

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestInside finds the same prefixes whether it asks for each or goes through all.
func TestInside(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(2, 4))
	for range 200 {
		var table Prefixes[int]
		var all []netip.Prefix
		for i := range 1 + r.IntN(300) {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(r.Uint32())})
			if i%3 == 0 {
				a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(r.IntN(3)), 15: byte(r.Uint32())})
			}
			p, err := a.Prefix(a.BitLen() - r.IntN(9))
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := table.Get(p); !ok {
				all = append(all, p)
			}
			table.Put(p, i)
		}
		for range len(all) / 4 {
			table.Delete(all[0])
			table.Delete(all[0]) // twice is once
			all = all[1:]
		}
		for _, p := range append(slices.Clone(all), netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("2001:db8::/64"), netip.MustParsePrefix("192.0.2.0/25")) {
			var want []netip.Prefix
			for _, q := range all {
				if q != p && q.Bits() > p.Bits() && p.Contains(q.Addr()) {
					want = append(want, q)
				}
			}
			got := slices.Collect(table.Inside(p))
			slices.SortFunc(got, comparePrefix)
			slices.SortFunc(want, comparePrefix)
			if !slices.Equal(got, want) {
				t.Fatalf("inside %v: %v, want %v", p, got, want)
			}
		}
	}
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

func TestAround(t *testing.T) {
	t.Parallel()
	var table Prefixes[string]
	for _, s := range []string{"0.0.0.0/0", "192.0.2.0/24", "192.0.2.64/26", "192.0.2.70/32", "2001:db8::/32"} {
		table.Put(netip.MustParsePrefix(s), s)
	}
	var got []string
	for p, v := range table.Around(netip.MustParsePrefix("192.0.2.64/27")) {
		if p.String() != v {
			t.Errorf("%v has %s", p, v)
		}
		got = append(got, v)
	}
	if !slices.Equal(got, []string{"192.0.2.64/26", "192.0.2.0/24", "0.0.0.0/0"}) {
		t.Errorf("%v", got)
	}
	if v, ok := table.Cover(netip.MustParsePrefix("2001:db9::/48")); ok {
		t.Errorf("found %s", v)
	}
}

func TestExemptionsLikeTheKernel(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := netip.MustParsePrefix
	e := NewExemptions(now, []Exemption{
		{Prefix: p("198.51.100.0/25"), Mode: Pass},
	}, []Exemption{
		{Prefix: p("198.51.100.0/24"), Mode: Shadow},
		{Prefix: p("198.51.100.0/25"), Port: 2525, Mode: Intercept},
		{Prefix: p("198.51.100.0/25"), Mode: Reject}, // said already
		{Prefix: p("198.51.100.7/32"), Mode: Drop, Until: now.Add(-time.Second)},
		{Prefix: p("198.51.100.8/32"), Mode: Drop, Until: now.Add(time.Minute)},
		{Prefix: p("2001:db8::/32"), Port: 25, Mode: Shadow, Until: now.Add(time.Hour)},
	})
	for to, want := range map[string]Mode{
		"198.51.100.200:25": Shadow, "198.51.100.7:25": Pass, "198.51.100.7:2525": Intercept, "203.0.113.1:25": 0,
		"198.51.100.8:25": Drop, "[2001:db8::1]:25": Shadow, "[2001:db8::1]:26": 0,
	} {
		if mode := e.Towards(netip.MustParseAddrPort(to), now); mode != want {
			t.Errorf("%s: %v, want %v", to, mode, want)
		}
	}
	if mode := e.Towards(netip.MustParseAddrPort("198.51.100.8:25"), now.Add(2*time.Minute)); mode != Pass {
		t.Errorf("after its end: %v", mode)
	}
	if n := len(e.List()); n != 5 {
		t.Errorf("%d exemptions", n)
	}
}

// TestSourceIsValid goes through what a proxy must not say.
func TestSourceIsValid(t *testing.T) {
	t.Parallel()
	p := netip.MustParsePrefix
	for _, tc := range []struct {
		s  Source
		ok bool
	}{
		{Source{Prefix: p("192.0.2.0/24"), User: 1, Fail: Open}, true},
		{Source{Prefix: p("192.0.2.0/24"), User: 1, Fail: Open, Mode: Drop}, true},
		{Source{Prefix: p("192.0.2.0/24"), Mode: Canary}, true},
		{Source{Prefix: p("0.0.0.0/0"), Fail: Closed}, true},
		{Source{Prefix: p("192.0.2.0/24"), Fail: Closed}, false},
		{Source{Prefix: p("192.0.2.0/24")}, false},
		{Source{Prefix: p("192.0.2.0/24"), User: 1, Mode: Drop}, false},
		{Source{Prefix: p("192.0.2.1/24"), Mode: Drop}, false},
		{Source{Prefix: p("::ffff:192.0.2.0/120"), Mode: Drop}, false},
		{Source{Prefix: p("192.0.2.0/24"), Mode: Drop + 1}, false},
	} {
		if err := tc.s.Valid(); (err == nil) != tc.ok {
			t.Errorf("%+v: %v", tc.s, err)
		}
	}
	for _, x := range []Exemption{{Prefix: p("192.0.2.1/24"), Mode: Pass}, {Prefix: p("192.0.2.0/24")}, {Prefix: p("192.0.2.0/24"), Mode: Canary}} {
		if x.Valid() == nil {
			t.Errorf("%+v is valid", x)
		}
	}
}
