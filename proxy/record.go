package proxy

import (
	"net/netip"
	"time"

	"sluice/filter"
	"sluice/intercept/flow"
	"sluice/proxy/tlspolicy"
)

// Status is how a message, or a session without one, ended.
type Status uint8

// The statuses. The message log keeps the numbers: new ones go to the end.
const (
	Delivered   Status = iota // the remote's 250 was given to the client
	Refused                   // 5xx to the client
	Deferred                  // 4xx to the client
	Ambiguous                 // the final dot went onward and no answer came back: the only source of duplicates
	Lost                      // the client left before an answer, nothing was delivered
	NoMessage                 // a session that never became a message (LOG1)
	Observed                  // forwarded untouched and read in passing (INT7): nothing of ours was said
	Withheld                  // 4xx to the client: the filter neither lets it go nor refuses it
	Queued                    // 250 to the client: kept, and delivered later
	Quarantined               // a copy is kept where people can look at it; 550 or 451 to the client, 250 at the smarthost
	Discarded                 // 250 to the client, and the mail goes nowhere: a setting says so
	Statuses                  // how many there are
)

// String returns the status as it stands in log and API.
func (s Status) String() string {
	if s >= Statuses {
		return "?"
	}
	return [...]string{"delivered", "refused", "deferred", "ambiguous", "lost", "no-message", "observed", "withheld", "queued", "quarantined", "discarded"}[s]
}

// Record is the log line of one message, or of one session that never became a message. It is complete when it is
// handed over and is not changed afterwards; its slices may be kept.
type Record struct {
	ID        string // <flow id>.<n>; the flow id alone where there was no message
	Flow      flow.Flow
	Start     time.Time     // MAIL, or accept where there was no message
	Duration  time.Duration // until the answer
	Helo      string
	Identity  string // the finer sender inside the user, "" where none is told
	From      string
	To        []Recipient
	Size      int64 // bytes of the message as received, 0 where it never came or was not wholly read
	Status    Status
	Verdict   filter.Verdict
	Reply     string           // what the client was told last, one line
	Remote    string           // what the destination said last, one line; "" where it was not asked
	Source    netip.Addr       // the address the mail left from; invalid where it did not
	Way       string           // why it left from there, where not because a setting says so
	Signed    string           // who signed it (DKIM), or "no: " and why not, where a setting wants that; else ""
	Out       TLS              // the onward leg
	In        TLS              // the client leg
	Terms     string           // what the onward leg had to be, and who says so: "required (setting)"; "" where anything did
	Asks      tlspolicy.Report // how it compares with what the first recipient's domain asks for; nothing depends on it
	Unread    Unread           // what passed encrypted between client and destination
	Group     uint64           // the same for all copies of a message; 0 where nothing is known of copies
	Forwarded bool             // the message came from elsewhere and was only passed on
	Likely    uint8            // how likely it is bad, in percent, where that may stop it; else 0
	Ticket    string           // the lock's ticket where one answered
	Shadow    bool             // the mail went its way untouched, whatever the verdict
	Would     string           // in shadow and observed: the reply of ours that would have stopped it, one line; "" where none would
	Waited    time.Duration    // for the greeting, because the source was at its caps; 0 where nobody would notice
	Obstacle  Obstacle         // what ended a session that never became a message; "" where nothing of this kind did
	Note      string           // why, where no reply tells: "client reset", "remote closed after the dot"
}

// Obstacle is what stands between a client and its mail that the gateway brought with it.
type Obstacle string

// The obstacles.
const (
	NoHandshake Obstacle = "tls" // the client saw our certificate, and the handshake failed, or nothing came after it
	AtCap       Obstacle = "cap" // 421 because of too many sessions at once
)

// Opaque stands for the protection of a leg that is not ours, whose contents nobody saw.
const Opaque = "opaque"

// Unread counts bytes that passed and that nobody here could read.
type Unread struct {
	Out int64 // from the client
	In  int64 // from the destination
}

// Recipient is one RCPT and what the client heard to it.
type Recipient struct {
	Address string
	Code    int
	Reply   string // first line, without the code
	Behind  bool   // the reply is to the message itself, not to RCPT
}

// TLS says how a leg was protected; Version "" means plain text.
type TLS struct {
	Version string // "TLS1.3"
	Cipher  string
}

// Log takes records. Put must not wait for a disk.
type Log interface {
	Put(*Record)
}
