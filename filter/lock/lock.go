// Package lock stops users who send bad mail: it counts verdicts, locks, explains, unlocks after a time, and remembers.
package lock

import (
	"time"

	"sluice/filter/lock/ladder"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// Lock is one lock of one user, from its cause to its end.
type Lock struct {
	Ticket    string    `json:"ticket"` // short enough to be spoken; names the lock in replies, log and history
	User      flow.User `json:"user"`
	Identity  string    `json:"identity,omitempty"` // locked alone; "": the whole user
	Account   string    `json:"account,omitempty"`  // with all of whose users he was locked
	Check     string    `json:"check,omitempty"`    // that spoke last, of an automatic lock
	Rule      string    `json:"rule,omitempty"`     // that was met
	Code      string    `json:"code"`               // public code of what locked: that of the deciding hit, or "MANUAL"
	Reason    string    `json:"reason"`
	By        string    `json:"by"` // who locked; "" for an automatic lock
	Automatic bool      `json:"automatic"`
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until,omitzero"` // zero: until a person unlocks
	PerMinute int       `json:"per_minute"`     // new connections a minute that are explained while locked (INT6)
	// KeepPassed lets open flows that go past the proxy end by themselves; otherwise their next packet is reset.
	KeepPassed bool            `json:"keep_passed,omitempty"`
	Evidence   []Evidence      `json:"evidence,omitempty"`
	Score      int             `json:"score,omitempty"` // reputation at the lock, of an automatic one
	Factors    []ladder.Factor `json:"factors,omitempty"`
	Ended      time.Time       `json:"ended,omitzero"`
	EndedBy    string          `json:"ended_by,omitempty"` // "" when the time was over
	EndedWhy   string          `json:"ended_why,omitempty"`
}

// Scope is whom a lock stops: a user, or one identity of his.
type Scope struct {
	User     uint32
	Identity string // "": the user himself
}

// Scope returns whom the lock stops.
func (l *Lock) Scope() Scope { return Scope{l.User.ID, l.Identity} }

// Name names whom the lock stops, for people.
func (l *Lock) Name() string {
	if l.Identity == "" {
		return l.User.Name
	}
	return l.Identity + " of " + l.User.Name
}

// Evidence is one message that the lock rests on.
type Evidence struct {
	Message  string    `json:"message"` // its id in the log
	At       time.Time `json:"at"`
	From     string    `json:"from"`
	Identity string    `json:"identity,omitempty"` // who sent it inside of the user
	Check    string    `json:"check"`
	Code     string    `json:"code"`
	Class    string    `json:"class"`
	Detail   string    `json:"detail"`          // what the check saw
	Print    uint64    `json:"print,omitempty"` // of its text
}

// Kind is what an event tells.
type Kind uint8

// The kinds.
const (
	Locked   Kind = iota // a user was locked, or a lock was changed by hand
	Unlocked             // a lock ended
	Alarm                // a rule was met that locks nobody here: automatic locks are off, or the user is never locked
	Failed               // kernel or disk did not take a change; it is tried again
	Reset                // a user's automatic unlocks were set back by hand
	Brake                // a check locked too many within a short time and locks nobody for a while
)

// String returns the kind's name as it stands in the audit log.
func (k Kind) String() string {
	if k > Brake {
		return "?"
	}
	return [...]string{"locked", "unlocked", "alarm", "failed", "reset", "brake"}[k]
}

// Event is what audit, notices and alarms hear of.
type Event struct {
	Kind Kind
	At   time.Time
	Lock Lock   // for an Alarm what would have been locked, without a ticket
	Who  string // for Reset
	Err  error  // for Failed
}

// Blocker puts locks into the kernel. Its methods return once the kernel acts on them, and may be repeated.
type Blocker interface {
	Block(l *Lock) error
	Unblock(user uint32) error
}

// Store keeps locks and the numbers of automatic unlocks over a restart. Its methods return once the disk has them.
type Store interface {
	SaveLock(l *Lock) error // replaces what was saved under the ticket
	SaveUnlocks(s Scope, n int) error
	LoadLocks() (active []Lock, unlocks map[Scope]int, err error)
}

// Deps are what a lock keeper works with.
type Deps struct {
	Settings policy.Resolver
	Blocker  Blocker
	Store    Store
	Events   func(Event) // called outside all locks; must not block; may be nil
}

// Request is a lock by hand.
type Request struct {
	Who     string
	Reason  string
	Only    string        // this identity alone; "": the whole user
	Account string        // with all of whose users he is locked
	Time    time.Duration // 0: until a person unlocks
	Cut     bool          // open flows past the proxy are reset, whatever the user's settings say
}
