// Package policy holds the settings of users and resolves what a user inherits.
package policy

import (
	"net/netip"
	"time"
)

// Delivery says from which address a user's mail leaves.
type Delivery uint8

// The ways to deliver.
const (
	Managed Delivery = iota // from a delivery address of the gateway
	Own                     // from the customer's own address (source-preserving)
	Auto                    // managed where the DNS shows that it does no harm, else own (DIP9)
)

// String returns the setting's name in configuration and API.
func (d Delivery) String() string {
	return [...]string{"managed", "own", "auto"}[min(d, Auto)]
}

// Settings are the effective settings of one user, everything inherited already resolved.
type Settings struct {
	Delivery          Delivery
	Limits            *Limits  // LIM1 to LIM3; nil: none
	PerIdentity       *Limits  // of each identity of the user; nil: none
	Budgets           *Budgets // that the user shares; nil: none, the narrowest first (LIM7)
	RecipientsPerMail int      // LIM1; 0 is no limit
	MessageSize       int64
	SessionsPerSource int       // AUT8
	SessionsPerPair   int       // AUT8: per source and destination
	RefuseAuth        bool      // AUT4: AUTH at destinations is not passed on
	StartTLS          StartTLS  // DEL7: on the client's leg, where the destination has no rule of its own
	StartTLSWhy       string    // why it is not Terminate
	Onward            OnwardTLS // DEL6: of the leg to destinations that have no rule of their own
	KeepWithheld      bool      // DEL1: what the filter neither lets go nor refuses is kept on hold, and the client hears 250
	KeepDeferred      bool      // DEL2: what a destination puts off is kept and tried again, and the client hears 250
	PerSecond         int       // connections the kernel hands to the proxy, by root's configuration; 0 is no limit
	Lock              Lock
	Content           Content
	Sender            Sender
	Signing           Signing   // SIG1: by keys that the gateway has
	Accounts          *Accounts // to which the user belongs; nil: none
	Identify          *Identify // ATT4; nil: the user is one sender
	Language          string    // of notices to whoever answers for the user, such as "de"; "": the gateway's
}

// Content are the settings of the content filter (CON1).
type Content struct {
	BlockSpam bool    // refuse what is found to be spam or phishing; off: it is only said
	Unsure    float64 // probability from which a message is unsure
	Spam      float64 // probability from which it is spam
	Failure   Failure // VIR2: of mail that a plug-in could not be asked about
	OnSpam    ContentAction
	OnUnsure  ContentAction
	Wait      time.Duration // CON9: how long what is delayed waits until it is judged again
}

// Lock are the settings of automatic locks (LCK1, LCK2, LCK8). A number of 0 switches its rule off.
type Lock struct {
	Automatic  bool          // off: refuse and alarm only
	Never      bool          // no lock at all, not even by hand (LCK4)
	SpamCount  int           // bad messages within Window that lock
	SpamShare  float64       // and their least share of the messages in Window
	Window     time.Duration // sliding
	Time       time.Duration // how long a lock lasts
	MaxUnlocks int           // automatic unlocks before only a person may unlock
	Explained  int           // new connections per minute that are explained while locked (INT6)
	KeepPassed bool          // flows past the proxy that are open at the lock may end by themselves

	DayCount       int     // bad messages within a day that lock
	DayShare       float64 // and their least share
	AverageCount   int     // messages within Window that look bad, delivered or not; within an hour 2 times, within a day 4 times as many
	Average        float64 // and how bad all messages of that time have to look on average, 0 to 1
	Viruses        int     // messages with a virus, within a day
	Phish          int     // phishing messages within a day
	Traps          int     // messages to addresses that nobody has, within a day
	Complaints     int     // within a day
	RemoteSpam     int     // messages that destinations refused as spam, within an hour, at least SpamShare of all
	Unknown        int     // recipients that do not exist, within an hour
	UnknownShare   float64 // and their least share of the recipients
	Guesses        int     // logins that destinations refused, within an hour
	ForwardedShare float64 // of forwarded bad messages within Window that locks, four times SpamCount of them at least
	Origins        int     // identities with bad mail within an hour from which on it is their user's (ATT4)

	Throttled     int           // messages within Window of a sender who comes near a lock
	Probation     time.Duration // after a lock: half of what locks does so again
	ProbationRate int           // messages per hour meanwhile

	ScoreSlow  int // reputation from which on a sender is throttled (REP2); 0 here and below: never
	ScoreHeld  int // and held
	ScoreAlarm int // and somebody is told

	ByLink int // unlocks by the link of a notice before only a person may unlock (LCK5); 0: none
}

// Resolver answers the effective settings of a user by its id.
type Resolver interface {
	Settings(user uint32) *Settings
}

// Listed is a user as configuration or the store lists it.
type Listed struct {
	ID       uint32
	Name     string
	Prefixes []netip.Prefix
	Contact  string
}
