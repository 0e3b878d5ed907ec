package store

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/filter/policy"
)

func thousands(n int) []policy.Listed {
	list := make([]policy.Listed, n)
	for i := range list {
		a := netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i >> 8), byte(i)})
		list[i] = policy.Listed{Name: fmt.Sprintf("c%07d", i), Prefixes: []netip.Prefix{netip.PrefixFrom(a, 32)}}
	}
	return list
}

func TestImport(t *testing.T) {
	t.Parallel()
	s := open(t, temp(t))
	defer shut(t, s)
	if _, err := s.EnsureConfigured([]policy.Listed{listed("alice", "192.0.2.0/29")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddUser(listed("bob", "203.0.113.0/29", "203.0.113.8/29")); err != nil {
		t.Fatal(err)
	}
	list := append(thousands(3000), policy.Listed{Name: "bob", Prefixes: []netip.Prefix{pfx("203.0.113.8/29"), pfx("2001:db8:1::/64")}})
	act := Act{Who: "root", What: "users imported"}
	rule := Rule{Prefix: pfx("203.0.113.8/29"), Mode: "shadow", Reason: "import", By: "root", Since: time.Now()}
	done, err := s.Import(list, []Rule{rule}, false, act)
	if err != nil || done != (Imported{Users: 3001, Prefixes: 3002, Modes: 1, Added: 3000}) {
		t.Fatalf("%+v %v", done, err)
	}
	if bob, err := s.User("bob"); err != nil || !slices.Equal(bob.Prefixes, []netip.Prefix{pfx("2001:db8:1::/64"), pfx("203.0.113.8/29")}) {
		t.Errorf("%+v %v", bob, err)
	}
	if m, err := s.Modes(); err != nil || len(m) != 1 {
		t.Errorf("%v %v", m, err)
	}
	// Prefixes move inside a list, ids stay, and the rest goes only when it is to be replaced.
	first, err := s.User("c0000000")
	if err != nil {
		t.Fatal(err)
	}
	swapped := thousands(1000)
	swapped[0].Prefixes, swapped[1].Prefixes = swapped[1].Prefixes, swapped[0].Prefixes
	if done, err = s.Import(swapped, nil, true, act); err != nil || done.Removed != 2001 || done.Added != 0 {
		t.Errorf("%+v %v", done, err)
	}
	again, err := s.User("c0000000")
	if err != nil || again.ID != first.ID || again.Prefixes[0] != pfx("198.18.0.1/32") {
		t.Errorf("%+v %v", again, err)
	}
	// What cannot be changes nothing.
	for want, bad := range map[string][]policy.Listed{
		"belongs to user alice": {{Name: "new", Prefixes: []netip.Prefix{pfx("192.0.2.0/29")}}},
		"configuration file":    {{Name: "alice", Prefixes: []netip.Prefix{pfx("192.0.2.64/29")}}},
	} {
		if _, err := s.Import(bad, nil, true, act); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if us, err := s.Users(); err != nil || len(us) != 1001 {
		t.Errorf("%d users, %v", len(us), err)
	}
}

func BenchmarkImport(b *testing.B) {
	for b.Loop() {
		s, err := Open(b.TempDir()+"/sluice.db", Options{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Import(thousands(100_000), nil, true, Act{}); err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
