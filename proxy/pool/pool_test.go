package pool

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

var v4Target, v6Target = netip.MustParseAddr("198.51.100.20"), netip.MustParseAddr("2001:db8:100::20")

func address(n int, weight int) Address {
	return Address{IP: netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}), Helo: fmt.Sprintf("out%d.gw.example", n), Weight: weight}
}

func build(t *testing.T, a ...Address) *Pool {
	t.Helper()
	p, err := New(a...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func keys(n int) []Key {
	var out []Key
	for i := range n {
		out = append(out, Key{User: uint32(i % 50), Sender: fmt.Sprintf("s%d.example", i%97), Recipient: fmt.Sprintf("r%d.example", i)})
	}
	return out
}

func TestSameKeySameAddress(t *testing.T) {
	a := build(t, address(1, 0), address(2, 0), address(3, 0))
	b := build(t, address(3, 0), address(1, 0), address(2, 0)) // another gateway lists them otherwise
	for _, k := range keys(500) {
		x, _ := a.Choose(k, v4Target)
		k.Recipient = strings.ToUpper(k.Recipient)
		if y, ok := b.Choose(k, v4Target); !ok || x != y {
			t.Fatalf("%+v: %v and %v", k, x, y)
		}
	}
}

func TestSharesFollowWeights(t *testing.T) {
	p := build(t, address(1, 1), address(2, 1), address(3, 2))
	const n = 20000
	got := map[byte]int{}
	for _, k := range keys(n) {
		a, _ := p.Choose(k, v4Target)
		got[a.IP.As4()[3]]++
	}
	for last, share := range map[byte]float64{1: 0.25, 2: 0.25, 3: 0.5} {
		if f := float64(got[last]) / n; f < share-0.02 || f > share+0.02 {
			t.Errorf("address .%d got %.3f of the mail, want %.2f", last, f, share)
		}
	}
}

func TestTakingAnAddressAwayMovesOnlyItsMail(t *testing.T) {
	all := build(t, address(1, 1), address(2, 3), address(3, 1), address(4, 1))
	less := build(t, address(1, 1), address(2, 3), address(4, 1))
	for _, k := range keys(5000) {
		x, _ := all.Choose(k, v4Target)
		if y, _ := less.Choose(k, v4Target); x.IP.As4()[3] != 3 && x != y {
			t.Fatalf("%+v moved from %v to %v", k, x.IP, y.IP)
		}
	}
}

func TestFamilies(t *testing.T) {
	six := Address{IP: netip.MustParseAddr("2001:db8:203:1::1"), Helo: "out6.gw.example"}
	p := build(t, address(1, 0), six)
	if a, ok := p.Choose(Key{}, v6Target); !ok || a.IP != six.IP {
		t.Errorf("to IPv6 from %v, %v", a.IP, ok)
	}
	if a, ok := p.Default(7, netip.MustParseAddr("::ffff:198.51.100.20")); !ok || a.Helo != "out1.gw.example" {
		t.Errorf("to a mapped IPv4 address from %v, %v", a.IP, ok)
	}
	if _, ok := build(t, address(1, 0)).Choose(Key{}, v6Target); ok {
		t.Error("an IPv4 pool has an address for IPv6")
	}
	var none *Pool
	if _, ok := none.Choose(Key{}, v4Target); ok || none.Has(v4Target) {
		t.Error("no pool has an address")
	}
	if !p.Has(six.IP) || p.Has(v6Target) {
		t.Error("Has is wrong")
	}
}

func TestBadAddressesAreNamed(t *testing.T) {
	for _, c := range []struct {
		list []Address
		want string
	}{
		{[]Address{{Helo: "x"}}, "not the address of a host"},
		{[]Address{{IP: netip.MustParseAddr("0.0.0.0"), Helo: "x"}}, "not the address of a host"},
		{[]Address{{IP: netip.MustParseAddr("224.0.0.1"), Helo: "x"}}, "not the address of a host"},
		{[]Address{{IP: v4Target}}, "HELO name"},
		{[]Address{{IP: v4Target, Helo: "a b"}}, "HELO name"},
		{[]Address{address(1, -1)}, "negative"},
		{[]Address{address(1, 0), address(1, 0)}, "twice"},
	} {
		if _, err := New(c.list...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.list, err, c.want)
		}
	}
}

func TestChoiceDoesNotAllocate(t *testing.T) {
	p := build(t, address(1, 0), address(2, 0), address(3, 0))
	k := Key{User: 1, Sender: "a.example", Recipient: "b.example"}
	if n := testing.AllocsPerRun(100, func() { p.Choose(k, v4Target) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
