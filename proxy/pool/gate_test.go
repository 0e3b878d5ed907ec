package pool

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func four(names ...string) (defs []Definition, ips []netip.Addr) {
	d := Definition{Name: Primary}
	for i, n := range names {
		ip := netip.AddrFrom4([4]byte{203, 0, 113, byte(17 + i)})
		d.Addresses = append(d.Addresses, Address{IP: ip, Helo: n})
		ips = append(ips, ip)
	}
	return []Definition{d}, ips
}

func out(g *Gate) (ips []string) {
	for _, c := range g.List() {
		if c.Out {
			ips = append(ips, c.IP.String()[len("203.0.113."):])
		}
	}
	return ips
}

var named = []FaultKind{Name, Listed}

func bad(text string) []Fault { return []Fault{{Name, text}} }

// TestHalfOfAPoolStays whatever checks say, and each that is mended comes back by itself.
func TestHalfOfAPoolStays(t *testing.T) {
	t.Parallel()
	defs, ips := four("a.example", "b.example", "c.example", "d.example")
	var heard []string
	g := NewGate(nil, func(_, after Condition) { heard = append(heard, fmt.Sprint(after.IP, after.Out)) })
	now := time.Now()
	g.Configure(defs, now)
	for _, ip := range ips {
		g.Found(ip, named, nil, "", now)
	}
	for i, ip := range ips {
		g.Found(ip, named, bad("no PTR"), "", now.Add(time.Duration(i)*time.Second))
	}
	if got := out(g); !slices.Equal(got, []string{"17", "18"}) {
		t.Errorf("out are %v, want the first two that failed", got)
	}
	if c, _ := g.Get(ips[2]); !c.Kept || c.Out || c.Why() == "" {
		t.Errorf("%+v", c)
	}
	g.Found(ips[0], named, nil, "", now)
	if got := out(g); !slices.Equal(got, []string{"18", "19"}) {
		t.Errorf("with one mended out are %v", got)
	}
	for _, ip := range ips {
		g.Found(ip, named, nil, "", now)
	}
	if got := out(g); len(got) != 0 {
		t.Errorf("all are mended, and out are %v", got)
	}
	if len(heard) != 8 {
		t.Errorf("heard %v", heard)
	}
}

// TestTheLastStays unless a person takes it out or it is not on this host.
func TestTheLastStays(t *testing.T) {
	t.Parallel()
	defs, ips := four("a.example")
	g := NewGate(nil, nil)
	now := time.Now()
	g.Configure(defs, now)
	if g.Found(ips[0], named, bad("no PTR"), "", now); !g.Use(ips[0]) {
		t.Error("the last address is out because of its names")
	}
	if g.Found(ips[0], []FaultKind{Absent}, []Fault{{Absent, "gone"}}, "", now); g.Use(ips[0]) {
		t.Error("an address that is not here is in use")
	}
	g.Found(ips[0], []FaultKind{Absent}, nil, "", now)
	if c, _ := g.Get(ips[0]); c.Out || !slices.Equal(c.Faults, bad("no PTR")) {
		t.Errorf("it is here again: %+v", c)
	}
	if !g.Suspend(ips[0], "root", "tests", now) || g.Use(ips[0]) {
		t.Error("a person's word does not count")
	}
	if c, _ := g.Get(ips[0]); c.Why() != "suspended by root: tests" {
		t.Errorf("%q", c.Why())
	}
	if !g.Resume(ips[0], now) || !g.Use(ips[0]) {
		t.Error("it is not resumed")
	}
	if g.Suspend(netip.MustParseAddr("192.0.2.1"), "root", "tests", now) || g.Use(netip.MustParseAddr("192.0.2.1")) {
		t.Error("an address that nobody configured")
	}
}

