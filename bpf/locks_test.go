//go:build bpftest

package bpf

import (
	"net/netip"
	"testing"
	"time"
)

func locksInForce() []verdict {
	state := func(s Source, list ...Lock) func(*lab) {
		return func(l *lab) { l.sources(s); l.locks(list...); l.listener(); l.beat(time.Millisecond, 0) }
	}
	user := Source{Prefix: prefix("192.0.2.0/24"), User: 7, Mode: ModePass}
	user6 := Source{Prefix: prefix("2001:db8:1::/64"), User: 7, Mode: ModePass}
	other := Source{Prefix: prefix("192.0.2.10/32"), User: 8, Mode: ModePass}
	lock := Lock{Prefix: prefix("192.0.2.0/24"), ID: 7}
	lock6 := Lock{Prefix: prefix("2001:db8:1::/64"), ID: 7}
	change := func(l Lock, f func(*Lock)) Lock { f(&l); return l }
	exempt := func(l *lab) {
		state(user, lock)(l)
		_, err := l.ReplaceLockExempt([]netip.Prefix{prefix("198.51.100.25/32")})
		l.must(err)
	}
	data := with(v4, func(f *frame) { f.flags, f.ack, f.payload = ack, 77, 500 })
	dropped := func(m Mode) Source { s := user; s.Mode = m; return s }
	return []verdict{
		{name: "no budget", state: state(user, lock), packet: v4, want: redirect, reason: "lock_reset"},
		{name: "no budget, IPv6", state: state(user6, lock6), packet: v6, want: redirect, reason: "lock_reset"},
		{name: "wider than the source", state: state(user, change(lock, func(l *Lock) { l.Prefix = prefix("192.0.2.0/25") })), packet: v4, want: redirect, reason: "lock_reset"},
		{name: "same length", state: state(other, change(lock, func(l *Lock) { l.Prefix = prefix("192.0.2.10/32") })), packet: v4, want: redirect, reason: "lock_reset"},
		{name: "budget", state: state(user, change(lock, func(l *Lock) { l.Budget = 10 })), packet: v4, want: redirect, reason: assigned, taken: "lock_explain"},
		{name: "budget, IPv6", state: state(user6, change(lock6, func(l *Lock) { l.Budget = 10 })), packet: v6, want: redirect, reason: assigned, taken: "lock_explain"},
		{name: "another user inside", state: state(other, lock), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "a mode inside the locked user's network", state: state(Source{Prefix: prefix("192.0.2.10/32"), User: 9, Owner: prefix("192.0.2.0/24"), Mode: ModePass}, lock), packet: v4, want: redirect, reason: "lock_reset"},
		{name: "a mode inside another user's network", state: state(Source{Prefix: prefix("192.0.2.10/32"), User: 8, Owner: prefix("192.0.2.8/29"), Mode: ModePass}, lock), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "a mode that is nobody's", state: state(Source{Prefix: prefix("192.0.2.10/32"), Owner: prefix("0.0.0.0/0"), Mode: ModePass}, lock), packet: v4, want: redirect, reason: "lock_reset"},
		{name: "a mode inside the locked /48, IPv6", state: state(Source{Prefix: prefix("2001:db8:1::/64"), User: 7, Owner: prefix("2001:db8::/32"), Mode: ModePass}, Lock{Prefix: prefix("2001:db8::/32"), ID: 3}), packet: v6, want: redirect, reason: "lock_reset"},
		{name: "unknown source", state: func(l *lab) { l.locks(lock) }, packet: v4, want: redirect, reason: "lock_reset"},
		{name: "everything, unknown source", state: func(l *lab) { l.locks(Lock{Prefix: prefix("0.0.0.0/0")}) }, packet: v4, want: redirect, reason: "lock_reset"},
		{name: "expired", state: state(user, change(lock, func(l *Lock) { l.Until = in(-time.Second) })), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "expired inside a live one", state: state(user, lock, Lock{Prefix: prefix("192.0.2.10/32"), ID: 7, Until: in(-time.Second)}, Lock{Prefix: prefix("192.0.2.8/29"), ID: 7, Until: in(-time.Second)}), packet: v4, want: redirect, reason: "lock_reset"},
		{name: "the same user inside", state: state(Source{Prefix: prefix("192.0.2.10/32"), User: 7, Mode: ModePass}, lock), packet: v4, want: redirect, reason: "lock_reset"},
		{name: "not yet expired", state: state(user, change(lock, func(l *Lock) { l.Until = in(time.Hour) })), packet: v4, want: redirect, reason: "lock_reset"},
		{name: "exempt destination", state: exempt, packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "exempt destination's flow", state: exempt, packet: data, want: next, reason: "old_flow", mark: markJudged},
		{name: "mode drop stays", state: state(dropped(ModeDrop), change(lock, func(l *Lock) { l.Budget = 10 })), packet: v4, want: shot, reason: "drop"},
		{name: "mode reject is not loosened", state: state(dropped(ModeReject), change(lock, func(l *Lock) { l.Budget = 10 })), packet: v4, want: redirect, reason: "lock_reset"},
		{name: "open flow", state: state(user, lock), packet: data, want: redirect, reason: "lock_cut"},
		{name: "open flow, IPv6", state: state(user6, lock6), packet: with(v6, func(f *frame) { f.flags, f.ack = ack, 9 }), want: redirect, reason: "lock_cut"},
		{name: "open flow kept", state: state(user, change(lock, func(l *Lock) { l.KeepFlows = true })), packet: data, want: next, reason: "old_flow", mark: markJudged},
		{name: "open flow of another user", state: state(other, lock), packet: data, want: next, reason: "old_flow", mark: markJudged},
		{name: "reset is not answered", state: state(user, lock), packet: with(v4, func(f *frame) { f.flags = rst }), want: next, reason: "old_flow", mark: markJudged},
		{name: "server's answer to port 25", state: state(user, lock), packet: with(v4, func(f *frame) { f.sport, f.flags = 25, syn|ack }), want: next, reason: "old_flow", mark: markJudged},
		{name: "options instead of a reset", state: state(user, lock), packet: with(v4, func(f *frame) { f.options = []byte{1, 1, 1, 1} }), want: shot, reason: "lock_reset"},
		{name: "fragment", state: state(user, lock), packet: with(v4, func(f *frame) { f.fragment = 0x2000 }), want: shot, reason: "frag_first"},
	}
}

