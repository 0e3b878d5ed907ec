package cert

import (
	"crypto/rand"
	"crypto/tls"
	"sync"
	"sync/atomic"
	"time"
)

// A client that comes again resumes its session with a ticket, which saves the signature and half of the bytes. Whoever
// has a ticket's key can read what was said in that session under TLS 1.2: so keys are short-lived, and in memory only.
const (
	ticketTurn = 8 * time.Hour // how long a key makes tickets
	ticketKeys = 3             // keys that are taken, the one that makes tickets among them: 16 to 24 hours
)

// tickets turns the keys of a configuration.
type tickets struct {
	next atomic.Int64 // unix nanoseconds
	mu   sync.Mutex
	keys [][32]byte // the newest first
}

// turn makes a new key when it is time.
func (t *tickets) turn(cfg *tls.Config, now time.Time) {
	if now.UnixNano() < t.next.Load() || !t.mu.TryLock() {
		return
	}
	defer t.mu.Unlock()
	missed := 1
	if last := t.next.Load(); last != 0 {
		missed += int(now.Sub(time.Unix(0, last)) / ticketTurn)
	}
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	t.keys = append([][32]byte{key}, t.keys[:max(0, min(len(t.keys), ticketKeys-missed))]...)
	cfg.SetSessionTicketKeys(t.keys)
	t.next.Store(now.Add(ticketTurn).UnixNano())
}