// TestANewAddressIsCheckedFirst where others can wait for it, and a restart knows who was checked.
func TestANewAddressIsCheckedFirst(t *testing.T) {
	t.Parallel()
	defs, ips := four("a.example", "b.example")
	g := NewGate(nil, nil)
	now := time.Now()
	if g.Configure(defs, now); len(out(g)) != 0 {
		t.Errorf("nobody was checked, and out are %v", out(g))
	}
	for _, ip := range ips {
		if g.Found(ip, named, nil, "", now); len(out(g)) != 0 {
			t.Errorf("during the first checks out are %v", out(g))
		}
	}
	three, all := four("a.example", "b.example", "c.example")
	if g.Configure(three, now); !slices.Equal(out(g), []string{"19"}) {
		t.Errorf("out are %v, want the one that was not checked", out(g))
	}
	g.Suspend(ips[0], "root", "tests", now)
	after := NewGate(g.List(), nil)
	if after.Configure(three, now); !slices.Equal(out(after), []string{"17"}) { // the new one cannot be spared any more
		t.Errorf("after a restart out are %v", out(after))
	}
	after.Found(all[2], named, nil, "", now)
	if c, _ := after.Get(all[2]); c.New || c.Checked.IsZero() || !slices.Equal(out(after), []string{"17"}) {
		t.Errorf("after the check out are %v", out(after))
	}
	one, _ := four("a.example")
	if g.Configure(one, now); len(g.List()) != 1 {
		t.Errorf("%v", g.List())
	}
}

// TestPoolsApart: an address of two pools goes out only where both can spare it, and families do not count for each other.
func TestPoolsApart(t *testing.T) {
	t.Parallel()
	defs, ips := four("a.example", "b.example", "c.example")
	defs[0].Addresses = append(defs[0].Addresses, Address{IP: netip.MustParseAddr("2001:db8::1"), Helo: "a.example"})
	defs = append(defs, Definition{Name: "bounces", Class: Bounce, Addresses: defs[0].Addresses[:1]})
	g := NewGate(nil, nil)
	now := time.Now()
	g.Configure(defs, now)
	six := netip.MustParseAddr("2001:db8::1")
	for _, ip := range append(ips, six) {
		g.Found(ip, named, bad("no PTR"), "", now)
	}
	if !g.Use(ips[0]) || !g.Use(six) || len(out(g)) != 1 {
		t.Errorf("out are %v: want one of those that are in one pool only", out(g))
	}
	if got := g.Pools(ips[0]); !slices.Equal(got, []string{Primary, "bounces"}) {
		t.Errorf("%v", got)
	}
}

// fakeNames is a DNS of a few names; a name that is "broken" has no answer.
type fakeNames struct {
	ptr  map[string][]string
	addr map[string][]string
}

func (f fakeNames) Pointers(_ context.Context, ip netip.Addr) ([]string, error) {
	names := f.ptr[ip.String()]
	if slices.Contains(names, "broken") {
		return nil, errors.New("no answer")
	}
	return names, nil
}

func (f fakeNames) Addresses(_ context.Context, name string) (out []netip.Addr, err error) {
	for _, a := range f.addr[name] {
		if a == "broken" {
			return nil, errors.New("no answer")
		}
		out = append(out, netip.MustParseAddr(a))
	}
	return out, nil
}

