// Package delivery brings what the spool holds to its destinations, and tells the senders what became of it.
//
// Deliveries wait in lanes, one for each recipient domain, and go out through sites, one for each set of mail exchangers,
// which bound how much goes there at once and for how long nothing does. A lane whose destination is dead costs one try
// now and then, whatever waits in it.
package delivery

import (
	"context"
	"net/netip"
	"time"

	"sluice/filter/sign"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
	"sluice/proxy/tlspolicy"
)

// Domains finds the mail exchangers of a domain with what they ask of a connection; *tlspolicy.Finder is one.
type Domains interface {
	Domain(ctx context.Context, name string) (*tlspolicy.Domain, error)
	// Addresses are those of a host, both families.
	Addresses(ctx context.Context, host string) ([]netip.Addr, error)
}

// Log hears what became of each try.
type Log interface {
	Tried(r *Result)
}

// Senders tells where a notice about a user's message may go: to the sender where it is certain that it is he, else to the
// user's contact. False: nowhere.
type Senders interface {
	NoticeTo(env *spool.Envelope) (address string, ok bool)
}

// Upstream is a relay that takes mail instead of its destinations.
type Upstream struct {
	Host     string // name or address
	Port     uint16
	User     string // of AUTH; "" is none
	Password string
	Policy   *tlspolicy.Policy // of the connection; nil takes what it can get, but AUTH goes within TLS alone
}

// Options of a Queue. Zero fields mean the defaults; those without one are needed, but where they may be nil.
type Options struct {
	Name    string // of the gateway
	Domains Domains
	Dialer  *relay.Dialer
	// Choose says from where mail leaves to an address; false: there is no way in its family. An address that is not valid
	// is the host's to choose. May be nil: it always is.
	Choose  func(m *Mail, to netip.Addr) (pool.Decision, bool)
	Log     Log     // may be nil
	Senders Senders // may be nil: notices go to senders that the envelope says are verified
	// Upstream chooses a relay for a user's mail to a domain; may be nil, and give nil: the destination itself.
	Upstream func(user uint32, sender, domain string) *Upstream
	// Terms are those of the operator for a connection; may be nil, and give nil: those of the destination hold.
	Terms func(ctx context.Context, user uint32, target netip.AddrPort, domain string) (*tlspolicy.Policy, error)
	// Self tells the gateway's own addresses: mail that would go there goes round in a loop. May be nil.
	Self func(netip.Addr) bool
	// Spill opens the file for what of a converted message is beyond memory; nil: large ones wait.
	Spill func() (smtp.Spill, error)
	// Sign makes the DKIM-Signature fields of a message, and says what the log says of them; may be nil: nothing is signed.
	Sign func(as sign.As, body *smtp.Body) (fields []byte, log string)
	// Panicked hears of a mistake of ours that ended one try; may be nil.
	Panicked func(id spool.ID, cause any, stack []byte)
	// Alarm hears what an operator must know; may be nil.
	Alarm func(error)

	Settings        // the first; Configure replaces them
	Port     uint16 // of destinations; 25
	Now      func() time.Time
}

// Mail is what the choice of an address depends on.
type Mail struct {
	User   uint32
	Client netip.Addr // where it came from; may be invalid
	From   string
	Class  string // of the envelope
	Domain string // of the recipients
}

func (o *Options) fill() {
	o.Settings.fill()
	or(&o.Port, 25)
	if o.Now == nil {
		o.Now = time.Now
	}
}

func or[N int | uint16 | float64 | time.Duration](n *N, def N) {
	if *n <= 0 {
		*n = def
	}
}

// Result is what became of one try of one delivery.
type Result struct {
	Delivery spool.ID
	Envelope *spool.Envelope
	Size     int64
	At       time.Time
	Took     time.Duration
	Host     string         // the exchanger; "" where none was reached
	Target   netip.AddrPort // the same
	Source   netip.Addr     // the delivery address; may be invalid
	Leg      *tlspolicy.Leg // may be nil
	Rcpts    []Outcome
	Tries    int
	Next     time.Time // when it is tried again; zero: never
	Note     string    // what hindered the try as a whole
	Signed   string    // who signed it, or why not, where somebody is to; "" where it did not leave
	// Ambiguous: the message had left and no answer came. The destination may have it; it is tried again all the same.
	Ambiguous bool
	Notice    spool.ID // of the notice that came of it; 0: none
}

// Fate is what became of a recipient.
type Fate uint8

// The fates.
const (
	Deferred  Fate = iota // tried again
	Delivered             // the destination has it
	Relayed               // the same, but it will not tell the sender, who asked for that
	Failed                // for good
	Expired               // deferred too often
)

// String returns the fate as it stands in log and API.
func (f Fate) String() string {
	return [...]string{"deferred", "delivered", "relayed", "failed", "expired"}[min(f, Expired)]
}

// Outcome is the fate of one recipient.
type Outcome struct {
	Rcpt  spool.Rcpt
	Fate  Fate
	Reply spool.Reply // the destination's answer, or ours where Host is ""
	// Behind: the answer is to the message itself, not to RCPT.
	Behind bool
}

// ours makes an answer of our own.
func ours(code int, enh smtp.Enhanced, text string) spool.Reply {
	return spool.Reply{Code: code, Enh: enh, Text: text}
}
