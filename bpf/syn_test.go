//go:build bpftest

package bpf

import (
	"testing"
	"time"
)

// TestSYNBuckets: whoever opens connections faster than its rate loses SYNs, and nobody else does.
func TestSYNBuckets(t *testing.T) {
	l := newLab(t, Options{})
	alice := []Source{
		{Prefix: prefix("192.0.2.0/28"), User: 7, Mode: ModeIntercept, PerSecond: 10},
		{Prefix: prefix("2001:db8:1::/64"), User: 7, Mode: ModeShadow, PerSecond: 10},
	}
	crowd := Source{Prefix: prefix("192.0.2.0/24"), Mode: ModeIntercept, PerSecond: 10}
	crowd6 := Source{Prefix: prefix("2001:db8:1::/48"), Mode: ModeIntercept, PerSecond: 10}
	for _, c := range []struct {
		name             string
		sources          []Source
		one, same, other frame
		dropped          uint64 // of 50 SYNs, those of `one` and `same` in turn
		user             uint32
	}{
		{"a user's addresses and families share", alice, v4, v6, with(v4, func(f *frame) { f.src = "192.0.2.77" }), 30, 7},
		{"unknown hosts have their own", []Source{crowd}, v4, v4, with(v4, func(f *frame) { f.src = "192.0.2.11" }), 30, 0},
		{"a /64 is one host", []Source{crowd6}, v6, with(v6, func(f *frame) { f.src = "2001:db8:1::99" }), with(v6, func(f *frame) { f.src = "2001:db8:1:1::10" }), 30, 0},
		{"no rate", []Source{{Prefix: prefix("192.0.2.0/24"), User: 7, Mode: ModeIntercept}}, v4, v4, v4, 0, 7},
		{"what is forwarded is not counted", []Source{{Prefix: prefix("192.0.2.0/24"), User: 7, Mode: ModePass, PerSecond: 1}}, v4, v4, v4, 0, 7},
	} {
		l.reset()
		l.sources(c.sources...)
		l.listener()
		flood := func(n int) (dropped uint64) {
			before := l.counts()["syn_limited"]
			for i := range n {
				f := c.one
				if i%2 == 1 {
					f = c.same
				}
				l.beat(time.Millisecond, 0)
				l.run(MailIngress, f.build(), skb{})
			}
			return l.counts()["syn_limited"] - before
		}
		began := time.Now()
		dropped := flood(50)
		// What came back meanwhile, rounded up; a slow machine makes the test weaker and not wrong.
		back := uint64(time.Since(began)*10/time.Second) + 1
		if dropped > c.dropped || dropped+back < c.dropped {
			t.Errorf("%s: %d of 50 SYNs were dropped within %v, want %d", c.name, dropped, time.Since(began), c.dropped)
		}
		users, err := l.UserCounters()
		l.must(err)
		if got := users[c.user].SYNLimited; got != dropped {
			t.Errorf("%s: %d SYNs are counted for the user, want %d", c.name, got, dropped)
		}
		before := l.counts()["syn_limited"]
		l.run(MailIngress, c.other.build(), skb{})
		if n := l.counts()["syn_limited"]; n != before {
			t.Errorf("%s: another host's SYN was dropped", c.name)
		}
		if dropped == 0 {
			continue
		}
		// A second later a second's worth is there again.
		buckets, err := readTable[mailHostKey, uint64](l.objects.SynBuckets)
		l.must(err)
		now, err := monotonic()
		l.must(err)
		now -= uint64(10 * time.Millisecond) // the program's clock is coarse
		for key := range buckets {
			l.must(l.objects.SynBuckets.Put(key, now+uint64(time.Second)))
		}
		counted, err := l.userCounts()
		l.must(err)
		for user, c := range counted {
			c.SynDue = now + uint64(time.Second)
			counted[user] = c
		}
		l.setCounts(counted)
		if n := flood(10); n != 0 {
			t.Errorf("%s: %d of 10 SYNs were dropped a second later", c.name, n)
		}
	}
}

// A locked source's connections are the lock's matter, whatever the rate.
func TestSYNBucketLeavesLocksAlone(t *testing.T) {
	l := newLab(t, Options{})
	l.reset()
	l.sources(Source{Prefix: prefix("192.0.2.0/24"), User: 7, Mode: ModeIntercept, PerSecond: 1})
	l.locks(Lock{Prefix: prefix("192.0.2.0/24"), ID: 7})
	l.listener()
	l.beat(time.Millisecond, 0)
	for range 20 {
		if ret, _, _ := l.run(MailIngress, v4.build(), skb{}); ret != redirect {
			t.Fatalf("answer is %d, want a reset", int32(ret))
		}
	}
	if c := l.counts(); c["lock_reset"] != 20 || c["syn_limited"] != 0 {
		t.Errorf("counters are %v", c)
	}
}
