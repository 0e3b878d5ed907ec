package pool

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var (
	outA  = netip.MustParseAddr("203.0.113.17")
	outB  = netip.MustParseAddr("203.0.113.18")
	outC  = netip.MustParseAddr("203.0.113.19")
	mx    = netip.MustParseAddr("198.51.100.20")
	nearb = netip.MustParseAddr("198.51.100.21")
	smart = netip.MustParseAddr("192.0.2.99")
	six   = netip.MustParseAddr("2001:db8:100::20")
)

// fakeDNS knows what tests say; names that begin with "slow" are answered once hang is closed.
type fakeDNS struct {
	spf  map[string]map[netip.Addr]Leave // a domain that is not there says nothing
	hang chan struct{}
}

func (f *fakeDNS) authority() *Authority {
	a := NewAuthority(
		func(_ context.Context, q SPFQuestion) (Leave, bool) {
			if len(q.Domain) > 4 && q.Domain[:4] == "slow" {
				<-f.hang
			}
			m, ok := f.spf[q.Domain]
			if !ok {
				return Unsaid, true
			}
			return m[q.From], q.Domain != "broken.example"
		},
		func(_ context.Context, domain string) (Exchangers, bool) {
			if len(domain) > 4 && domain[:4] == "slow" {
				<-f.hang
			}
			return Exchangers{Addrs: []netip.Addr{mx, six}, Provider: "dest.example"}, domain != "broken.example"
		})
	a.Wait = 10 * time.Second
	return a
}

func threeAddresses(t testing.TB) *Pool {
	t.Helper()
	p, err := New(Address{IP: outA, Helo: "a.example"}, Address{IP: outB, Helo: "b.example"}, Address{IP: outC, Helo: "c.example"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDecide(t *testing.T) {
	t.Parallel()
	f := &fakeDNS{spf: map[string]map[netip.Addr]Leave{
		"only-b.example":  {outB: Allowed},
		"nobody.example":  {},
		"neutral.example": {outA: Tolerated, outB: Tolerated, outC: Tolerated},
		"prefers.example": {outA: Tolerated, outB: Tolerated, outC: Allowed},
		"broken.example":  {},
	}}
	p := threeAddresses(t)
	for _, tt := range []struct {
		name, sender, rcpt string
		to                 netip.Addr
		managed            bool // the setting
		signed             bool
		want               Why
		own                bool
		from               netip.Addr // invalid: any of ours
	}{
		{name: "exchanger, SPF none", sender: "plain.example", rcpt: "Dest.example", to: mx, want: Exchanger},
		{name: "null sender", rcpt: "dest.example", to: mx, want: Exchanger},
		{name: "SPF allows one", sender: "Only-B.example", rcpt: "dest.example", to: mx, want: Exchanger, from: outB},
		{name: "SPF prefers one", sender: "prefers.example", rcpt: "dest.example", to: mx, want: Exchanger, from: outC},
		{name: "neutral will do", sender: "neutral.example", rcpt: "dest.example", to: mx, want: Exchanger},
		{name: "SPF allows none", sender: "nobody.example", rcpt: "dest.example", to: mx, want: NotAllowed, own: true},
		{name: "but it is signed", sender: "nobody.example", rcpt: "dest.example", to: mx, signed: true, want: Signed},
		{name: "close to the exchanger", sender: "plain.example", rcpt: "dest.example", to: nearb, want: Relayed, own: true},
		{name: "smart host", sender: "plain.example", rcpt: "dest.example", to: smart, want: Relayed, own: true},
		{name: "smart host, signed", sender: "plain.example", rcpt: "dest.example", to: smart, signed: true, want: Relayed, own: true},
		{name: "no address of that family", sender: "plain.example", rcpt: "dest.example", to: six, want: NoFamily, own: true},
		{name: "no answer about exchangers", sender: "plain.example", rcpt: "broken.example", to: mx, want: Unanswered, own: true},
		{name: "no answer about SPF", sender: "broken.example", rcpt: "dest.example", to: mx, want: Unanswered, own: true},
		{name: "as set", managed: true, sender: "plain.example", rcpt: "dest.example", to: smart, want: Told},
		{name: "as set, SPF forbids", managed: true, sender: "nobody.example", rcpt: "dest.example", to: mx, want: Told},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			q := &Question{Key: Key{7, tt.sender, tt.rcpt}, To: tt.to, Auto: !tt.managed, Signed: tt.signed, At: time.Now()}
			d := f.authority().Decide(context.Background(), p, new(Choices), q)
			if d.Why != tt.want || d.Own != tt.own || !d.Own && !p.Has(d.IP) || tt.from.IsValid() && d.IP != tt.from {
				t.Errorf("%+v (%v), want %v from %v", d, d.Why, tt.want, tt.from)
			}
			if d.Why.String() == "" || d.Why.Name() == "" {
				t.Error("a reason without a name")
			}
		})
	}
}

// TestSPFChoosesAmongManaged: where the setting says managed nobody waits, and once SPF is known it has a say.
func TestSPFChoosesAmongManaged(t *testing.T) {
	t.Parallel()
	f := &fakeDNS{hang: make(chan struct{}), spf: map[string]map[netip.Addr]Leave{"slow-b.example": {outB: Allowed}}}
	a, p := f.authority(), threeAddresses(t)
	for n := range 50 { // among the recipients are such for whom the pool chooses another
		q := &Question{Key: Key{7, "slow-b.example", fmt.Sprintf("d%d.example", n)}, To: mx, At: time.Now()}
		usual, _ := p.Choose(q.Key, mx)
		if d := a.Decide(context.Background(), p, new(Choices), q); d.Address != usual {
			t.Errorf("while the DNS is silent %v chooses %v, want %v", q.Recipient, d.IP, usual.IP)
		}
	}
	close(f.hang)
	for _, from := range []netip.Addr{outA, outB, outC} {
		if _, known := a.SPF.Get(context.Background(), SPFQuestion{"slow-b.example", from}, time.Now()); !known {
			t.Fatal("SPF is still unknown")
		}
	}
	for n := range 50 {
		q := &Question{Key: Key{7, "slow-b.example", fmt.Sprintf("d%d.example", n)}, To: mx, At: time.Now()}
		if d := a.Decide(context.Background(), p, new(Choices), q); d.IP != outB {
			t.Errorf("with SPF known %v leaves from %v, which is forbidden", q.Recipient, d.IP)
		}
	}
}

// TestUnansweredIsOwn: who waits longer than a.Wait for the DNS leaves from his own address, and the next mail does better.
func TestUnansweredIsOwn(t *testing.T) {
	t.Parallel()
	f := &fakeDNS{hang: make(chan struct{})}
	a, p := f.authority(), threeAddresses(t)
	a.Wait = time.Millisecond
	q := &Question{Key: Key{7, "slow.example", "slow.example"}, To: mx, Auto: true, At: time.Now()}
	if d := a.Decide(context.Background(), p, new(Choices), q); !d.Own || d.Why != Unanswered {
		t.Errorf("%+v, want the customer's own address", d)
	}
	if n := a.Counts()["unanswered"]; n != 1 {
		t.Errorf("%d were counted", n)
	}
	close(f.hang)
	a.Wait = 10 * time.Second
	if d := a.Decide(context.Background(), p, new(Choices), q); d.Own || d.Why != Exchanger {
		t.Errorf("%+v, want a delivery address", d)
	}
}

// TestRelaysAreLearnt, and forgotten after a day.
func TestRelaysAreLearnt(t *testing.T) {
	t.Parallel()
	a, p, now := (&fakeDNS{}).authority(), threeAddresses(t), time.Now()
	for _, to := range []netip.Addr{smart, smart, mx} {
		a.Decide(context.Background(), p, new(Choices), &Question{Key: Key{7, "plain.example", "dest.example"}, To: to, Auto: true, At: now})
	}
	if all := a.Relays(now); len(all) != 1 || all[0].To != smart || all[0].Mails != 2 || all[0].Domain != "dest.example" {
		t.Errorf("%+v", all)
	}
	if x, r := a.Seen(smart, now); x || !r {
		t.Errorf("the smart host is exchanger %v, relay %v", x, r)
	}
	if x, r := a.Seen(mx, now); !x || r {
		t.Errorf("the exchanger is exchanger %v, relay %v", x, r)
	}
	later := now.Add(targetLife + time.Minute)
	if x, r := a.Seen(smart, later); x || r || len(a.Relays(later)) != 0 {
		t.Error("a day later it is still taken for a relay")
	}
}

// TestExchangersAddUp: what the DNS named before is still an exchanger when it names another.
func TestExchangersAddUp(t *testing.T) {
	t.Parallel()
	n := byte(0)
	a := NewAuthority(nil, func(context.Context, string) (Exchangers, bool) {
		n++
		return Exchangers{Addrs: []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, n})}}, true
	})
	now := time.Now()
	for range 3 {
		<-a.Exchangers.start("big.example", now).done
		now = now.Add(exchangersKeep + time.Minute)
	}
	x, _ := a.Exchangers.Get(context.Background(), "big.example", now.Add(-time.Minute))
	if len(x.Addrs) != 3 || !x.Has(netip.AddrFrom4([4]byte{198, 51, 100, 1})) || !x.Near(nearb) || x.Near(smart) {
		t.Errorf("%v", x.Addrs)
	}
}

