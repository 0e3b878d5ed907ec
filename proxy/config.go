package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sluice/filter"
	"sluice/filter/policy"
	"sluice/filter/sign"
	"sluice/intercept/flow"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// Config is what a Server is made of for its whole life. Fields without "may be nil" are needed.
type Config struct {
	Settings Settings // the first; Configure replaces them
	Policy   policy.Resolver
	Locks    Locks
	Log      Log
	// Unenforced learns from the verdicts on mail that is not ours to stop, and locks nobody; may be nil.
	Unenforced Locks
	Dialer     *relay.Dialer
	Tracer     *sign.Tracer
	// Busy are the turns of what keeps a processor busy; may be nil: nothing but sessions does.
	Busy *filter.Turns
	// Choices are the delivery addresses of mails that left from another than the pool would choose; may be nil: those of
	// an earlier process are not known.
	Choices *pool.Choices
	// Authority asks the DNS where delivery depends on it; may be nil: "auto" is then as "own".
	Authority *pool.Authority
	Gate      Gate        // may be nil: sessions are not bounded
	Inflight  Inflight    // may be nil
	Keeper    LateKeeper  // may be nil: of intercepted mail nothing is kept, whatever a user's settings say
	TLS       *tls.Config // of the client leg; may be nil: STARTTLS is never offered
	Guard     Guard       // may be nil
	// Quarantine keeps what the filter wants kept away; may be nil: that is put off.
	Quarantine Quarantine
	Standing   Standing   // may be nil: only what happened since the start speaks against a user
	StartTLS   TLSRules   // may be nil: users' settings alone decide about STARTTLS
	Onward     Onward     // may be nil: the onward leg takes what it can get
	Refusals   Refusals   // may be nil: nothing is learnt of clients that refuse the certificate
	Signatures Signatures // may be nil: no signature has a say in where mail leaves from
	Signer     Signer     // may be nil: nothing is signed
	// Panicked hears of a mistake of ours that ended one session; may be nil.
	Panicked func(f flow.Flow, cause any, stack []byte)
}

// Settings may be replaced while the Server runs. A session takes the new ones with its next transaction.
type Settings struct {
	Name     string     // gateway name, in every reply of ours
	HelpURL  string     // a refusal's link is this and the code; "" leaves it to Page
	Contact  string     // whom a locked user may ask
	Admin    string     // administrator address, to which locked users may write; "" is none
	Pool     *pool.Pool // the delivery addresses of all who have no other
	Pools    *pool.Set  // may be nil: there is no other pool
	Pipeline *filter.Pipeline
	// Page is the link of a code, and of a message where its id is not ""; nil leaves the link out.
	Page  func(code, message string) string
	Local func(netip.Addr) bool // tells the gateway's own addresses, which are no destination; may be nil

	HeldLater    bool  // what a copy was kept of is answered 451, not 550
	MaxHops      int   // Received fields above which a mail is going round; 100
	MaxSize      int64 // bytes of a message where the user's setting has none or more; 50 MiB
	BodyMemory   int   // bytes of one body kept in memory, the rest goes to SpillDir; 1 MiB
	BodiesMemory int64 // bytes of all bodies in memory; 256 MiB
	SpillDir     string
	RefuseBareLF bool // 550 instead of a normalised line end
	EarlyData    EarlyData
	Stream       int64 // bytes from which on a message may go onward while it comes; 0: none does
	Mirror       bool  // the greeting and the name in EHLO's reply are the destination's
	UserSessions int   // sessions of one user at once, from all his addresses; 0 is no bound

	Timeouts Timeouts
}

// Timeouts bound the waits for a client; zero fields mean the defaults. Those for a destination stand in relay.Timeouts.
type Timeouts struct {
	Gate      time.Duration // for the greeting of a session above the bounds (AUT8); 60 s
	Command   time.Duration // for the next command (RFC 5321 4.5.3.2.7: at least 5 min); 5 min
	Block     time.Duration // for the next bytes of a body (RFC 5321 4.5.3.2.5: at least 3 min); 3 min
	Message   time.Duration // from MAIL to the end of its data, whatever progress the client makes; 4 h
	Verdict   time.Duration // for all checks at the end of data; 30 s
	Fruitless time.Duration // from the last message, or the connection, to the last command that brings no mail; 1 h
	Answer    time.Duration // for everything after the client's final dot (RFC 5321 4.5.3.2.6: 10 min); 9 min
	Noop      time.Duration // between two NOOP to a destination while a client uploads; 75 s
	Bye       time.Duration // for the client's FIN after our last reply; 2 s
}

// adminPerHour is how many mails a locked user may send to the administrator in an hour (LCK3).
const adminPerHour = 20

// resolved are Settings with their defaults, and the replies that can be made beforehand.
type resolved struct {
	Settings
	fixed replies
	spill func() (smtp.Spill, error)
}

func (s Settings) resolve() (*resolved, error) {
	switch {
	case s.Name == "" || strings.ContainsAny(s.Name, " \t\r\n\x00"):
		return nil, fmt.Errorf("could not use %q as the gateway's name: it is empty or has a space; give a host name", s.Name)
	case s.Pipeline == nil:
		return nil, errors.New("could not use the settings: there is no filter pipeline; give one, if need be without steps")
	}
	positive(&s.MaxHops, 100)
	positive(&s.MaxSize, 50<<20)
	positive(&s.BodyMemory, 1<<20)
	positive(&s.BodiesMemory, 256<<20)
	t := &s.Timeouts
	positive(&t.Gate, 60*time.Second)
	positive(&t.Command, 5*time.Minute)
	positive(&t.Block, 3*time.Minute)
	positive(&t.Message, 4*time.Hour)
	positive(&t.Fruitless, time.Hour)
	positive(&t.Verdict, 30*time.Second)
	positive(&t.Answer, 9*time.Minute)
	positive(&t.Noop, 75*time.Second)
	positive(&t.Bye, 2*time.Second)
	room := func() bool { return hasRoom(s.SpillDir) }
	spill := func() (smtp.Spill, error) { return spillTo(s.SpillDir, room) }
	return &resolved{Settings: s, fixed: makeReplies(s.Name), spill: spill}, nil
}

func positive[N int | int64 | time.Duration](n *N, def N) {
	if *n <= 0 {
		*n = def
	}
}
