//go:build bpftest

package bpf

import (
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// neighbours gives prefixes of hosts whose places in the quick table are one bucket.
func (l *lab) neighbours(n int, v6 bool) (list []netip.Prefix) {
	var first *quickBucket
	for i := uint32(0); len(list) < n; i++ {
		var b [16]byte
		copy(b[:], []byte{0x20, 1, 0x0d, 0xb8})
		binary.BigEndian.PutUint32(b[4:], i)
		p := netip.PrefixFrom(netip.AddrFrom16(b), 64)
		if !v6 {
			p = netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i >> 8), byte(i)}), 32)
		}
		at, _, _ := l.quick.bucket(hostKey(p))
		if first == nil {
			first = at
		}
		if at == first {
			list = append(list, p)
		}
	}
	return list
}

// TestQuickHosts: a host is found wherever it stands, also when its bucket is full, was full, or is not there any more; and who
// is not in the table has what the network around it has.
func TestQuickHosts(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{Slots: 1 << 19})
	l.reset()
	around := []Source{{Prefix: prefix("198.18.0.0/15"), User: 1, Mode: ModePass}, {Prefix: prefix("2001:db8::/32"), User: 1, Mode: ModePass}}
	l.sources(around...)
	r := rand.New(rand.NewPCG(3, 5))
	hosts := append(l.neighbours(7, false), l.neighbours(6, true)...)
	have := map[netip.Prefix]Source{}
	check := func(when string) {
		t.Helper()
		before, err := l.UserCounters()
		l.must(err)
		for _, p := range hosts {
			user := uint32(1)
			if s, ok := have[p]; ok {
				user = s.User
			}
			f := with(v4, func(f *frame) { f.src = p.Addr().String() })
			if p.Addr().Is6() {
				f = with(v6, func(f *frame) { f.src = p.Addr().Next().String() })
			}
			l.run(MailIngress, f.build(), skb{})
			after, err := l.UserCounters()
			l.must(err)
			for u, c := range after {
				if want := u == user; (c.SYN == before[u].SYN+1) != want {
					t.Fatalf("%s: %v is counted for user %d: %v, want user %d", when, p, u, !want, user)
				}
			}
			before = after
		}
	}
	random := func(p netip.Prefix) Source {
		s := Source{Prefix: p, User: 2 + r.Uint32N(1<<20), Mode: []Mode{ModePass, ModeObserve, ModeReject, ModeDrop}[r.IntN(4)]}
		if r.IntN(3) == 0 { // bound, to where the packet comes from or not
			s.MAC = net.HardwareAddr([][]byte{custMAC, {2, 0, 0, 0, 0, 0x11}}[r.IntN(2)])
		}
		return s
	}
	for i := range 40 {
		p := hosts[r.IntN(len(hosts))]
		switch {
		case r.IntN(8) == 0:
			clear(have)
			for _, p := range hosts[:r.IntN(len(hosts))] {
				have[p] = random(p)
			}
			l.sources(append(slices.Collect(maps.Values(have)), around...)...)
		case r.IntN(3) == 0:
			delete(have, p)
			l.must(l.DeleteSources(p))
		default:
			have[p] = random(p)
			l.must(l.PutSources(have[p]))
		}
		if i%4 == 0 {
			check("after a change")
		}
	}
	if n := l.quick.buckets; len(n) != fewBuckets {
		t.Fatalf("a table of %d hosts has %d buckets", len(hosts), len(n))
	}
	many := make([]Source, 3*fewBuckets) // more than there is room for
	for i := range many {
		many[i] = Source{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 32), User: 1, Mode: ModePass}
	}
	l.must(l.PutSources(many...))
	if crowded(len(many), len(l.quick.buckets)) || l.config.Flags&mailConfigFlagCONFIG_QUICK == 0 {
		t.Errorf("the table has %d buckets", len(l.quick.buckets))
	}
	check("in a larger table")
	l.must(l.PutSources(Source{Prefix: prefix("2001:db8::/80"), User: 1, Mode: ModePass}))
	check("with a long prefix")
	if err := l.slowly(nil); err != nil || l.config.Flags&mailConfigFlagCONFIG_QUICK != 0 {
		t.Errorf("leaving the quick table: %v", err)
	}
	check("without a quick table")
	have[hosts[0]] = random(hosts[0])
	l.must(l.PutSources(have[hosts[0]]))
	l.sources(append(slices.Collect(maps.Values(have)), around...)...)
	check("in another table")
}

