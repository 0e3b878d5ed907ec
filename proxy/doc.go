// Package proxy leads the SMTP dialogue with a client: it asks the filter at each phase, relays what may go on, and
// answers.
package proxy

import (
	"context"
	"net/netip"

	"sluice/filter"
	"sluice/filter/message"
)

// Locks knows which users are locked, and learns from verdicts which must be. Judged returns only after a lock that the
// verdict brings is in force in the kernel and on disk, so that no answer can overtake it (LCK1, LCK9).
type Locks interface {
	// Locked returns the ticket of the lock on user, if there is one.
	Locked(user uint32) (ticket string, locked bool)
	// Reason returns why user is locked, "" where that is not known or there is no lock.
	Reason(user uint32) string
	// Stopped tells whether mail of m's sender, the user or the identity, is stopped by now, and by which lock.
	Stopped(m *message.Message) (ticket string, stopped bool)
	// Judged tells the verdict of a whole message, before the client hears it. It may turn one that lets the message go
	// into a refusal, with a hit that says why.
	Judged(m *message.Message, v *filter.Verdict)
}

// Gate bounds concurrent sessions (AUT8). Enter waits until the session may begin or ctx ends, and then gives ctx's
// error; release must be called exactly once after a nil error.
type Gate interface {
	Enter(ctx context.Context, src, dst netip.Addr, perSource, perPair int) (release func(), err error)
}

// Inflight remembers the messages between their final dot and the answer, so that what a killed process leaves
// undecided can be listed. Sent is called right before the last bytes of r's message leave; Answered, with what Sent
// gave, once the client was told. r is not finished: ID, Flow, From, To, Size and Source are set.
type Inflight interface {
	Sent(r *Record) (slot int)
	Answered(slot int)
}
