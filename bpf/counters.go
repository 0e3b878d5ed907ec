package bpf

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// reasons names the counters in the order of enum reason.
var reasons = [mailReasonREASON_MAX]string{
	"established", "cookie", "old_flow", "local",
	"intercept", "pass", "observe", "port_pass", "bypass",
	"fail_open", "fail_open_cap", "wait", "wait_drop", "fail_closed",
	"reject", "drop", "port_reject",
	"lock_explain", "lock_reset", "lock_cut",
	"loop", "spoof_path", "spoof_bind",
	"frag_first", "frag_tiny", "options", "truncated", "bad_address", "nested_vlan", "unparsed_pass",
	"assign_failed", "icmp_local", "reply", "asymmetric",
	"guard_drop", "guard_unparsed", "user_full", "half_open", "guard_socket", "syn_limited", "challenge", "too_big",
}

// Counters gives the packets by the reason why they left the programs, since the maps were made. Packets that are not for
// a mail port are not counted.
func (d *Datapath) Counters() (map[string]uint64, error) {
	sums := make(map[string]uint64, len(reasons))
	for i, name := range reasons {
		var perCPU []uint64
		if err := d.objects.Counters.Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("could not read map counters: %w", err)
		}
		for _, n := range perCPU {
			sums[name] += n
		}
	}
	return sums, nil
}

// UserCounters are the fresh connections of a user by what happened to them. Reset and dropped ones are SYNs, so a client
// that tries again counts again.
type UserCounters struct {
	SYN, Intercepted, Passed, Rejected, Dropped    uint64
	Explained, LockReset, FailedOpen, FailedClosed uint64
	Spoofed, Unparsed, LockCut, SYNLimited         uint64
}

// UserCounters gives the counters of every user seen.
func (d *Datapath) UserCounters() (map[uint32]UserCounters, error) {
	have, err := d.userCounts()
	if err != nil {
		return nil, err
	}
	all := make(map[uint32]UserCounters, len(have))
	for user, v := range have {
		all[user] = UserCounters{
			SYN:          syns(v),
			Intercepted:  v.N[mailUserReasonUSER_INTERCEPTED],
			Passed:       v.N[mailUserReasonUSER_PASSED],
			Rejected:     v.N[mailUserReasonUSER_REJECTED],
			Dropped:      v.N[mailUserReasonUSER_DROPPED],
			Explained:    v.N[mailUserReasonUSER_EXPLAINED],
			LockReset:    v.N[mailUserReasonUSER_LOCK_RESET],
			FailedOpen:   v.N[mailUserReasonUSER_FAILED_OPEN],
			FailedClosed: v.N[mailUserReasonUSER_FAILED_CLOSED],
			Spoofed:      v.N[mailUserReasonUSER_SPOOFED],
			Unparsed:     v.N[mailUserReasonUSER_UNPARSED],
			LockCut:      v.N[mailUserReasonUSER_LOCK_CUT],
			SYNLimited:   v.N[mailUserReasonUSER_SYN_LIMITED],
		}
	}
	return all, nil
}

// userCounts adds up what slots, table and cells hold.
func (d *Datapath) userCounts() (map[uint32]mailUserCounts, error) {
	d.sourcing.Lock() // nothing goes from cells to slots meanwhile
	defer d.sourcing.Unlock()
	all, err := readTable[uint32, mailUserCounts](d.objects.UserCounters)
	if err != nil {
		return nil, err
	}
	for user := range d.slots.all {
		s := d.slots.read(user)
		if s == (mailUserSlot{}) {
			continue
		}
		c := all[uint32(user)]
		c.N[mailUserReasonUSER_PASSED] += uint64(s.Passed)
		c.N[mailUserReasonUSER_INTERCEPTED] += uint64(s.Intercepted)
		c.SynDue = max(c.SynDue, s.SynDue)
		all[uint32(user)] = c
	}
	if d.quick != nil {
		d.quick.each(func(user uint32, why mailUserReason, n uint32) {
			c := all[user]
			c.N[why] += uint64(n)
			all[user] = c
		})
	}
	return all, nil
}

// syns is the sum of what may become of a SYN, each of which ends in one counter.
func syns(c mailUserCounts) (sum uint64) {
	for i, n := range c.N {
		switch mailUserReason(i) {
		case mailUserReasonUSER_SYN, mailUserReasonUSER_UNPARSED, mailUserReasonUSER_LOCK_CUT:
		default:
			sum += n
		}
	}
	return sum
}

// ForgetUsers deletes the counters of users that are gone, to make room.
func (d *Datapath) ForgetUsers(users ...uint32) error {
	d.sourcing.Lock()
	defer d.sourcing.Unlock()
	if d.quick != nil {
		if err := d.quick.takeAll(); err != nil {
			return err
		}
	}
	for _, u := range users {
		d.slots.put(u, mailUserSlot{})
	}
	return deleteKeys(d.objects.UserCounters, users)
}

// userSlots is the map of that name in memory: reading a million by system calls would take as long as all else.
type userSlots struct {
	memory []byte
	all    []mailUserSlot
	large  *ebpf.Map // user_counters
}

func mapSlots(m, large *ebpf.Map) (*userSlots, error) {
	memory, err := mapArray(m, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return nil, err
	}
	return &userSlots{memory, unsafe.Slice((*mailUserSlot)(unsafe.Pointer(&memory[0])), m.MaxEntries()), large}, nil
}

// close may be called twice: memory that was given back may be another map's by then.
func (u *userSlots) close() error {
	if u.memory == nil {
		return nil
	}
	memory := u.memory
	u.memory, u.all = nil, nil
	return unix.Munmap(memory)
}

func (u *userSlots) read(user int) mailUserSlot {
	s := &u.all[user]
	return mailUserSlot{SynDue: atomic.LoadUint64(&s.SynDue), Passed: atomic.LoadUint32(&s.Passed), Intercepted: atomic.LoadUint32(&s.Intercepted)}
}

// put writes a user's slot, if there is one for its number.
func (u *userSlots) put(user uint32, is mailUserSlot) {
	if int(user) >= len(u.all) {
		return
	}
	s := &u.all[user]
	atomic.StoreUint64(&s.SynDue, is.SynDue)
	atomic.StoreUint32(&s.Passed, is.Passed)
	atomic.StoreUint32(&s.Intercepted, is.Intercepted)
}
