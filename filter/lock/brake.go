package lock

import (
	"slices"
	"sync"
	"time"
)

// The mass-lock brake (LCK12): a check that locks more than this many within the window is more likely wrong than right.
// Whom it would lock besides is held: his mail waits, and goes out as soon as less speaks against him.
const (
	brakeWindow = 10 * time.Minute
	brakeLeast  = 5    // locks that are never too many
	brakeShare  = 0.01 // of the users who sent something within a day
)

// brake counts whom the automatic locks of each check hit.
type brake struct {
	mu    sync.Mutex
	locks map[string][]braked // by check, oldest first
	told  map[string]time.Duration
}

type braked struct {
	at   time.Duration
	user uint32
}

// holds tells whether a check may not lock a user now, and whether nobody was told of that lately. A lock that is let
// through counts, several of one user once.
func (b *brake) holds(now time.Duration, check string, user uint32, active int) (holds, tell bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.locks == nil {
		b.locks, b.told = map[string][]braked{}, map[string]time.Duration{}
	}
	all := slices.DeleteFunc(b.locks[check], func(x braked) bool { return x.at <= now-brakeWindow })
	b.locks[check] = all
	if slices.ContainsFunc(all, func(x braked) bool { return x.user == user }) {
		return false, false
	}
	if len(all) < max(brakeLeast, int(brakeShare*float64(active))) {
		b.locks[check] = append(all, braked{now, user})
		return false, false
	}
	if last, ok := b.told[check]; ok && now-last < brakeWindow {
		return true, false
	}
	b.told[check] = now
	return true, true
}

// Undo ends all automatic locks that a check brought since a moment.
func (l *Locks) Undo(check string, since time.Time, who string) (undone []Lock) {
	for _, lk := range l.List() {
		if !lk.Automatic || lk.Check != check || lk.Since.Before(since) {
			continue
		}
		if ended, err := l.UnlockIn(lk.Scope(), who, "all that "+check+" locked since "+since.UTC().Format(time.RFC3339)+" was undone"); err == nil {
			undone = append(undone, ended)
		}
	}
	return undone
}
