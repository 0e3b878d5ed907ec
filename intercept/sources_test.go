package intercept

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"sluice/bpf"
	"sluice/intercept/control"
)

// fakeTable is a kernel's table that fails when it is told to, and whose every state is looked at.
type fakeTable struct {
	entries map[netip.Prefix]bpf.Source
	failIn  int // writes until one fails; 0: never
	changed func()
}

var errFake = errors.New("the kernel said no")

func (f *fakeTable) write(do func()) error {
	if f.failIn > 0 {
		if f.failIn--; f.failIn == 0 {
			return errFake
		}
	}
	do()
	if f.changed != nil {
		f.changed()
	}
	return nil
}

func (f *fakeTable) PutSources(list ...bpf.Source) error {
	for _, s := range list {
		if err := f.write(func() { f.entries[s.Prefix] = s }); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeTable) DeleteSources(list ...netip.Prefix) error {
	for _, p := range list {
		if err := f.write(func() { delete(f.entries, p) }); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeTable) ReplaceSources(list []bpf.Source) (bpf.Change, error) {
	f.entries = make(map[netip.Prefix]bpf.Source)
	for _, s := range list {
		f.entries[s.Prefix] = s
	}
	return bpf.Change{}, nil
}

// find is the kernel's look-up: the entry of the longest prefix.
func (f *fakeTable) find(a netip.Addr) bpf.Source {
	best := bpf.Source{Prefix: netip.PrefixFrom(a, -1), Mode: kernelMode(worldDefault.Mode), Fail: kernelFail(worldDefault.Fail), Owner: nobodys(netip.PrefixFrom(a, 0))}
	for p, s := range f.entries {
		if p.Contains(a) && (!best.Prefix.IsValid() || p.Bits() > best.Prefix.Bits()) {
			best = s
		}
	}
	return best
}

// naive says what should hold for an address, from the two tables, in the plainest way there is.
func naive(a netip.Addr, ce *ceiling, runtime *rules) (user uint32, owner int, mode bpf.Mode, fail bpf.Fail) {
	m, f, ownerBits, modeBits := worldDefault.Mode, worldDefault.Fail, -1, -1
	for _, t := range []*rules{ce.Sources(), runtime} { // runtime is last: it wins where both have the prefix
		for p, s := range t.All() {
			if !p.Contains(a) {
				continue
			}
			if s.Fail != 0 && p.Bits() >= ownerBits {
				user, ownerBits, f = s.User, p.Bits(), s.Fail
			}
			if s.Mode != 0 && p.Bits() >= modeBits {
				m, modeBits = s.Mode, p.Bits()
			}
		}
	}
	return user, max(ownerBits, 0), kernelMode(m), kernelFail(f)
}

// randomPrefix is from a small corner of both address families, so that random prefixes meet.
func randomPrefix(r *rand.Rand) netip.Prefix {
	a := netip.AddrFrom4([4]byte{192, 0, 2, byte(r.Uint32())})
	bits := 22 + r.IntN(11)
	if r.IntN(3) == 0 {
		a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 7: byte(r.IntN(4)), 15: byte(r.IntN(8))})
		bits = []int{0, 32, 48, 62, 63, 64, 96, 126, 127, 128}[r.IntN(10)]
	}
	p, _ := a.Prefix(bits)
	return p
}

func randomAddr(r *rand.Rand) netip.Addr {
	if r.IntN(3) == 0 {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 7: byte(r.IntN(5)), 15: byte(r.IntN(9))})
	}
	return netip.AddrFrom4([4]byte{192, 0, byte(1 + r.IntN(3)), byte(r.Uint32())})
}

func randomSource(r *rand.Rand, p netip.Prefix) control.Source {
	s := control.Source{Prefix: p}
	for s.Mode == 0 && s.Fail == 0 {
		if r.IntN(2) == 0 {
			s.Mode = control.Pass + control.Mode(r.IntN(7))
		}
		if r.IntN(2) == 0 {
			s.User, s.Fail = 1+uint32(r.IntN(9)), control.Open+control.Fail(r.IntN(2))
		}
	}
	return s
}

// worldDefault is what nobody else says.
var worldDefault = Source{Mode: control.Pass, Fail: control.Open}

// randomWorld is a configuration that allows everything at run time, so that the join is seen and not the ceiling.
func randomWorld(r *rand.Rand) (*ceiling, *runtimeSet) {
	c := &Config{Default: worldDefault, Loosen: []netip.Prefix{prefix("0.0.0.0/0"), prefix("::/0")}}
	for range r.IntN(8) {
		s := randomSource(r, randomPrefix(r))
		c.Sources = append(c.Sources, Source{Prefix: s.Prefix, Mode: s.Mode, Fail: s.Fail})
	}
	runtime := new(runtimeSet)
	for range r.IntN(12) {
		runtime.put(randomSource(r, randomPrefix(r)))
	}
	return newCeiling(c), runtime
}

