// Package control is the small socket protocol between sluice-intercept, which holds the kernel's state, and sluiced.
//
// It runs over a unix socket of type SOCK_SEQPACKET: one packet is one JSON object, at most MaxPacket bytes, with up
// to MaxFiles descriptors beside it. A request has an id and its replies carry the same id, so many may be under way
// at once; what does not fit in one packet is sent in parts marked "more". The helper checks the peer's uid and cuts off
// whoever breaks the rules. Locks go over a second connection, the lane, whose packets are shorter.
package control

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
)

const (
	// Version is the protocol's; a peer with another one is refused. Within a version either program may be the newer: keys
	// that one of them does not know it ignores, operations it refuses (CodeUnknown). So an addition that must not be
	// ignored is a new operation, and only what changes the meaning of an old one needs a new version.
	Version = 1
	// MaxPacket bounds one packet in bytes, far below the default send buffer of a unix socket.
	MaxPacket = 64 << 10
	// MaxFiles bounds the descriptors beside one packet.
	MaxFiles = 16
	// MaxEntries bounds a list that is sent in parts: a million prefixes and a few (FEATURES ATT1).
	MaxEntries = 1<<20 + 1<<16
	// MaxLockExempt bounds the destinations that locks do not close: they are the mail exchanges of one mailbox.
	MaxLockExempt = 64
	// MaxLocal bounds the addresses in a welcome. The kernel knows all; the proxy's check is the second one.
	MaxLocal = 500
	// MaxPutUsers bounds the sources in one packet, and the prefixes in one that go; a source has at most 240 bytes.
	MaxPutUsers = 200
	// MaxExemptions bounds the exemptions that a proxy adds to those of the configuration.
	MaxExemptions = 4096
	// MaxBypasses bounds the bypasses in force at once, MaxReason a reason in bytes: all of them fit in a status.
	MaxBypasses = 64
	MaxReason   = 200
	// MaxNote bounds a note from one proxy to another in bytes.
	MaxNote = 32 << 10
	// MaxRestart is the longest planned restart that may be announced.
	MaxRestart = 60 * time.Second
	// MailPort is the only destination port of Connect.
	MailPort = 25
)

// Mode says what happens to new mail flows of a source. The values are in order of strictness.
type Mode uint8

// The modes, from the loosest to the strictest.
const (
	Pass      Mode = iota + 1 // forward, count only
	Observe                   // forward, but watched
	Shadow                    // through the proxy, judged, never refused by us
	Canary                    // through the proxy; it intercepts some users and shadows the others
	Intercept                 // through the proxy
	Reject                    // TCP reset
	Drop                      // nothing
)

var modeNames = [...]string{Pass: "pass", Observe: "observe", Shadow: "shadow", Canary: "canary", Intercept: "intercept", Reject: "reject", Drop: "drop"}

// String returns the mode's name as the configuration writes it.
func (m Mode) String() string {
	if m < Pass || m > Drop {
		return fmt.Sprintf("mode(%d)", uint8(m))
	}
	return modeNames[m]
}

// MarshalText writes the name; an unknown mode is an error.
func (m Mode) MarshalText() ([]byte, error) {
	if m < Pass || m > Drop {
		return nil, fmt.Errorf("could not write mode %d: not a mode", uint8(m))
	}
	return []byte(modeNames[m]), nil
}

// UnmarshalText reads a name; nothing else is a mode.
func (m *Mode) UnmarshalText(b []byte) error {
	for v := Pass; v <= Drop; v++ {
		if modeNames[v] == string(b) {
			*m = v
			return nil
		}
	}
	return fmt.Errorf("%.32q is not a mode; use pass, observe, shadow, canary, intercept, reject or drop", b)
}

// Fail says what happens to new mail flows of a source while the proxy is dead or stuck (FEATURES INT4).
type Fail uint8

// The two fail modes; Closed is the stricter.
const (
	Open   Fail = iota + 1 // forwarded untouched after a second, at a bounded rate
	Closed                 // waits, then reset
)

