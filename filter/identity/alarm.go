package identity

import "time"

// AlarmKind says what is odd about the identities of a user (ATT8).
type AlarmKind uint8

// The kinds.
const (
	Exploding AlarmKind = iota // more new identities within an hour than are told apart
	Untold                     // a rule stands, and messages come that tell nobody
	alarms
)

// LeastUntold is how many messages within an hour have to tell nobody before that is alarmed; and a tenth of all.
const LeastUntold = 20

// Alarm is what is odd about the identities of a user, at most once an hour of each kind.
type Alarm struct {
	User uint32
	Kind AlarmKind
	N    int // new identities, or messages without one, within the hour
	Of   int // messages within the hour, of kind Untold
	At   time.Time
}

// alarm returns a, or nothing where the same was told within the hour. The shelf is locked.
func (h *holder) alarm(a Alarm, now time.Duration) Alarm {
	if now < h.quiet[a.Kind] {
		return Alarm{}
	}
	h.quiet[a.Kind] = now + time.Hour
	return a
}

// toldOrNot counts a message of a user who has a rule, and tells when too many tell nobody.
func (b *Book) toldOrNot(user uint32, told bool, at time.Time) Alarm {
	s := b.shelf(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	h, now := s.holder(user), max(0, at.Sub(s.start))
	if told {
		h.told.Add(now, time.Hour, 1)
		return Alarm{}
	}
	h.untold.Add(now, time.Hour, 1)
	n := h.untold.Sum(now, time.Hour)
	all := n + h.told.Sum(now, time.Hour)
	if n < LeastUntold || 10*n < all {
		return Alarm{}
	}
	return h.alarm(Alarm{User: user, Kind: Untold, N: n, Of: all, At: at}, now)
}
