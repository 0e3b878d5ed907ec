//go:build bpftest

package bpf

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
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
	if len(l.quick.buckets) < len(many)/hostsPerBucket || l.config.Flags&mailConfigFlagCONFIG_QUICK == 0 {
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