// TestUserSlots: the small counters go on in the large ones.
func TestUserSlots(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	l.reset()
	l.sources(Source{Prefix: prefix("192.0.2.10/32"), User: 7, Mode: ModePass}, Source{Prefix: prefix("192.0.2.11/32"), User: 1 << 20, Mode: ModePass})
	l.slots.put(7, mailUserSlot{Passed: 1<<32 - 2})
	for i := range uint64(4) {
		for _, src := range []string{"192.0.2.10", "192.0.2.11"} {
			l.run(MailIngress, with(v4, func(f *frame) { f.src = src }).build(), skb{})
		}
		got, err := l.UserCounters()
		l.must(err)
		if want := uint64(1<<32 - 1 + i); got[7].Passed != want || got[7].SYN != want || got[1<<20].Passed != i+1 {
			t.Fatalf("after %d connections the users had %d and %d", i+1, got[7].Passed, got[1<<20].Passed)
		}
	}
}

// TestCellsCount: what is counted where a source stands is the user's, whatever becomes of the source and of the process.
func TestCellsCount(t *testing.T) {
	t.Parallel()
	dir := bpffs(t)
	l := open(t, dir, Options{})
	l.configure(Source{Mode: ModeDrop})
	host := Source{Prefix: prefix("192.0.2.10/32"), User: 7, Mode: ModePass}
	subnet := Source{Prefix: prefix("2001:db8:1::/64"), User: 7, Mode: ModeObserve}
	l.sources(host, subnet)
	passed := map[uint32]uint64{}
	step := func(what string, user uint32, do func() error) {
		t.Helper()
		l.must(do())
		l.run(MailIngress, v4.build(), skb{})
		passed[user]++
		got, err := l.UserCounters()
		l.must(err)
		for u, n := range passed {
			if got[u].Passed != n || got[u].SYN != n {
				t.Fatalf("%s: user %d has %d connections, %d of them passed, want %d", what, u, got[u].SYN, got[u].Passed, n)
			}
		}
	}
	put := func(s Source) func() error { return func() error { return l.PutSources(s) } }
	step("at first", 7, func() error { return nil })
	if in := l.slots.read(7).Passed; in != 0 {
		t.Fatalf("%d are counted in the slot: nothing here tests the cells", in)
	}
	l.run(MailIngress, v6.build(), skb{})
	passed[7]++
	host.User = 8
	step("another's", 8, put(host))
	host.Mode = ModeObserve
	step("in another mode", 8, put(host))
	host.User = 1 << 20 // has no slot
	step("a large number", 1<<20, put(host))
	host.User, host.MAC = 9, custMAC
	step("bound", 9, put(host))
	host.MAC = nil
	step("free again", 9, put(host))
	step("gone and back", 9, func() error { return errors.Join(l.DeleteSources(host.Prefix), l.PutSources(host)) })
	step("in a larger table", 9, func() error { return l.quicken(1<<14, 0) })
	step("without a table", 9, func() error { return l.slowly(nil) })
	step("in a table again", 9, func() error { l.sources(host, subnet); return nil })
	l = open(t, dir, Options{}) // the process before had no time to close
	step("with another process", 9, func() error { l.sources(host, subnet); return nil })
	l.must(l.Close())
	l = open(t, dir, Options{})
	if n := l.slots.read(9).Passed; uint64(n) != passed[9] {
		t.Errorf("%d of %d connections are in the slot after an orderly end", n, passed[9])
	}
	l.must(l.Close())
	l = open(t, dir, Options{MaxNets: 1 << 18}) // in another set
	l.must(l.Commit())
	step("in another set", 9, func() error { l.sources(host, subnet); return nil })
	l.must(l.Retire())
	l.slots.put(9, mailUserSlot{Passed: 1<<32 - 1})
	passed[9] = 1<<32 - 1 + l.quick.sum(9)
	step("beyond 32 bits", 9, func() error { return l.ForgetUsers() })
}