// String returns "open" or "closed".
func (f Fail) String() string {
	switch f {
	case Open:
		return "open"
	case Closed:
		return "closed"
	}
	return fmt.Sprintf("fail(%d)", uint8(f))
}

// MarshalText writes the name; an unknown fail mode is an error.
func (f Fail) MarshalText() ([]byte, error) {
	if f != Open && f != Closed {
		return nil, fmt.Errorf("could not write fail mode %d: not a fail mode", uint8(f))
	}
	return []byte(f.String()), nil
}

// UnmarshalText reads "open" or "closed".
func (f *Fail) UnmarshalText(b []byte) error {
	switch string(b) {
	case "open":
		*f = Open
	case "closed":
		*f = Closed
	default:
		return fmt.Errorf("%.32q is not a fail mode; use open or closed", b)
	}
	return nil
}

// Source is what the proxy says about a prefix: who answers for it, what happens to its mail flows, or both. What it
// leaves out is as the next wider prefix has it.
type Source struct {
	Prefix netip.Prefix `json:"prefix"`         // masked, never IPv4-mapped
	User   uint32       `json:"user,omitempty"` // the store's id; 0: not somebody's own prefix
	Fail   Fail         `json:"fail,omitempty"` // beside User; alone only for all sources of a family: those of nobody
	Mode   Mode         `json:"mode,omitempty"` // 0: none of its own
	Until  time.Time    `json:"until,omitzero"` // end of Mode; zero: for good
}

// Over tells whether the mode of s has ended by itself.
func (s *Source) Over(now time.Time) bool { return !s.Until.IsZero() && !s.Until.After(now) }

// Equal tells whether s and t say the same.
func (s Source) Equal(t Source) bool {
	same := s.Until.Equal(t.Until)
	s.Until, t.Until = time.Time{}, time.Time{}
	return same && s == t
}

// Exemption is a mode for connections to a destination, whatever their source's is.
type Exemption struct {
	Prefix netip.Prefix `json:"prefix"`         // masked, never IPv4-mapped
	Port   uint16       `json:"port,omitempty"` // 0: every mail port
	Mode   Mode         `json:"mode"`
	Until  time.Time    `json:"until,omitzero"` // zero: for good
}

// Over tells whether x has ended by itself.
func (x *Exemption) Over(now time.Time) bool { return !x.Until.IsZero() && !x.Until.After(now) }

// Lock stops new mail flows of a user's prefixes in the kernel until a moment: the first PerMinute new connections in
// each minute still reach the proxy, which explains; further ones are reset.
type Lock struct {
	User      uint32         `json:"user"`
	Prefixes  []netip.Prefix `json:"prefixes"` // at most MaxLockPrefixes
	Until     time.Time      `json:"until"`
	PerMinute int            `json:"per_minute"`          // 0 resets every one
	CutFlows  bool           `json:"cut_flows,omitempty"` // also reset open flows that are forwarded past the proxy
}

// MaxLockPrefixes bounds the prefixes of one lock, so that a lock fits in a packet.
const MaxLockPrefixes = 1000

// Bypass is the operator's way out: new mail flows are forwarded untouched, whatever the proxy does. Locks, reject and
// drop stay in force and open sessions finish.
type Bypass struct {
	Prefix netip.Prefix `json:"prefix,omitzero"` // of sources; zero is every source
	Until  time.Time    `json:"until,omitzero"`  // zero: until somebody ends it
	Reason string       `json:"reason"`
	By     string       `json:"by,omitempty"`   // who asked; the helper says
	Since  time.Time    `json:"since,omitzero"` // the helper says
}

