// Package auth tells whose login it is on the smarthost ports, and slows down whoever guesses.
package auth

import "errors"

// Kind says what a login stands for.
type Kind string

// The kinds of logins (ATT3).
const (
	Domain  Kind = "domain"  // a domain's name: may send as everybody in that domain
	Mailbox Kind = "mailbox" // user@domain: may send as that mailbox, and what its user's rules allow
)

// Account is what a directory knows of a login.
type Account struct {
	Login string // in lower case
	Kind  Kind
	User  uint32 // the outgoing user who is responsible
	Hash  string // of the password, as Hash makes it; "" where the customer's own server is asked
	Own   *Own   // the customer's own server; nil: the password is ours
}

// Directory finds accounts. It answers from memory and is safe for concurrent use.
type Directory interface {
	Login(name string) (Account, bool)
}

// Errors of a check.
var (
	// ErrWrong: no such login, or not its password. Nobody learns which.
	ErrWrong = errors.New("wrong login or password")
	// ErrBusy: it could not be told now; the client may try again (454, RFC 4954 section 6).
	ErrBusy = errors.New("the login could not be checked now")
)