// The kernel refuses the assignment here, but the budget is taken before it is tried.
func TestLockBudgetIsPerUserAndMinute(t *testing.T) {
	l := newLab(t, Options{})
	l.reset()
	l.sources(Source{Prefix: prefix("192.0.2.0/24"), User: 7, Mode: ModeIntercept}, Source{Prefix: prefix("2001:db8:1::/64"), User: 7, Mode: ModeIntercept})
	l.must(l.PutLocks(
		Lock{Prefix: prefix("192.0.2.0/24"), ID: 7, Budget: DefaultLockBudget},
		Lock{Prefix: prefix("2001:db8:1::/64"), ID: 7, Budget: DefaultLockBudget}))
	l.listener()
	l.beat(time.Millisecond, 0)
	explained := func() uint64 { return l.counts()[assigned] }
	for i := range 15 {
		f := v4
		if i%3 == 0 {
			f = v6
		}
		l.beat(time.Millisecond, 0)
		if ret, _, _ := l.run(MailIngress, f.build(), skb{}); ret != redirect {
			t.Errorf("SYN %d: answer is %d, want a reset", i, int32(ret))
		}
	}
	if n := explained(); n != 10 {
		t.Errorf("%d SYNs were for the proxy, want 10", n)
	}
	// A minute later the budget is whole again.
	now, err := monotonic()
	l.must(err)
	l.must(l.objects.LockBudgets.Put(uint32(7), mailBudget{StartNs: now - uint64(61*time.Second), Count: 500}))
	l.beat(time.Millisecond, 0)
	l.run(MailIngress, v4.build(), skb{})
	if n := explained(); n != 11 {
		t.Errorf("%d SYNs were for the proxy after a minute, want 11", n)
	}
	// Unlock forgets what was used, and the other prefix stays locked.
	l.must(l.Unlock(prefix("192.0.2.0/24"), prefix("192.0.2.0/25")))
	var b mailBudget
	if err := l.objects.LockBudgets.Lookup(uint32(7), &b); err == nil {
		t.Errorf("the budget is still %+v after Unlock", b)
	}
	list, err := l.Datapath.Locks()
	l.must(err)
	if len(list) != 1 || list[0].Prefix != prefix("2001:db8:1::/64") || list[0].ID != 7 || list[0].Budget != 10 || !list[0].Until.IsZero() {
		t.Errorf("locks are %+v, want the one of IPv6", list)
	}
	users, err := l.UserCounters()
	l.must(err)
	if u := users[7]; u.SYN != 16 || u.LockReset != 16 {
		t.Errorf("user's counters are %+v, want 16 SYNs and 16 resets", u)
	}
}

