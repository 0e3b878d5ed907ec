package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Mode says what happens to a fresh connection.
type Mode uint8

// The modes; the numbers are the kernel's and stay as they are.
const (
	ModeNone      = Mode(mailModeMODE_NONE)
	ModePass      = Mode(mailModeMODE_PASS)
	ModeObserve   = Mode(mailModeMODE_OBSERVE)
	ModeShadow    = Mode(mailModeMODE_SHADOW)
	ModeIntercept = Mode(mailModeMODE_INTERCEPT)
	ModeReject    = Mode(mailModeMODE_REJECT)
	ModeDrop      = Mode(mailModeMODE_DROP)
)

var modeNames = [...]string{"none", "pass", "observe", "shadow", "intercept", "reject", "drop"}

// String gives the mode's name as configuration files and the API write it.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// ParseMode is the reverse of String; "none" and unknown names are errors.
func ParseMode(name string) (Mode, error) {
	for i, n := range modeNames {
		if i > 0 && n == name {
			return Mode(i), nil
		}
	}
	return ModeNone, fmt.Errorf("could not read mode %q: use pass, observe, shadow, intercept, reject or drop", name)
}

// Fail says what happens to a source's fresh connections while the proxy is away.
type Fail uint8

// Open forwards after one second, with a cap; closed waits up to 20 seconds and then resets.
const (
	FailOpen   = Fail(mailFailFAIL_OPEN)
	FailClosed = Fail(mailFailFAIL_CLOSED)
)

// String gives "open" or "closed".
func (f Fail) String() string {
	if f == FailClosed {
		return "closed"
	}
	return "open"
}

// Source ties a prefix of customer addresses to a user. The longest prefix wins.
type Source struct {
	Prefix netip.Prefix
	User   uint32 // 0: nobody in particular
	Mode   Mode   // never ModeNone
	Fail   Fail
	// Owner is the user's own prefix where Prefix only lies in it and has a mode of its own; with length 0, nobody's. Zero
	// where Prefix is the user's. A lock wider than the user's own prefix is not meant for him.
	Owner netip.Prefix
	// ReversePath drops SYNs whose source is not routed back through the interface they came in by.
	ReversePath bool
	Ifindex     uint32           // 0: any; else SYNs through another interface are dropped
	MAC         net.HardwareAddr // nil: any; else 6 bytes, and SYNs from another one are dropped
	// PerSecond is how many connections per second the proxy gets from the user, or, where nobody in particular is meant,
	// from one host (of IPv6 one /64); twice as many may come at once, and the SYNs beyond are dropped. 0: all.
	PerSecond uint16
}

// PortRule opens a mail port beside 25 on one interface, or says that it is only counted or refused.
type PortRule struct {
	Ifindex uint32 // 0: every interface
	Port    uint16
	Mode    Mode // ModeNone: treated like 25; ModePass: counted and forwarded; ModeReject: reset
}

// Config is what holds for all packets. Bypass and what the loader keeps itself are not in it.
type Config struct {
	InterceptMark uint32 // bit of skb->mark that the policy route sends to local delivery
	JudgedMark    uint32 // bit of skb->mark that the guard looks for; must differ from InterceptMark
	ReversePath   bool   // reverse-path check for every source
	Default       Source // unknown sources; Prefix is not used
	Ports         []PortRule
}

// Exemption overrides the source's mode for a destination. The longest prefix wins; with equal ones the one with a port.
type Exemption struct {
	Prefix netip.Prefix
	Port   uint16 // 0: every mail port
	Mode   Mode
	Until  time.Time // zero: for good
}

// Lock stops the fresh connections of a prefix, except of those inside it that a longer source prefix gives to another user.
type Lock struct {
	Prefix netip.Prefix
	ID     uint32    // whose budget counts: the user
	Until  time.Time // zero: for good
	// Budget is the number of connections per minute that still reach the proxy, which explains the lock.
	Budget uint16
	// KeepFlows leaves forwarded flows that are open alone; otherwise their next packet is reset.
	KeepFlows bool
}

// DefaultLockBudget is the number of connections per minute in which a lock is explained.
const DefaultLockBudget = uint16(mailNumberLOCK_BUDGET)

// Change counts what a Replace did to the kernel's table.
type Change struct {
	Put, Deleted, Kept int
}

func (c Change) plus(o Change) Change {
	return Change{c.Put + o.Put, c.Deleted + o.Deleted, c.Kept + o.Kept}
}