func TestTargetsAreBounded(t *testing.T) {
	t.Parallel()
	a, now := (&fakeDNS{}).authority(), time.Now()
	for i := range targetsRoom + 100 {
		a.learn(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), "d.example", false, now)
	}
	if n := len(a.targets); n > targetsRoom {
		t.Errorf("%d destinations are remembered", n)
	}
	now = now.Add(targetLife)
	for i := range targetsRoom { // whatever is old goes before anything that is new
		a.learn(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), "d.example", false, now)
	}
	if n := len(a.targets); n != targetsRoom || len(a.Relays(now)) != n {
		t.Errorf("%d destinations are remembered, %d of them new", n, len(a.Relays(now)))
	}
}

func TestNoAuthority(t *testing.T) {
	t.Parallel()
	var a *Authority
	p := threeAddresses(t)
	q := &Question{Key: Key{7, "a.example", "b.example"}, To: mx, Auto: true, At: time.Now()}
	if d := a.Decide(context.Background(), p, new(Choices), q); !d.Own || d.Why != NotAsked {
		t.Errorf("%+v", d)
	}
	if q.Auto = false; a.Decide(context.Background(), p, new(Choices), q).Own {
		t.Error("managed without an authority is own")
	}
	a.Expect(p, "a.example", mx, time.Now())
	if !a.Fits(Key{1, "a.example", "b.example"}, outA, true, time.Now()) {
		t.Error("without an authority anything fits")
	}
}

// BenchmarkDecide is a decision of which everything is known: no allocation, and below a microsecond.
func BenchmarkDecide(b *testing.B) {
	a, p, c := (&fakeDNS{}).authority(), threeAddresses(b), new(Choices)
	q := &Question{Key: Key{7, "plain.example", "dest.example"}, To: mx, Auto: true, At: time.Now()}
	a.Decide(context.Background(), p, c, q)
	b.ReportAllocs()
	for b.Loop() {
		a.Decide(context.Background(), p, c, q)
	}
}
