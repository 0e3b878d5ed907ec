package bpf

import (
	"encoding/binary"
	"net/netip"
)

// UrgentLocks is how many locks may be on their way at once. The map has one element more, before them: its LimitNs is not 0
// while there may be any.
const UrgentLocks = int(mailNumberURGENT_LOCKS)

// Urgent is an element of the map behind UrgentFile; LimitNs makes it valid.
type Urgent mailUrgent

// Set says whom it means and how, all but the times.
func (u *Urgent) Set(p netip.Prefix, id uint32, budget uint16, keepFlows bool) {
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
