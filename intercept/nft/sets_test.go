package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"sluice/bpf"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// find returns the element in which a stands, as the kernel looks it up.
func find(list []element, a netip.Addr) (element, bool) {
	key := bytesOf(a)
	for _, e := range list {
		if e.key == key || e.last != "" && e.key <= key && key <= e.last {
			return e, true
		}
	}
	return element{}, false
}

// chainOf walks the maps in the order of the rules.
func chainOf(sets contents, a netip.Addr, otherwise string) string {
	family := 4
	if a.Is6() {
		family = 6
	}
	if e, ok := find(sets[fmt.Sprint("host", family)], a); ok {
		return e.chain
	}
	if family == 6 {
		if e, ok := find(sets["subnet6"], netip.PrefixFrom(a, 64).Masked().Addr()); ok {
			return e.chain
		}
	}
	if e, ok := find(sets[fmt.Sprint("net", family)], a); ok {
		return e.chain
	}
	return fmt.Sprint(otherwise, family)
}

// longest is the model: the source of the longest prefix around a, else the default.
func (s *state) longest(a netip.Addr) bpf.Source {
	got, bits := s.config.Default, -1
	for p, src := range s.sources {
		if p.Contains(a) && p.Bits() > bits {
			got, bits = src, p.Bits()
		}
	}
	return got
}

// Whatever stands inside whatever else, an address finds the mode, the fail mode and the lock that the longest prefixes
// say, in the lean and in the full table.
func TestSetsEqualLongestPrefix(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 100 {
		s := randomState(r, round%2 == 0)
		for _, lean := range []bool{true, false} {
			sets := s.contents(everyPart, lean, now)
			for range 200 {
				a := s.randomAddress(r)
				checkAddress(t, s, sets, a)
			}
			if t.Failed() {
				t.Fatalf("round %d, lean %v: default %v %v, sources %v, locks %v", round, lean, s.config.Default.Mode, s.config.Default.Fail, s.sources, s.locks)
			}
		}
	}
}

func checkAddress(t *testing.T, s *state, sets contents, a netip.Addr) {
	t.Helper()
	family := familyOf(netip.PrefixFrom(a, 0))
	src := s.longest(a)
	if got, want := chainOf(sets, a, filterModes[s.config.Default.Mode]), fmt.Sprint(filterModes[src.Mode], family); got != want {
		t.Errorf("%v goes to %s, want %s", a, got, want)
	}
	tr := traitsOf(src)
	for set, want := range map[string]bool{
		"closed": tr.closed, "guarded": tr.closed && (tr.strict || tr.taken), "strict": tr.strict,
		"seized": tr.taken && !tr.closed, "observe": tr.observed,
	} {
		if _, got := find(sets[fmt.Sprint(set, family)], a); got != want {
			t.Errorf("%v in set %s: %v, want %v", a, set, got, want)
		}
	}
	rate := s.config.Default.PerSecond
	if e, ok := find(sets[fmt.Sprint("rate", family)], a); ok {
		if _, err := fmt.Sscanf(e.chain, "rate_%d_", &rate); err != nil {
			t.Error(err)
		}
	}
	if rate != src.PerSecond {
		t.Errorf("%v has the rate %d, want %d", a, rate, src.PerSecond)
	}
	var lock *bpf.Lock
	for _, l := range s.locks {
		if l.Prefix.Contains(a) && l.Until.After(now) && (lock == nil || l.Prefix.Bits() > lock.Prefix.Bits()) {
			lock = &l
		}
	}
	want := lock != nil && (lock.Prefix.Bits() >= max(src.Prefix.Bits(), 0) || src.User != 0 && src.User == lock.ID)
	e, got := find(sets[fmt.Sprint("locked", family)], a)
	if got != want || want && !e.until.Equal(lock.Until) {
		t.Errorf("%v locked: %v until %v, want %v by %+v", a, got, e.until, want, lock)
	}
	if _, cut := find(sets[fmt.Sprint("cut", family)], a); cut != (want && !lock.KeepFlows) {
		t.Errorf("%v cut: %v", a, cut)
	}
}

