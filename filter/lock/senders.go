package lock

import (
	"strings"
	"sync/atomic"
)

// senders are the tallies of users, and of the identities inside of them. Users stand apart: every message asks for its own.
type senders struct {
	users  map[uint32]*tally
	within map[Scope]*tally
}

func newSenders() senders { return senders{map[uint32]*tally{}, map[Scope]*tally{}} }

// find returns the tally of a sender, nil where there is none.
func (s *senders) find(whom Scope) *tally {
	if whom.Identity == "" {
		return s.users[whom.User]
	}
	return s.within[whom]
}

// add makes the tally of a sender.
func (s *senders) add(whom Scope) *tally {
	u := &tally{}
	if whom.Identity == "" {
		s.users[whom.User] = u
		return u
	}
	whom.Identity = strings.Clone(whom.Identity)
	s.within[whom] = u
	return u
}

// drop forgets a sender, and tells whether he was known.
func (s *senders) drop(whom Scope) bool {
	known := s.find(whom) != nil
	if whom.Identity == "" {
		delete(s.users, whom.User)
	} else {
		delete(s.within, whom)
	}
	return known
}

// all goes over the tallies; what is met may be dropped.
func (s *senders) all(yield func(Scope, *tally) bool) {
	for user, u := range s.users {
		if !yield(Scope{User: user}, u) {
			return
		}
	}
	for whom, u := range s.within {
		if !yield(whom, u) {
			return
		}
	}
}

// suspectWords is room for a bit of each of 1,024 users; where there are more of a shard some share one.
const suspectWords = 16

// suspects have a bit of each user of a shard against whom something may speak, and of few others: so it costs nothing to see
// that nothing speaks against one, as of nearly all.
type suspects [suspectWords]atomic.Uint64

func suspectAt(user uint32) (word int, bit uint64) {
	n := user / shards
	return int(n / 64 % suspectWords), 1 << (n % 64)
}

func (s *suspects) has(user uint32) bool {
	i, bit := suspectAt(user)
	return s[i].Load()&bit != 0
}

func (s *suspects) put(user uint32) {
	if i, bit := suspectAt(user); s[i].Load()&bit == 0 {
		s[i].Or(bit)
	}
}

// replace has the bits of these alone. Who is among both the old and the new is so all the time.
func (s *suspects) replace(bits *[suspectWords]uint64) {
	for i := range s {
		s[i].Store(bits[i])
	}
}