// String tells what is bypassed, until when, why and by whom.
func (b Bypass) String() string {
	who, until := "every source", "until ended"
	if b.Prefix.IsValid() {
		who = b.Prefix.String()
	}
	if !b.Until.IsZero() {
		until = "until " + b.Until.Local().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s, %s: %s (by %s since %s)", who, until, b.Reason, b.By, b.Since.Local().Format(time.RFC3339))
}

// Over tells whether b has ended by itself.
func (b Bypass) Over(now time.Time) bool { return !b.Until.IsZero() && !b.Until.After(now) }

// Listener is a listening socket with the name by which both programs know it.
type Listener struct {
	Name string
	File *os.File
}

// Connect asks for a socket that is connecting from a customer's own address.
type Connect struct {
	Src netip.Addr     `json:"src"`
	Dst netip.AddrPort `json:"dst"`
}

// Welcome is what the helper tells a proxy that has just dialed.
type Welcome struct {
	Helper    string         `json:"helper"`   // the helper's version
	Path      string         `json:"path"`     // "tcx", "clsact" or "nftables"
	Local     []netip.Addr   `json:"local"`    // the gateway's own: never a destination of a flow; at most MaxLocal
	Ports     []uint16       `json:"ports"`    // mail ports that are intercepted
	Delivery  []netip.Prefix `json:"delivery"` // delivery prefixes routed to this host
	Listeners []Listener     `json:"-"`        // open files; the receiver closes them
	Heartbeat *Heartbeat     `json:"-"`        // nil when the helper has none
}

// Interface is one interface that the helper holds a program on, or wanted to.
type Interface struct {
	Name  string `json:"name"`
	Index int    `json:"index"`
	Role  string `json:"role"` // "customer" or "uplink"
	Path  string `json:"path"` // as in Status, or "" when not attached
	Kind  string `json:"kind"` // "ethernet" or "raw" (no link-layer header)
	Error string `json:"error,omitempty"`
}

// Elsewhere is a source that got the answer to a mail connection which did not come through the gateway (FEATURES INT8).
type Elsewhere struct {
	Addr  netip.Addr `json:"addr"`
	User  uint32     `json:"user,omitempty"`
	Count uint64     `json:"count"` // of answers
	Last  time.Time  `json:"last"`
}

// MaxElsewhere bounds those in a status.
const MaxElsewhere = 30

// Status is the helper's view of itself and of the kernel.
type Status struct {
	Helper         string      `json:"helper"`
	PID            int         `json:"pid"`
	Path           string      `json:"path"`
	PathReason     string      `json:"path_reason"`
	Interfaces     []Interface `json:"interfaces"`
	Heartbeat      string      `json:"heartbeat"` // "alive", "restarting", "stale" or "never"
	HeartbeatAgeMS int64       `json:"heartbeat_age_ms"`
	Listeners      []string    `json:"listeners"`
	Sources        int         `json:"sources"`
	Locks          int         `json:"locks"`
	Unguarded      bool        `json:"unguarded,omitempty"` // no guards stand at the uplinks: no source is closed
	Bypasses       []Bypass    `json:"bypasses,omitempty"`
	Elsewhere      []Elsewhere `json:"elsewhere,omitempty"` // the latest ones first, at most MaxElsewhere
	Problems       []string    `json:"problems,omitempty"`
}

// UserCount holds the kernel's counters of one user, by name.
type UserCount struct {
	User   uint32            `json:"user"`
	Counts map[string]uint64 `json:"counts"`
}

// The codes of Error.
const (
	CodeCeiling     = "ceiling"     // looser than the helper's own configuration allows
	CodeRefused     = "refused"     // Connect: not a customer's address, or not port 25
	CodeInvalid     = "invalid"     // the request makes no sense
	CodeImpossible  = "impossible"  // a mode that the data path cannot give now
	CodeUnknown     = "unknown"     // the helper is older and does not know the operation
	CodeVersion     = "version"     // the helper speaks another version of the protocol
	CodeNotReady    = "not-ready"   // the listener has not been handed back yet: dial again
	CodeUnreachable = "unreachable" // Connect: the kernel refused at once; Client.Connect makes it a *net.OpError
	CodeFailed      = "failed"      // the kernel said no
)

// Error is a refusal by the helper. A caller may act on Code; Text names the cause and the remedy.
type Error struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// Error returns the text.
func (e *Error) Error() string { return e.Text }

// Errorf makes a refusal with a code.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

// ErrLost is returned by every call on a client whose connection to the helper has ended.
var ErrLost = errors.New("connection to sluice-intercept lost; dial again and hand the listeners back")
