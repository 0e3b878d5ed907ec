package pool

import (
	"strings"
	"sync"
	"time"
)

// Bounds of what Signers remember.
const (
	signersRoom = 1 << 14 // about 100 bytes each
	signersUser = 64      // domains of one user
	signedLife  = 7 * 24 * time.Hour
)

// Signers remember whose mail of which domains carries a signature of its author's domain that verifies: where SPF forbids
// each delivery address such mail may leave from one all the same (DIP9), and that must be known before its header is. They
// are safe for concurrent use; the zero value knows of nobody.
type Signers struct {
	mu    sync.Mutex
	m     map[signer]time.Time // when it was seen last
	users map[uint32]int
	swept time.Time
}

// signer is a user with the domain of his envelope sender, in lower case.
type signer struct {
	user   uint32
	domain string
}

// Has tells whether the last message of a user's mail from a domain that was looked at was signed, within seven days.
func (s *Signers) Has(user uint32, domain string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.m[signer{user, strings.ToLower(domain)}]
	return ok && now.Sub(at) < signedLife
}

// Learn notes whether a message was signed: one that was not ends what was learnt from others.
func (s *Signers) Learn(user uint32, domain string, signed bool, now time.Time) {
	k := signer{user, strings.ToLower(domain)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !signed {
		s.drop(k)
		return
	}
	if _, ok := s.m[k]; !ok {
		if s.m == nil {
			s.m, s.users = map[signer]time.Time{}, map[uint32]int{}
		}
		if len(s.m) >= signersRoom || s.users[user] >= signersUser && now.Sub(s.swept) > time.Hour {
			s.sweep(now)
		}
		if s.users[user] >= signersUser {
			return
		}
		s.users[user]++
	}
	s.m[k] = now
}

func (s *Signers) drop(k signer) {
	if _, ok := s.m[k]; !ok {
		return
	}
	delete(s.m, k)
	if s.users[k.user]--; s.users[k.user] == 0 {
		delete(s.users, k.user)
	}
}

// sweep makes room.
func (s *Signers) sweep(now time.Time) {
	s.swept = now
	makeRoom(s.m, signersRoom, func(at time.Time) bool { return now.Sub(at) >= signedLife })
	clear(s.users)
	for k := range s.m {
		s.users[k.user]++
	}
}
