// Package quarantine keeps messages that are withheld from their recipients, encrypted, until a person decides about them
// or their time is over.
//
// Each message is a file, sealed under a key of its own; that key, sealed under the newest key of a key file, stands in an
// index with what may be read: who sent it to whom, when, and why it is here. So a new key in the key file costs one change
// of the index however much is kept, and whoever has the disk without the key file reads no message. Nothing is answered
// that rests on a copy before file, folder and index are synced.
package quarantine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// State is what became of a message.
type State uint8

// The states.
const (
	Held      State = iota // it is kept
	Releasing              // it is being put into the queue; found after a crash, it may be there or not
	Released               // it is in the queue, or went out; what is left is its fingerprint
)

// String returns the state as it stands in API and log.
func (s State) String() string {
	return [...]string{"held", "releasing", "released", "?"}[min(s, Released+1)]
}

// Entry is what the index knows of one message.
type Entry struct {
	ID       string
	At       time.Time
	User     uint32
	UserName string
	Login    string
	Client   netip.Addr
	From     string
	To       []string
	Size     int64
	Message  string // its id in the log
	Ticket   string // of the lock, or number of the appeal, that it is a sample for; "" of what is held
	Cut      bool   // only its beginning is kept
	Check    string
	Code     string // public code of what decided
	Class    string
	Evidence string
	Group    uint64 // the same for copies of one message; 0: not known
	Print    string // fingerprint: the same for each try to send the very message
	Tries    int    // times that it came, the first one included
	Last     time.Time
	State    State
	By       string // who released it
	Why      string
	Done     time.Time
	KeyID    string // of the key in the key file
	Key      []byte // its own key, sealed under that one
}

// Query selects entries; what is left out selects all.
type Query struct {
	ID      string
	Print   string
	User    string
	Sender  string // address or domain
	Rcpt    string // address or domain of a recipient
	Code    string
	Ticket  string
	Message string
	Group   uint64
	State   *State
	Before  time.Time // kept before that
	Most    int       // newest first; 0: all
}

// Matches tells whether an entry is meant.
func (q *Query) Matches(e *Entry) bool {
	return (q.ID == "" || q.ID == e.ID) && (q.Print == "" || q.Print == e.Print) && (q.User == "" || q.User == e.UserName) && (q.Code == "" || q.Code == e.Code) && (q.Ticket == "" || q.Ticket == e.Ticket) && (q.Message == "" || q.Message == e.Message) &&
		(q.Group == 0 || q.Group == e.Group) && (q.State == nil || *q.State == e.State) && (q.Before.IsZero() || e.At.Before(q.Before)) &&
		(q.Sender == "" || within(q.Sender, e.From)) && (q.Rcpt == "" || slices.ContainsFunc(e.To, func(to string) bool { return within(q.Rcpt, to) }))
}

// within tells whether an address is the wanted one, or of the wanted domain.
func within(want, address string) bool {
	return strings.EqualFold(want, address) || strings.EqualFold(want, address[strings.LastIndexByte(address, '@')+1:])
}

// Index keeps entries. Its methods return once the disk has them.
type Index interface {
	// PutHeld adds entries, or replaces those of the same ids, all or none.
	PutHeld(es ...Entry) error
	// FindHeld returns those that match, newest first.
	FindHeld(q Query) ([]Entry, error)
	// RemoveHeld removes those of the ids.
	RemoveHeld(ids ...string) error
}

// Errors by which a caller decides what its client hears.
var (
	// ErrFull says that there is no room for a copy now.
	ErrFull = errors.New("there is no room for held messages")
	// ErrUnknown says that there is no such message.
	ErrUnknown = errors.New("no such message is held, or no more")
	// ErrDamaged says that a file is not what was written, or is gone.
	ErrDamaged = errors.New("the held message is damaged")
	// ErrNoKey says that the key under which a message was sealed is not in the key file.
	ErrNoKey = errors.New("the key of the held message is missing")
	// ErrState says that a message was released already.
	ErrState = errors.New("the message was released already")
)

func damaged(id string, cause error) error {
	return fmt.Errorf("%w: %s: %w; delete it, or put the file back from a copy", ErrDamaged, id, cause)
}