// TestCellsCountWhileTheyChange: what one processor counts in a cell at the moment when another says something else there is the user's
// all the same.
func TestCellsCountWhileTheyChange(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	l.reset()
	host := Source{Prefix: prefix("192.0.2.10/32"), User: 7, Mode: ModePass}
	l.sources(host)
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		o := ebpf.RunOptions{Data: readdress(v4.build(), gwMAC, l.address(0)), Context: skb{}, Repeat: 500}
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if _, err := l.Program(MailIngress).Run(&o); err != nil {
				ended <- err
				return
			}
		}
	}()
	changes, began := 0, time.Now()
	for ; time.Since(began) < 2*time.Second; changes++ {
		host.Mode = []Mode{ModeDrop, ModePass, ModeObserve}[changes%3]
		l.must(l.PutSources(host))
	}
	close(stop)
	l.must(<-ended)
	got, err := l.UserCounters()
	l.must(err)
	var sent uint64 // by what each processor counted for itself
	for _, n := range l.counts() {
		sent += n
	}
	t.Logf("%d connections, %d changes, %v each", sent, changes, time.Since(began)/time.Duration(changes))
	if got[7].SYN != sent {
		t.Errorf("%d of %d connections are counted", got[7].SYN, sent)
	}
}

// TestABucketThatEmptiesAndFills: a host that finds no place beside one that is just leaving is found all the same.
func TestABucketThatEmptiesAndFills(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	l.reset()
	hosts := l.neighbours(4, false)
	l.sources(Source{Prefix: hosts[0], User: 2, Mode: ModePass}, Source{Prefix: hosts[1], User: 3, Mode: ModePass})
	l.must(deleteKeys(l.objects.SourceHosts, []mailHostKey{hostKey(hosts[0])}))
	l.must(l.quick.remove(hostKey(hosts[0])))
	for i, p := range hosts[2:] {
		v, err := checkedSource(Source{Prefix: p, User: uint32(4 + i), Mode: ModePass})
		l.must(err)
		l.must(l.objects.SourceHosts.Put(hostKey(p), v))
		l.must(l.quick.put(hostKey(p), v))
	}
	var err error

	l.must(err)
	for _, p := range hosts {
		l.run(MailIngress, with(v4, func(f *frame) { f.src = p.Addr().String() }).build(), skb{})
	}
	got, err := l.UserCounters()
	l.must(err)
	for user, want := range map[uint32]uint64{2: 0, 3: 1, 4: 1, 5: 1} {
		if got[user].SYN != want {
			t.Errorf("user %d has %d connections, want %d", user, got[user].SYN, want)
		}
	}
}

// TestATableThatFailsHalfWay: where a larger table comes into force and its pin does not, what is said of sources later holds all the
// same, and all that was counted stays.
func TestATableThatFailsHalfWay(t *testing.T) {
	t.Parallel()
	l := open(t, bpffs(t), Options{})
	l.configure(Source{Mode: ModeDrop})
	host := Source{Prefix: prefix("192.0.2.10/32"), User: 7, Mode: ModePass}
	l.sources(host)
	now := filepath.Join(l.plan.set, cellsPin)
	l.run(MailIngress, v4.build(), skb{})
	l.must(errors.Join(os.Remove(now), os.MkdirAll(filepath.Join(now, "in the way"), 0o700)))
	if err := l.quicken(1<<14, 0); err == nil {
		t.Fatal("no pin was in the way")
	}
	l.must(os.RemoveAll(now))
	count := func(when string, want map[uint32]uint64) {
		t.Helper()
		l.run(MailIngress, v4.build(), skb{})
		got, err := l.UserCounters()
		l.must(err)
		for user, n := range want {
			if got[user].Passed != n {
				t.Errorf("%s: user %d has %d connections, want %d", when, user, got[user].Passed, n)
			}
		}
	}
	count("at first", map[uint32]uint64{7: 2})
	host.User = 8
	l.must(l.PutSources(host))
	count("another's", map[uint32]uint64{7: 2, 8: 1})
	l.sources(host)
	if l.config.Flags&mailConfigFlagCONFIG_QUICK == 0 {
		t.Error("no table is in force again")
	}
	count("in a table again", map[uint32]uint64{7: 2, 8: 2})
}

// sum is what the cells counted of a user.
func (t *quickTable) sum(of uint32) (sum uint64) {
	t.each(func(user uint32, _ mailUserReason, n uint32) {
		if user == of {
			sum += uint64(n)
		}
	})
	return sum
}
