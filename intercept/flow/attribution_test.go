package flow

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

func user(id uint32, prefix string) User {
	return User{ID: id, Name: prefix, Prefix: netip.MustParsePrefix(prefix)}
}

func TestLongestPrefixWins(t *testing.T) {
	t.Parallel()
	tab, err := NewTable([]User{
		user(1, "192.0.2.0/24"), user(2, "192.0.2.8/29"), user(3, "192.0.2.9/32"), user(4, "0.0.0.0/0"),
		user(5, "2001:db8::/32"), user(6, "2001:db8:1::/64"), user(7, "2001:db8:1::5/128"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for src, want := range map[string]uint32{
		"192.0.2.9": 3, "192.0.2.10": 2, "192.0.2.16": 1, "198.51.100.1": 4, "::ffff:192.0.2.9": 3,
		"2001:db8:1::5": 7, "2001:db8:1::6": 6, "2001:db8:2::1": 5, "2001:db9::1": 0, "fe80::1%eth0": 0,
	} {
		u, ok := tab.Attribute(netip.MustParseAddr(src))
		if u.ID != want || ok != (want != 0) {
			t.Errorf("%s -> %d %v, want %d", src, u.ID, ok, want)
		}
	}
	if _, ok := tab.Attribute(netip.Addr{}); ok {
		t.Error("no address has a user")
	}
}

func TestTableRefusesWhatIsAmbiguous(t *testing.T) {
	t.Parallel()
	for name, users := range map[string][]User{
		"twice":    {user(1, "192.0.2.0/24"), user(2, "192.0.2.0/24")},
		"unmasked": {user(1, "192.0.2.1/24")},
		"mapped":   {user(1, "::ffff:192.0.2.0/120")},
		"none":     {{ID: 1}},
	} {
		if _, err := NewTable(users); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestTemplateMakesOneUserPerGroup(t *testing.T) {
	t.Parallel()
	var calls atomic.Uint32
	fail := atomic.Bool{}
	a := NewAttribution(nil, Template{V4: 32, V6: 64}, func(p netip.Prefix) (User, error) {
		if fail.Load() {
			return User{}, errors.New("store away")
		}
		return User{ID: calls.Add(1), Name: p.String()}, nil
	})
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			u, ok := a.Attribute(netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%x", i)))
			if !ok || u.ID != 1 || !u.Made || u.Prefix != netip.MustParsePrefix("2001:db8:1::/64") {
				t.Errorf("got %+v %v", u, ok)
			}
		})
	}
	wg.Wait()
	if calls.Load() != 1 {
		t.Errorf("made %d users", calls.Load())
	}
	fail.Store(true)
	if _, ok := a.Attribute(netip.MustParseAddr("192.0.2.1")); ok {
		t.Error("a user that the store did not make")
	}
	fail.Store(false)
	if u, ok := a.Attribute(netip.MustParseAddr("192.0.2.1")); !ok || u.ID != 2 || u.Prefix.Bits() != 32 {
		t.Errorf("after the store came back: %+v %v", u, ok)
	}
	tab, err := NewTable([]User{user(9, "192.0.2.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	a.Replace(tab)
	if u, _ := a.Attribute(netip.MustParseAddr("192.0.2.1")); u.ID != 9 {
		t.Errorf("table does not win: %+v", u)
	}
	a.Replace(nil)
	a.Forget(netip.MustParsePrefix("192.0.2.1/32"))
	if u, _ := a.Attribute(netip.MustParseAddr("192.0.2.1")); u.ID != 3 {
		t.Errorf("after forgetting: %+v", u)
	}
	refuses := NewAttribution(nil, Template{V4: 32}, func(netip.Prefix) (User, error) { return User{ID: 1}, nil })
	if _, ok := refuses.Attribute(netip.MustParseAddr("2001:db8::1")); ok {
		t.Error("a family without template was not refused")
	}
	if _, ok := NewAttribution(nil, Template{32, 64}, nil).Attribute(netip.MustParseAddr("192.0.2.1")); ok {
		t.Error("without maker")
	}
}

// TestTableChangesInPlace: after any number of single changes the table answers as one that is built anew.
func TestTableChangesInPlace(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(4, 6))
	table, err := NewTable(nil)
	if err != nil {
		t.Fatal(err)
	}
	have := map[netip.Prefix]User{}
	for i := range 3000 {
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(r.Uint32())})
		if r.IntN(3) == 0 {
			a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 7: byte(r.IntN(4)), 15: byte(r.IntN(8))})
		}
		p, err := a.Prefix(a.BitLen() - r.IntN(4)*r.IntN(9))
		if err != nil {
			t.Fatal(err)
		}
		u, ok := have[p]
		switch {
		case ok && r.IntN(2) == 0:
			if err := table.Put(u); err == nil {
				t.Fatalf("%v was put twice", p)
			}
			table.Delete(p)
			table.Delete(p)
			delete(have, p)
		case !ok:
			have[p] = User{ID: uint32(i + 1), Prefix: p}
			if err := table.Put(have[p]); err != nil {
				t.Fatal(err)
			}
		}
		if i%100 != 0 {
			continue
		}
		fresh, err := NewTable(slices.Collect(maps.Values(have)))
		if err != nil {
			t.Fatal(err)
		}
		if table.Len() != fresh.Len() {
			t.Fatalf("%d prefixes, want %d", table.Len(), fresh.Len())
		}
		for range 50 {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(r.Uint32())})
			got, ok1 := table.Attribute(a)
			want, ok2 := fresh.Attribute(a)
			around, ok3 := table.Around(netip.PrefixFrom(a, 32))
			if got != want || ok1 != ok2 || around != got || ok3 != ok1 {
				t.Fatalf("%v: %v, want %v; around %v", a, got, want, around)
			}
		}
	}
}