func randomState(r *rand.Rand, v4 bool) *state {
	s := &state{sources: make(map[netip.Prefix]bpf.Source), locks: make(map[netip.Prefix]bpf.Lock)}
	s.config.Default = bpf.Source{Mode: bpf.Mode(1 + r.IntN(6)), Fail: bpf.Fail(r.IntN(2)), PerSecond: uint16(r.IntN(3))}
	for range r.IntN(40) {
		p := randomPrefix(r, v4)
		s.sources[p] = bpf.Source{Prefix: p, User: uint32(r.IntN(4)), Mode: bpf.Mode(1 + r.IntN(6)), Fail: bpf.Fail(r.IntN(2)), PerSecond: uint16(r.IntN(3))}
	}
	for range r.IntN(6) {
		p := randomPrefix(r, v4)
		s.locks[p] = bpf.Lock{Prefix: p, ID: uint32(1 + r.IntN(3)), Budget: uint16(r.IntN(3)), KeepFlows: r.IntN(2) == 0,
			Until: now.Add(time.Duration(r.IntN(5)-1) * time.Minute)}
	}
	return s
}

// randomPrefix is close to others, often a single address or a /64.
func randomPrefix(r *rand.Rand, v4 bool) netip.Prefix {
	if v4 {
		bits := []int{0, 8, 24, 25, 28, 30, 31, 32, 32, 32}[r.IntN(10)]
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(16))}), bits).Masked()
	}
	bits := []int{0, 32, 48, 63, 64, 64, 65, 96, 126, 127, 128, 128}[r.IntN(12)]
	a := [16]byte{0x20, 1, 0xd, 0xb8, 7: byte(r.IntN(3)), 8: byte(r.IntN(2) * 0x80), 15: byte(r.IntN(4))}
	return netip.PrefixFrom(netip.AddrFrom16(a), bits).Masked()
}

func (s *state) randomAddress(r *rand.Rand) netip.Addr {
	v4 := r.IntN(2) == 0
	for p := range s.sources {
		v4 = p.Addr().Is4()
		break
	}
	return randomPrefix(r, v4).Addr()
}

// A network where all are alike needs no element for its users.
func TestLeanTables(t *testing.T) {
	t.Parallel()
	s := &state{sources: make(map[netip.Prefix]bpf.Source)}
	s.config.Default = bpf.Source{Mode: bpf.ModeIntercept, Fail: bpf.FailClosed}
	for i := range 1000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32)
		s.sources[p] = bpf.Source{Prefix: p, User: uint32(i + 1), Mode: bpf.ModeIntercept, Fail: bpf.FailClosed}
	}
	odd := prefix("198.18.1.7/32")
	s.sources[odd] = bpf.Source{Prefix: odd, User: 8, Mode: bpf.ModePass, Fail: bpf.FailClosed}
	sets := s.sourceSets(true)
	if n := len(sets["host4"]); n != 1 {
		t.Errorf("%d hosts, want the one that differs", n)
	}
	if n := len(sets["net4"]) + len(sets["closed4"]); n != 1 {
		t.Errorf("%d runs, want one of everybody who fails closed", n)
	}
	if n := len(sets["guarded4"]); n != 2 {
		t.Errorf("%d runs of those who are guarded, want two around the one who is not", n)
	}
}