func TestInspect(t *testing.T) {
	t.Parallel()
	code := [2]netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.11")}
	lists := []List{{Zone: "bl.example", Codes: [][2]netip.Addr{code}}}
	for _, tt := range []struct {
		name, ip, list string
		ptr, addr      []string
		kinds          []FaultKind
		fault, unsure  string
	}{
		{"good", "203.0.113.17", "", []string{"Out.gw.example."}, []string{"203.0.113.17"}, named, "", ""},
		{"good by IPv6", "2001:db8::17", "", []string{"out.gw.example."}, []string{"203.0.113.17", "2001:db8::17"}, named, "", ""},
		{"no PTR", "203.0.113.17", "", nil, []string{"203.0.113.17"}, named, "has no PTR", ""},
		{"another PTR", "203.0.113.17", "", []string{"host17.example."}, []string{"203.0.113.17"}, named, "is host17.example, not the HELO name", ""},
		{"no A", "203.0.113.17", "", []string{"out.gw.example."}, nil, named, "add its A record", ""},
		{"no AAAA", "2001:db8::17", "", []string{"out.gw.example."}, []string{"203.0.113.17"}, named, "add its AAAA record", ""},
		{"listed", "203.0.113.17", "127.0.0.4", []string{"out.gw.example."}, []string{"203.0.113.17"}, named, "is on the list bl.example (127.0.0.4)", ""},
		{"the list refuses", "203.0.113.17", "127.255.255.254", []string{"out.gw.example."}, []string{"203.0.113.17"}, []FaultKind{Name}, "", "none of its codes"},
		{"the list is silent", "203.0.113.17", "broken", []string{"out.gw.example."}, []string{"203.0.113.17"}, []FaultKind{Name}, "", "list bl.example"},
		{"the DNS is silent", "203.0.113.17", "", []string{"broken"}, nil, []FaultKind{Listed}, "", "the PTR of"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ip := netip.MustParseAddr(tt.ip)
			f := fakeNames{ptr: map[string][]string{tt.ip: tt.ptr}, addr: map[string][]string{"out.gw.example": tt.addr}}
			if tt.list != "" {
				f.addr[listName(ip)+".bl.example"] = []string{tt.list}
			}
			kinds, faults, unsure := Inspect(context.Background(), f, Address{IP: ip, Helo: "out.gw.example"}, lists)
			if !slices.Equal(kinds, tt.kinds) || (len(faults) > 0) != (tt.fault != "") || !strings.Contains(unsure, tt.unsure) || (unsure == "") != (tt.unsure == "") {
				t.Errorf("kinds %v, faults %v, unsure %q", kinds, faults, unsure)
			}
			if tt.fault != "" && !strings.Contains(faults[0].Text, tt.fault) {
				t.Errorf("%q, want %q", faults[0].Text, tt.fault)
			}
		})
	}
	if got := listName(netip.MustParseAddr("203.0.113.17")); got != "17.113.0.203" {
		t.Error(got)
	}
	if got := listName(netip.MustParseAddr("2001:db8::17")); !strings.HasPrefix(got, "7.1.0.0.") || !strings.HasSuffix(got, "8.b.d.0.1.0.0.2") || len(got) != 63 {
		t.Error(got)
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	defs, ips := four("a.example", "b.example", "c.example", "d.example")
	a := defs[0].Addresses
	defs = []Definition{
		{Name: "bounces", Class: Bounce, Addresses: a[:1]}, {Name: "shops", Users: []string{"alice"}, Senders: []string{"shop.example", ".Big.example"}, Addresses: a[1:2]},
		{Name: "theirs", Own: true, Users: []string{"bob"}}, {Name: Primary, Addresses: a[2:]},
	}
	s, err := NewSet(defs, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		user, sender string
		want         netip.Addr // invalid: their own
	}{
		{"alice", "", ips[0]}, {"carol", "", ips[0]}, {"alice", "x.example", ips[1]}, {"carol", "Shop.example", ips[1]}, {"carol", "mail.big.example", ips[1]},
		{"bob", "shop.example", ips[1]}, {"bob", "x.example", netip.Addr{}}, {"bob", "", ips[0]},
	} {
		p := s.For(tt.user, tt.sender)
		got, _ := p.Choose(Key{Sender: tt.sender}, ips[0])
		if p.Own() != !tt.want.IsValid() || got.IP != tt.want {
			t.Errorf("%q of %s leaves from %v, own %t; want %v", tt.sender, tt.user, got.IP, p.Own(), tt.want)
		}
	}
	if p := s.For("carol", "big.example"); p != s.Primary() || s.Of("alice").Own() || !s.Of("bob").Own() || s.Risky() != nil || s.Empty() {
		t.Error("who has no other pool has the primary one")
	}
	// An address that is out is still one of ours; with all of a family out they stay, for whoever connects asks the gate.
	s, err = NewSet(defs, func(ip netip.Addr) bool { return ip == ips[2] })
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := s.For("carol", "x.example").Choose(Key{Recipient: "many.example"}, ips[0]); got.IP != ips[2] || !s.Primary().Has(ips[3]) || s.Primary().InUse(ips[3]) || !s.For("alice", "x.example").InUse(ips[1]) {
		t.Errorf("left from %v", got.IP)
	}
	if _, err := NewSet(append(defs, Definition{Name: "shops"}), nil); err == nil {
		t.Error("two pools of one name")
	}
}
