// Package flow names one intercepted connection: who sends it, where it was going, and which user answers for it.
package flow

import (
	"net/netip"
	"strconv"
	"time"
)

// ID identifies a flow in every log line, reply and record, from accept to delivery. It is unique on one gateway: the
// high bits are the start of the process in seconds, the low bits count flows.
type ID uint64

// Base is of the digits of an ID, which is short enough then to be read out over the telephone.
const Base = 36

// String returns the ID in its digits.
func (id ID) String() string { return strconv.FormatUint(uint64(id), Base) }

// User is the outgoing user who answers for a flow.
type User struct {
	ID     uint32       // the store's id, and the key of the kernel's counters; 0 is nobody
	Name   string       // as the operator knows it: "alice", or the prefix for users made from the template
	Prefix netip.Prefix // the prefix by which this flow's source was attributed
	Made   bool         // true when made from the template for an unknown source (ATT2)
}

// Flow is one TCP connection that the kernel handed to the proxy. It does not change once accepted.
type Flow struct {
	ID     ID
	Client netip.AddrPort // the customer; never an IPv4-mapped address
	Target netip.AddrPort // the original destination; never an IPv4-mapped address
	User   User
	Start  time.Time
}

// Attributor ties a source address to the user who answers for it. The second result is false when the source is
// unknown and policy refuses to make a user for it.
type Attributor interface {
	Attribute(src netip.Addr) (User, bool)
}