func TestExemptions(t *testing.T) {
	t.Parallel()
	s := &state{config: bpf.Config{Ports: []bpf.PortRule{{Port: 2525}}}, exempt: []bpf.Exemption{
		{Prefix: prefix("198.51.100.0/24"), Mode: bpf.ModePass},
		{Prefix: prefix("198.51.100.0/24"), Port: 2525, Mode: bpf.ModeReject},
		{Prefix: prefix("198.51.100.25/32"), Mode: bpf.ModeDrop, Until: now.Add(-time.Minute)},
		{Prefix: prefix("198.51.100.26/32"), Mode: bpf.ModeIntercept, Until: now.Add(time.Minute)},
	}}
	sets := s.exemptSets(now)
	for _, c := range []struct{ set, address, chain string }{
		{"exempt4_25", "198.51.100.1", "pass4"}, {"exempt4_2525", "198.51.100.1", "reject4"},
		{"exempt4_25", "198.51.100.25", "pass4"}, // the one inside is over
		{"exempt4_25", "198.51.100.26", "intercept4"}, {"exempt4_25", "198.51.101.1", ""},
		{"free4_25", "198.51.100.1", "free"}, {"free4_2525", "198.51.100.1", ""}, {"free4_25", "198.51.100.26", ""},
	} {
		e, ok := find(sets[c.set], netip.MustParseAddr(c.address))
		if ok != (c.chain != "") || ok && c.chain != "free" && e.chain != c.chain {
			t.Errorf("%s finds %+v in %s, want %q", c.address, e, c.set, c.chain)
		}
	}
}

func TestBypasses(t *testing.T) {
	t.Parallel()
	soon, late := now.Add(time.Minute), now.Add(time.Hour)
	s := &state{bypasses: []bpf.Bypass{
		{Prefix: prefix("192.0.2.0/24"), Until: soon}, {Prefix: prefix("192.0.2.7/32"), Until: late},
		{Prefix: prefix("2001:db8::/32"), Until: bpf.BypassForGood}, {Prefix: prefix("2001:db8:1::/48"), Until: soon},
		{Until: now.Add(-time.Second)},
	}}
	sets := s.bypassSets(now)
	for a, want := range map[string]time.Time{"192.0.2.1": soon, "192.0.2.7": late, "2001:db8::1": {}, "2001:db8:1::1": {}} {
		addr := netip.MustParseAddr(a)
		e, ok := find(sets[fmt.Sprint("bypass", familyOf(netip.PrefixFrom(addr, 0)))], addr)
		if !ok || !e.until.Equal(want) {
			t.Errorf("%s: %+v, %v; want until %v", a, e, ok, want)
		}
	}
	if len(sets["bypass"]) != 0 {
		t.Error("the bypass of everybody is over and stands")
	}
	s.bypasses = append(s.bypasses, bpf.Bypass{Until: bpf.BypassForGood})
	if all := s.bypassSets(now)["bypass"]; len(all) != 1 || !all[0].until.IsZero() {
		t.Errorf("the bypass of everybody for good: %+v", all)
	}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	const second = uint64(time.Second)
	for _, c := range []struct {
		name            string
		beat, until     uint64
		age, restarting time.Duration
		beaten          bool
	}{
		{name: "never", age: 90 * time.Second},
		{name: "now", beat: 100 * second, beaten: true},
		{name: "a while ago", beat: 97 * second, age: 3 * time.Second, beaten: true},
		{name: "from the future", beat: 200 * second, age: 90 * time.Second, beaten: true},
		{name: "restarting", beat: 99 * second, until: 120 * second, age: time.Second, restarting: 20 * time.Second, beaten: true},
		{name: "restarting too long", beat: 99 * second, until: 170 * second, age: time.Second, beaten: true},
	} {
		got := heartbeat(c.beat, c.until, 10*second, 100*second)
		if got != (bpf.Heartbeat{Beaten: c.beaten, Age: c.age, Restarting: c.restarting}) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func BenchmarkSets100k(b *testing.B) {
	s := &state{sources: make(map[netip.Prefix]bpf.Source)}
	s.config.Default = bpf.Source{Mode: bpf.ModeIntercept}
	for i := range 100_000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i >> 8), byte(i)}), 32)
		s.sources[p] = bpf.Source{Prefix: p, User: uint32(i + 1), Mode: bpf.Mode(1 + i%2*3), Fail: bpf.Fail(i % 2)}
	}
	for b.Loop() {
		s.contents(everyPart, true, now)
	}
}
