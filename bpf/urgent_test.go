//go:build bpftest

package bpf

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// TestUrgentLocks: a lock that is only on its way is in force, for whom it means and as long as it says, also for a flow
// that is known.
func TestUrgentLocks(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	l.reset()
	l.sources(Source{Prefix: prefix("192.0.2.0/24"), User: 7, Mode: ModePass, Owner: prefix("192.0.2.0/24")}, Source{Prefix: prefix("2001:db8:1::/48"), User: 7, Mode: ModePass},
		Source{Prefix: prefix("192.0.2.12/32"), User: 8, Mode: ModePass, Owner: prefix("192.0.2.12/32")})
	put := func(i uint32, p string, budget uint16, keep bool, left, until time.Duration) {
		t.Helper()
		now, err := monotonic()
		l.must(err)
		var u Urgent
		if p != "" {
			setUrgent(&u, netip.MustParsePrefix(p), 7, budget, keep)
		}
		if left != 0 {
			u.LimitNs = now + uint64(left)
		}
		if until != 0 {
			u.Lock.UntilNs = now + uint64(until)
		}
		l.must(l.objects.Urgent.Put(i, u))
	}
	clear := func() {
		for i := range uint32(1 + UrgentLocks) {
			put(i, "", 0, false, 0, 0)
		}
	}
	is := func(what string, f frame, want string) {
		t.Helper()
		before := l.counts()[want]
		l.run(MailIngress, f.build(), skb{})
		if l.counts()[want] != before+1 {
			t.Errorf("%s: %s did not move: %v", what, want, l.counts())
		}
	}
	for _, c := range []struct {
		f      frame
		prefix string
	}{{v4, "192.0.2.0/24"}, {v4, "192.0.2.10/32"}, {v6, "2001:db8:1::/64"}, {v6, "2001:db8::/32"}} {
		data := with(c.f, func(f *frame) { f.flags = ack })
		for _, slot := range []uint32{1, uint32(UrgentLocks)} {
			is("before", c.f, "pass")
			is("before", data, "old_flow")
			is("before", data, "old_flow") // known from now on
			put(0, "", 0, false, time.Second, 0)
			is("said, and none there", c.f, "pass")
			put(slot, c.prefix, 0, false, 5*time.Second, 0)
			is(c.prefix, c.f, "lock_reset")
			is(c.prefix, data, "lock_cut")
			put(slot, c.prefix, 0, true, 5*time.Second, 0)
			is(c.prefix+", flows may end", c.f, "lock_reset")
			is(c.prefix+", flows may end", data, "old_flow")
			put(slot, c.prefix, 0, false, 5*time.Second, time.Hour)
			is(c.prefix+" for an hour", c.f, "lock_reset")
			put(slot, c.prefix, 0, false, 11*time.Second, 0)
			is(c.prefix+", too long for one that is on its way", c.f, "pass")
			put(slot, c.prefix, 0, false, -time.Second, 0)
			is(c.prefix+", its author is gone", c.f, "pass")
			put(slot, c.prefix, 0, false, 5*time.Second, 0)
			if c.f.src == v4.src {
				is("another user inside", with(c.f, func(f *frame) { f.src = "192.0.2.12" }), "pass")
				is("another's family", v6, "pass")
			}
			clear()
			is("after", c.f, "pass")
			is("after", data, "old_flow")
		}
	}
}

// setUrgent says whom it means and how, all but the times.
func setUrgent(u *Urgent, p netip.Prefix, id uint32, budget uint16, keepFlows bool) {
	var addr, mask [16]byte
	family := mailFamilyFAMILY_6
	if p.Addr().Is4() {
		family = mailFamilyFAMILY_4
	}
	copy(addr[:], p.Addr().AsSlice())
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	for i := range u.Addr {
		u.Addr[i], u.Mask[i] = binary.NativeEndian.Uint32(addr[4*i:]), binary.NativeEndian.Uint32(mask[4*i:])
	}
	u.Family = uint16(family)
	u.Lock = mailLock{Id: id, Budget: budget, Bits: uint8(p.Bits())}
	if keepFlows {
		u.Lock.Flags = mailLockFlagLOCK_KEEP_FLOWS
	}
}