func proxyAway() []verdict {
	const ms, s = time.Millisecond, time.Second
	type sign struct {
		beat, restart, started, empty time.Duration
		slot                          bool
	}
	state := func(f Fail, x sign, locks ...Lock) func(*lab) {
		return func(l *lab) {
			l.configure(Source{Mode: ModeIntercept, Fail: f})
			l.startedAgo(x.started)
			l.locks(locks...)
			if x.slot {
				l.listener()
			}
			if x.empty != 0 {
				l.emptySince(x.empty)
			}
			l.beat(x.beat, x.restart)
		}
	}
	lock := Lock{Prefix: prefix("192.0.2.0/24"), Budget: 10}
	open, closed := FailOpen, FailClosed
	return []verdict{
		{name: "alive", state: state(closed, sign{beat: 500 * ms, slot: true}), packet: v4, want: shot, reason: assigned},
		{name: "alive, slot empty for a moment", state: state(closed, sign{beat: 500 * ms}), packet: v4, want: shot, reason: "wait_drop"},
		{name: "alive, slot empty for a moment, open", state: state(open, sign{beat: 500 * ms}), packet: v4, want: shot, reason: "wait_drop"},
		{name: "alive, slot empty too long, open", state: state(open, sign{beat: 500 * ms, empty: 2 * s}), packet: v4, want: next, reason: "fail_open", mark: markJudged},
		{name: "alive, slot empty too long, closed", state: state(closed, sign{beat: 500 * ms, empty: 21 * s}), packet: v4, want: redirect, reason: "fail_closed"},
		{name: "slot filled again", state: state(open, sign{beat: 500 * ms, empty: 30 * s, slot: true}), packet: v4, want: shot, reason: assigned},
		{name: "restarting", state: state(open, sign{beat: 10 * s, restart: 10 * s, slot: true}), packet: v4, want: shot, reason: assigned},
		{name: "restarting, closed", state: state(closed, sign{beat: 40 * s, restart: 10 * s, slot: true}), packet: v4, want: shot, reason: assigned},
		{name: "restarting without a listener", state: state(open, sign{beat: 10 * s, restart: 10 * s}), packet: v4, want: shot, reason: "wait_drop"},
		{name: "restart too long", state: state(open, sign{beat: 30 * s, restart: 40 * s, slot: true}), packet: v4, want: next, reason: "fail_open", mark: markJudged},
		{name: "restart over", state: state(closed, sign{beat: 50 * s, restart: -1 * s, slot: true}), packet: v4, want: redirect, reason: "fail_closed"},
		{name: "stale, open", state: state(open, sign{beat: 1100 * ms, slot: true}), packet: v4, want: next, reason: "fail_open", mark: markJudged},
		{name: "stale, open, IPv6", state: state(open, sign{beat: 1100 * ms, slot: true}), packet: v6, want: next, reason: "fail_open", mark: markJudged},
		{name: "stale, open, no slot", state: state(open, sign{beat: 1100 * ms}), packet: v4, want: next, reason: "fail_open", mark: markJudged},
		{name: "stale, closed", taken: "wait", state: state(closed, sign{beat: 19 * s, slot: true}), packet: v4, want: shot, reason: assigned},
		{name: "stale, closed, IPv6", taken: "wait", state: state(closed, sign{beat: 19 * s, slot: true}), packet: v6, want: shot, reason: assigned},
		{name: "stale, closed, no slot", state: state(closed, sign{beat: 19 * s}), packet: v4, want: shot, reason: "wait_drop"},
		{name: "dead, closed", state: state(closed, sign{beat: 21 * s, slot: true}), packet: v4, want: redirect, reason: "fail_closed"},
		{name: "dead, closed, no slot, IPv6", state: state(closed, sign{beat: 21 * s}), packet: v6, want: redirect, reason: "fail_closed"},
		{name: "never beaten, just started", state: state(open, sign{started: 100 * ms}), packet: v4, want: shot, reason: "wait_drop"},
		{name: "never beaten, open", state: state(open, sign{started: 5 * s, slot: true}), packet: v4, want: next, reason: "fail_open", mark: markJudged},
		{name: "never beaten, closed", state: state(closed, sign{started: 25 * s}), packet: v4, want: redirect, reason: "fail_closed"},
		{name: "beat from the future", state: state(open, sign{beat: -60 * s, started: 5 * s, slot: true}), packet: v4, want: next, reason: "fail_open", mark: markJudged},
		{name: "beat of another CPU's now", state: state(open, sign{beat: -100 * ms, started: 5 * s, slot: true}), packet: v4, want: shot, reason: assigned},
		{name: "locked, stale, open", state: state(open, sign{beat: 30 * s}, lock), packet: v4, want: redirect, reason: "lock_reset"},
		{name: "locked, stale for a moment, no slot", state: state(open, sign{beat: 2 * s}, lock), packet: v4, want: redirect, reason: "lock_reset"},
	}
}

func TestFailOpenIsCapped(t *testing.T) {
	l := newLab(t, Options{})
	for _, f := range []struct{ one, sibling, stranger frame }{
		{v4, v4, with(v4, func(f *frame) { f.src = "192.0.2.11" })},
		{v6, with(v6, func(f *frame) { f.src = "2001:db8:1::99" }), with(v6, func(f *frame) { f.src = "2001:db8:1:1::10" })},
	} {
		l.reset()
		l.configure(Source{Mode: ModeIntercept})
		l.beat(5*time.Second, 0)
		for i := range 35 {
			packet := f.one
			if i%2 == 1 {
				packet = f.sibling
			}
			ret, _, _ := l.run(MailIngress, packet.build(), skb{})
			if want := i < 30; (ret == next) != want {
				t.Errorf("%s: SYN %d: answer is %d", f.one.src, i+1, int32(ret))
			}
		}
		if ret, _, _ := l.run(MailIngress, f.stranger.build(), skb{}); ret != next {
			t.Errorf("%s: answer is %d though it sent nothing before", f.stranger.src, int32(ret))
		}
		if c := l.counts(); c["fail_open"] != 31 || c["fail_open_cap"] != 5 {
			t.Errorf("counters are %v", c)
		}
	}
}