// TestKernelTableIsTheJoin: what the kernel finds by one look-up for the longest prefix is what users and modes say, each
// by its own longest prefix; and what the proxy finds for itself is the same.
func TestKernelTableIsTheJoin(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 5))
	for range 400 {
		ce, runtime := randomWorld(r)
		k := new(fakeTable)
		if _, err := k.ReplaceSources(ce.table(&runtime.rules)); err != nil {
			t.Fatal(err)
		}
		for range 40 {
			a := randomAddr(r)
			got := k.find(a)
			bits := got.Owner.Bits()
			if !got.Owner.IsValid() {
				bits = got.Prefix.Bits()
			}
			user, owner, mode, fail := naive(a, ce, &runtime.rules)
			if got.User != user || bits != owner || got.Mode != mode || got.Fail != fail {
				t.Fatalf("%v: the kernel has %+v, want user %d of a /%d, %v, %v", a, got, user, owner, mode, fail)
			}
			h := ce.Holds(netip.PrefixFrom(a, a.BitLen()), &runtime.rules)
			if kernelMode(h.Mode) != mode || h.Owner.User != user {
				t.Fatalf("%v: the proxy finds %+v, want user %d, %v", a, h, user, mode)
			}
		}
	}
}

func randomChange(r *rand.Rand, runtime *runtimeSet) (c change) {
	for range 1 + r.IntN(3) {
		c.put = append(c.put, randomSource(r, randomPrefix(r)))
	}
	have := slices.Collect(maps.Keys(maps.Collect(runtime.All())))
	for range r.IntN(3) {
		if len(have) > 0 {
			c.gone = append(c.gone, have[r.IntN(len(have))])
		}
	}
	return c
}

// TestOneStep: while a change is written, each look-up finds what was or what shall be; afterwards the table is as if it
// had been written whole. When a write fails, all is as before.
func TestOneStep(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(8, 13))
	for round := range 600 {
		ce, runtime := randomWorld(r)
		k := new(fakeTable)
		k.ReplaceSources(ce.table(&runtime.rules))
		before := maps.Clone(k.entries)
		c := randomChange(r, runtime)
		kc, undo := step(ce, runtime, new(sync.Mutex), c)
		after := new(fakeTable)
		after.ReplaceSources(ce.table(&runtime.rules))
		addrs := make([]netip.Addr, 20)
		for i := range addrs {
			addrs[i] = randomAddr(r)
		}
		old := fakeTable{entries: before}
		k.changed = func() {
			for _, a := range addrs {
				now, was, shall := k.find(a), old.find(a), after.find(a)
				if !holdsSame(now, was) && !holdsSame(now, shall) {
					t.Fatalf("%v: for a moment %+v, neither %+v nor %+v", a, now, was, shall)
				}
			}
		}
		k.failIn = r.IntN(4) * r.IntN(3)
		err := write(k, kc.before, kc.after)
		want := after.entries
		if err != nil {
			if !errors.Is(err, errFake) {
				t.Fatal(err)
			}
			k.changed, k.failIn = nil, 0
			if err := write(k, kc.after, kc.before); err != nil {
				t.Fatal(err)
			}
			undo.apply(runtime)
			want = before
			after.ReplaceSources(ce.table(&runtime.rules))
			if !maps.EqualFunc(after.entries, before, same) {
				t.Fatalf("round %d: the set is not as before", round)
			}
		}
		if !maps.EqualFunc(k.entries, want, same) {
			t.Fatalf("round %d: the table is\n%v\nwant\n%v\nafter %+v", round, k.entries, want, c)
		}
	}
}

// holdsSame compares what holds for an address, whichever prefix says so.
func holdsSame(a, b bpf.Source) bool {
	return a.User == b.User && a.Mode == b.Mode && a.Fail == b.Fail
}

// TestOwnerOfAMode: an entry that is there only because of a mode has the prefix length of the user around it, so that a
// lock of his network means it.
func TestOwnerOfAMode(t *testing.T) {
	t.Parallel()
	ce := newCeiling(&Config{Default: Source{Mode: control.Intercept, Fail: control.Open}, Loosen: []netip.Prefix{prefix("0.0.0.0/0")}})
	runtime := new(rules)
	runtime.Put(prefix("192.0.2.0/24"), control.Source{Prefix: prefix("192.0.2.0/24"), User: 7, Fail: control.Closed})
	for _, p := range []string{"192.0.2.64/26", "203.0.113.0/24"} {
		runtime.Put(prefix(p), control.Source{Prefix: prefix(p), Mode: control.Observe})
	}
	if e := ce.entry(prefix("192.0.2.64/26"), runtime); e.Owner != prefix("192.0.2.0/24") || e.User != 7 || e.Fail != bpf.FailClosed || e.Mode != bpf.ModeObserve {
		t.Errorf("inside a user's network: %+v", e)
	}
	if e := ce.entry(prefix("192.0.2.0/24"), runtime); e.Owner.IsValid() || e.Mode != bpf.ModeIntercept {
		t.Errorf("a user's own prefix: %+v", e)
	}
	if e := ce.entry(prefix("203.0.113.0/24"), runtime); e.Owner != prefix("0.0.0.0/0") || e.User != 0 || e.Fail != bpf.FailOpen {
		t.Errorf("nobody's: %+v", e)
	}
}
