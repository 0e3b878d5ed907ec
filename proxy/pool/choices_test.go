package pool

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var (
	far4 = netip.MustParseAddr("198.51.100.1")
	far6 = netip.MustParseAddr("2001:db8::1")
	noon = time.Now()
)

// wide is a pool of several addresses of each family.
func wide(t *testing.T) *Pool {
	t.Helper()
	var all []Address
	for i := range byte(4) {
		all = append(all, Address{IP: netip.AddrFrom4([4]byte{203, 0, 113, i + 1}), Helo: fmt.Sprintf("v4-%d.gw.example", i)},
			Address{IP: netip.MustParseAddr(fmt.Sprintf("2001:db8:25::%d", i+1)), Helo: fmt.Sprintf("v6-%d.gw.example", i)})
	}
	p, err := New(all...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// elsewhere gives keys of a user whose choice is not the user's first address.
func elsewhere(p *Pool, user uint32, to netip.Addr, n int) (keys []Key) {
	first, _ := p.Default(user, to)
	for i := 0; len(keys) < n; i++ {
		k := Key{User: user, Sender: "a.example", Recipient: fmt.Sprintf("d%d.example", i)}
		if a, _ := p.Choose(k, to); a.IP != first.IP {
			keys = append(keys, k)
		}
	}
	return keys
}

func (c *Choices) at(t *testing.T, p *Pool, k Key, to netip.Addr, now time.Time) netip.Addr {
	t.Helper()
	a, ok := c.Choose(p, k, to, now)
	if !ok || a.Helo == "" {
		t.Fatalf("no address for %+v", k)
	}
	return a.IP
}

func TestAnAdoptedChoiceStays(t *testing.T) {
	t.Parallel()
	p := wide(t)
	for _, to := range []netip.Addr{far4, far6} {
		var c Choices
		k := elsewhere(p, 7, to, 1)[0]
		first, _ := p.Default(7, to)
		usual, _ := p.Choose(k, to)
		if got := c.at(t, p, k, to, noon); got != usual.IP {
			t.Fatalf("before: %v, want %v", got, usual.IP)
		}
		if once, twice := c.Adopt(p, k, to, noon), c.Adopt(p, k, to, noon); !once || !twice {
			t.Fatal("not adopted")
		}
		for _, h := range []int{0, 5, 28, 51} { // each use within a day of the one before
			if got := c.at(t, p, k, to, noon.Add(time.Duration(h)*time.Hour)); got != first.IP {
				t.Errorf("after %d hours: %v, want %v", h, got, first.IP)
			}
		}
		if got := c.at(t, p, k, to, noon.Add(76*time.Hour)); got != usual.IP {
			t.Errorf("a day after its last use: %v, want %v", got, usual.IP)
		}
		other := far4
		if to == far4 {
			other = far6
		}
		want, _ := p.Choose(k, other)
		if got := c.at(t, p, k, other, noon); got != want.IP {
			t.Errorf("of the other family: %v, want %v", got, want.IP)
		}
	}
}

func TestChoicesAreBounded(t *testing.T) {
	t.Parallel()
	p := wide(t)
	var c Choices
	keys := elsewhere(p, 7, far4, choicesUser+1)
	for i, k := range keys {
		if got := c.Adopt(p, k, far4, noon); got != (i < choicesUser) {
			t.Fatalf("key %d adopted: %v", i, got)
		}
	}
	if !c.Adopt(p, elsewhere(p, 8, far4, 1)[0], far4, noon) {
		t.Error("another user has no room")
	}
	last := keys[choicesUser]
	if !c.Adopt(p, last, far4, noon.Add(choiceLife+time.Hour)) {
		t.Error("what expired takes room for ever")
	}
	if n := int(c.n.Load()); n != 1 || len(c.m) != n || len(c.users) != 1 {
		t.Errorf("%d entries of %d users are left, %d counted; want 1", len(c.m), len(c.users), n)
	}
	for i := range choicesRoom + 10 {
		c.put(uint64(i), choice{ip: far4, user: uint32(i), used: noon.Unix()})
		if len(c.m) >= choicesRoom {
			break
		}
	}
	if c.Adopt(p, keys[0], far4, noon) {
		t.Error("adopted above the room for all")
	}
}

func TestAChoiceOutsideThePoolIsNone(t *testing.T) {
	t.Parallel()
	p := wide(t)
	var c Choices
	k := elsewhere(p, 7, far4, 1)[0]
	c.Adopt(p, k, far4, noon)
	gone, _ := p.Default(7, far4)
	var rest []Address
	for i := range p.v4 {
		if p.v4[i].IP != gone.IP {
			rest = append(rest, p.v4[i].Address)
		}
	}
	less, err := New(rest...)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := less.Choose(k, far4)
	if got := c.at(t, less, k, far4, noon); got != want.IP {
		t.Errorf("%v, want %v", got, want.IP)
	}
	if _, ok := c.Choose(nil, k, far4, noon); ok {
		t.Error("an address out of no pool")
	}
	if c.Adopt(nil, k, far4, noon) {
		t.Error("adopted out of no pool")
	}
}

func TestChoicesOutliveARestart(t *testing.T) {
	t.Parallel()
	p := wide(t)
	var before, after Choices
	keys := elsewhere(p, 7, far4, 20)
	for _, k := range keys {
		before.Adopt(p, k, far4, noon)
	}
	if !before.Changed() {
		t.Error("nothing to save")
	}
	saved := before.Append(nil)
	if before.Changed() {
		t.Error("saved, and still to be saved")
	}
	if err := after.Restore(saved); err != nil {
		t.Fatal(err)
	}
	first, _ := p.Default(7, far4)
	for _, k := range keys {
		if got := after.at(t, p, k, far4, noon); got != first.IP {
			t.Errorf("%+v leaves from %v, want %v", k, got, first.IP)
		}
	}
	for _, bad := range [][]byte{nil, saved[:3], saved[:len(saved)-1], append([]byte("JUNK"), saved[4:]...)} {
		var c Choices
		if c.Restore(bad) == nil || c.n.Load() != 0 {
			t.Errorf("%d damaged bytes were taken", len(bad))
		}
	}
}

func BenchmarkChoose(b *testing.B) {
	p, _ := New(Address{IP: netip.MustParseAddr("203.0.113.1"), Helo: "a"}, Address{IP: netip.MustParseAddr("203.0.113.2"), Helo: "b"})
	var c Choices
	k := Key{User: 7, Sender: "a.example", Recipient: "b.example"}
	for range b.N {
		c.Choose(p, k, far4, noon)
	}
}
