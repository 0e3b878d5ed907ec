// Package distrust learns for which clients and destinations the gateway's certificate does not do, since the client refuses
// it or the destination wants the client's own, and bounds what may pass unread for them.
package distrust

import (
	"net/netip"
	"time"
)

// Way is how it showed that the gateway's certificate does not do.
type Way uint8

// The ways: an alert says so, as does a destination that takes nothing without a certificate of the client's; the others only
// look like it.
const (
	Alert  Way = iota // a TLS alert about the certificate
	Shake             // the connection ended within the handshake
	Left              // under TLS the client left without any mail
	Wanted            // the destination asks for a certificate, and refuses who has none (DIP9)
)

// Pair is who refuses, and for whom. A source is an IPv4 address or an IPv6 /64.
type Pair struct {
	Source netip.Prefix
	Target netip.AddrPort
}

// Entry is what is known of a pair.
type Entry struct {
	Pair
	User   string // name of whoever had the source at last
	Alerts int
	Shakes int
	Lefts  int
	Wanted int    `json:",omitempty"`
	Text   string // how the last refusal went
	First  time.Time
	Last   time.Time
	Learnt time.Time // zero: what was seen may have other causes
	Grant  Grant
}

// Grant lets a pair's STARTTLS pass unread, as far as its source has something left. The zero Grant is none.
type Grant struct {
	Since time.Time
	Until time.Time
	By    string // who gave it; "" where what the destination publishes did
	Why   string
}

// In tells whether the grant is in force.
func (g *Grant) In(now time.Time) bool { return now.Before(g.Until) }

// The bounds of what passes unread (DEL12).
const (
	GrantTime    = 7 * 24 * time.Hour
	Connections  = 30       // of a source in any hour
	Bytes        = 50 << 20 // of a source in any hour, both directions together
	window       = time.Hour
	enough       = 3              // signs other than an alert
	forgotten    = 24 * time.Hour // after which signs that were not enough count no more
	evidenceTime = 30 * 24 * time.Hour
)

// Bounds of what is remembered.
const (
	mostEntries = 10_000
	mostOfOne   = 100 // destinations of one source
	mostText    = 200 // bytes
	mostGrants  = 2000
)

// SourceOf is the source that an address belongs to.
func SourceOf(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // its only error is that of an invalid address, whose prefix is invalid, too
	return p
}

// Store keeps entries over restarts.
type Store interface {
	Refusals() ([]Entry, error)
	// PutRefusals replaces entries and removes others, all or nothing.
	PutRefusals(put []Entry, gone []Pair) error
}

// Published knows what the owner of a destination says about its certificate.
type Published interface {
	// Demands tells what binds clients to the destination's own certificate, such as "TLSA" or "MTA-STS"; "" where nothing
	// is known, or not yet. It does not wait.
	Demands(target netip.AddrPort) string
}

// Event is what an operator is to hear of.
type Event struct {
	Kind  Kind
	Entry Entry
}

// Kind is what happened.
type Kind uint8

// The kinds.
const (
	Learnt  Kind = iota // a client refuses the certificate
	Granted             // its mail passes unread from now on
	Spent               // a source has used up what may pass unread in an hour
	Ended               // a grant ended: by time, or because the client takes the certificate after all
)

// String names the kind.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return "?"
}

var kinds = [...]string{"learnt", "granted", "spent", "ended"}
