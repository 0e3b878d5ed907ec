package ruleset

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

func runsText[W any](runs []Run[W]) string {
	var b strings.Builder
	for _, r := range runs {
		fmt.Fprintf(&b, "%v-%v %v\n", r.First, r.Last, r.Value)
	}
	return b.String()
}

func TestFlatten(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"one address", "192.0.2.1/32=a", "192.0.2.1-192.0.2.1 a\n"},
		{"one inside another", "192.0.2.0/24=a 192.0.2.64/26=b", "192.0.2.0-192.0.2.63 a\n192.0.2.64-192.0.2.127 b\n192.0.2.128-192.0.2.255 a\n"},
		{"at both ends", "192.0.2.0/30=a 192.0.2.0/32=b 192.0.2.3/32=c", "192.0.2.0-192.0.2.0 b\n192.0.2.1-192.0.2.2 a\n192.0.2.3-192.0.2.3 c\n"},
		{"neighbours of one kind", "192.0.2.0/25=a 192.0.2.128/25=a 192.0.2.7/32=a", "192.0.2.0-192.0.2.255 a\n"},
		{"everything", "0.0.0.0/0=a 255.255.255.255/32=b", "0.0.0.0-255.255.255.254 a\n255.255.255.255-255.255.255.255 b\n"},
		{"everything twice", "::/0=a ::/0=b", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff b\n"},
		{"holes", "2001:db8::/32=a 2001:db8:1::/48=- 2001:db8:1:1::/64=c", "2001:db8::-2001:db8:0:ffff:ffff:ffff:ffff:ffff a\n" +
			"2001:db8:1:1::-2001:db8:1:1:ffff:ffff:ffff:ffff c\n2001:db8:2::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff a\n"},
	} {
		var list []Entry[string]
		for _, f := range strings.Fields(c.in) {
			p, v, _ := strings.Cut(f, "=")
			list = append(list, Entry[string]{netip.MustParsePrefix(p), v})
		}
		got := runsText(Flatten(list, func(around []string) (string, bool) {
			v := around[len(around)-1]
			return v, v != "-"
		}))
		if got != c.want {
			t.Errorf("%s:\n%swant:\n%s", c.name, got, c.want)
		}
	}
}

// Every address finds in the runs what the longest prefix around it says.
func TestFlattenEqualsLongestPrefix(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 400 {
		list := randomEntries(r, 1+r.IntN(60), round%2 == 0)
		runs := Flatten(list, Innermost[int])
		for i := 1; i < len(runs); i++ {
			if !runs[i-1].Last.Less(runs[i].First) {
				t.Fatalf("runs touch:\n%s", runsText(runs))
			}
		}
		for range 300 {
			a := randomAddress(r, list)
			want, bits := -1, -1
			for _, e := range list {
				if e.Prefix.Contains(a) && e.Prefix.Bits() >= bits {
					want, bits = e.Value, e.Prefix.Bits()
				}
			}
			got := -1
			for _, x := range runs {
				if !a.Less(x.First) && !x.Last.Less(a) {
					got = x.Value
				}
			}
			if got != want {
				t.Fatalf("%v finds %d, want %d, in %v\n%s", a, got, want, list, runsText(runs))
			}
		}
	}
}

// randomEntries are close together, so that many stand inside each other, and reach the ends of the space.
func randomEntries(r *rand.Rand, n int, v4 bool) []Entry[int] {
	list := make([]Entry[int], 0, n)
	for range n {
		var a netip.Addr
		bits := 0
		if v4 {
			a, bits = netip.AddrFrom4([4]byte{byte(r.IntN(3) * 127), byte(r.IntN(2)), byte(r.IntN(2)), byte(r.IntN(256))}), r.IntN(33)
		} else {
			b := [16]byte{byte(r.IntN(2) * 255), 1, 2, 3, 4, 5, 6, byte(r.IntN(3)), 15: byte(r.IntN(256))}
			a, bits = netip.AddrFrom16(b), r.IntN(129)
		}
		list = append(list, Entry[int]{netip.PrefixFrom(a, bits).Masked(), r.IntN(4)})
	}
	return list
}

// randomAddress is at the edge of a prefix, or beside it.
func randomAddress(r *rand.Rand, list []Entry[int]) netip.Addr {
	p := list[r.IntN(len(list))].Prefix
	a := []netip.Addr{p.Addr(), LastOf(p), p.Addr().Prev(), LastOf(p).Next()}[r.IntN(4)]
	if !a.IsValid() {
		return p.Addr()
	}
	return a
}

func BenchmarkFlatten100k(b *testing.B) {
	list := make([]Entry[int], 100_000)
	for i := range list {
		a := netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i >> 8), byte(i)})
		list[i] = Entry[int]{netip.PrefixFrom(a, 32), i % 2}
	}
	for b.Loop() {
		if n := len(Flatten(list, Innermost[int])); n != len(list) {
			b.Fatal(n)
		}
	}
}

func TestPrefixes(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{
		{"192.0.2.0", "192.0.2.255", "[192.0.2.0/24]"},
		{"192.0.2.1", "192.0.2.1", "[192.0.2.1/32]"},
		{"192.0.2.1", "192.0.2.6", "[192.0.2.1/32 192.0.2.2/31 192.0.2.4/31 192.0.2.6/32]"},
		{"0.0.0.0", "255.255.255.255", "[0.0.0.0/0]"},
		{"255.255.255.254", "255.255.255.255", "[255.255.255.254/31]"},
		{"2001:db8::", "2001:db8:0:2:ffff:ffff:ffff:ffff", "[2001:db8::/63 2001:db8:0:2::/64]"},
		{"192.0.2.2", "192.0.2.1", "[]"},
	} {
		if got := fmt.Sprint(Prefixes(netip.MustParseAddr(c[0]), netip.MustParseAddr(c[1]))); got != c[2] {
			t.Errorf("%s to %s: %s, want %s", c[0], c[1], got, c[2])
		}
	}
}
