// Package proxy leads the SMTP dialogue with a client: it asks the filter at each phase, relays what may go on, and
// answers.
package proxy

import (
	"sluice/filter"
	"sluice/filter/message"
)

// Locks knows which users are locked, and learns from verdicts which must be. Judged returns only after a lock that the
// verdict brings is in force in the kernel and on disk, so that no answer can overtake it (LCK1, LCK9).
type Locks interface {
	// Locked returns the ticket of the lock on user, if there is one.
	Locked(user uint32) (ticket string, locked bool)
	// Judged tells the verdict of a whole message, before the client hears it.
	Judged(m *message.Message, v *filter.Verdict)
}
