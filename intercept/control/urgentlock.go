package control

import (
	"encoding/binary"
	"net/netip"
)

// UrgentLocks is how many locks may be on their way at once. Before them stands one element that is no lock: its LimitNs is not
// 0 while there may be any.
const UrgentLocks = 8

// Urgent is a lock on its way, as the kernel's programs read it: struct urgent of bpf/sluice.h. LimitNs makes it valid.
type Urgent struct {
	Lock struct {
		UntilNs uint64 // CLOCK_MONOTONIC; 0: for good
		Id      uint32
		Budget  uint16
		Bits    uint8
		Flags   uint8
	}
	LimitNs uint64 // CLOCK_MONOTONIC; 0: none
	SinceNs uint64 // when it came into force, for who measures
	Addr    [4]uint32
	Mask    [4]uint32
	Family  uint16
	Pad     [3]uint16
}

// Set says whom it means and how, all but the times.
func (u *Urgent) Set(p netip.Prefix, id uint32, budget uint16, keepFlows bool) {
	var addr, mask [16]byte
	family := uint16(6)
	if p.Addr().Is4() {
		family = 4
	}
	copy(addr[:], p.Addr().AsSlice())
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	for i := range u.Addr {
		u.Addr[i], u.Mask[i] = binary.NativeEndian.Uint32(addr[4*i:]), binary.NativeEndian.Uint32(mask[4*i:])
	}
	u.Family = family
	u.Lock.UntilNs, u.Lock.Id, u.Lock.Budget, u.Lock.Bits, u.Lock.Flags = 0, id, budget, uint8(p.Bits()), 0
	if keepFlows {
		u.Lock.Flags = 1 // LOCK_KEEP_FLOWS
	}
}
