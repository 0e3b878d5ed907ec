package pool

import (
	"context"
	"sync"
	"time"
)

// Bounds of what Lookups ask and remember.
const (
	lookupsAtOnce  = 16               // questions under way
	lookupPatience = 20 * time.Second // for one question, with all that follows from it
	lookupsKept    = 50_000           // answers remembered
	lookupKeep     = time.Hour        // before a question is asked again
	lookupStale    = 6 * time.Hour    // an old answer holds while there is no other
	unknownKeep    = time.Minute      // before a question without an answer is asked again
)

// Lookups answers questions in the background and remembers the answers; nobody waits longer than he wants to. It is safe
// for concurrent use.
type Lookups[K comparable, V any] struct {
	find  func(context.Context, K) (v V, known bool)
	keep  time.Duration // before a question is asked again
	slots chan struct{}
	mu    sync.Mutex
	asked map[K]*lookup[V]
}

// lookup is complete once done is closed.
type lookup[V any] struct {
	done  chan struct{}
	v     V
	known bool
	until time.Time
	// What was known before, and until when it holds.
	last  V
	stale time.Time
}

// NewLookups returns what finds answers by find, which tells whether it found one.
func NewLookups[K comparable, V any](find func(context.Context, K) (V, bool)) *Lookups[K, V] {
	return &Lookups[K, V]{find: find, keep: lookupKeep, slots: make(chan struct{}, lookupsAtOnce), asked: map[K]*lookup[V]{}}
}

// Answers returns what is known about keys when all is answered or ctx ends. Questions that are then open go on.
func (l *Lookups[K, V]) Answers(ctx context.Context, keys []K) map[K]V {
	now := time.Now()
	open := make(map[K]*lookup[V], len(keys))
	for _, k := range keys {
		open[k] = l.start(k, now)
	}
	out := make(map[K]V, len(keys))
	for k, a := range open {
		if v, known := a.wait(ctx, now); known {
			out[k] = v
		}
	}
	return out
}

// Peek returns what is known now, and sees to it that more will be.
func (l *Lookups[K, V]) Peek(k K, now time.Time) (v V, known bool) { return l.start(k, now).peek(now) }

// Get returns the answer to k, or what is known when ctx ends.
func (l *Lookups[K, V]) Get(ctx context.Context, k K, now time.Time) (v V, known bool) {
	return l.start(k, now).wait(ctx, now)
}

// start returns the answer to k, or the question that is under way.
func (l *Lookups[K, V]) start(k K, now time.Time) *lookup[V] {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, ok := l.asked[k]
	if ok && !before.old(now) {
		return before
	}
	l.makeRoom(now)
	a := &lookup[V]{done: make(chan struct{})}
	if ok {
		a.last, a.stale = before.last, before.stale
		if before.known {
			a.last, a.stale = before.v, before.until.Add(lookupStale)
		}
	}
	l.asked[k] = a
	go func() {
		l.slots <- struct{}{}
		defer func() { <-l.slots }()
		ctx, cancel := context.WithTimeout(context.Background(), lookupPatience)
		defer cancel()
		a.v, a.known = l.survive(ctx, k)
		a.until = time.Now().Add(l.keep)
		if !a.known {
			a.until = time.Now().Add(unknownKeep)
		}
		close(a.done)
	}()
	return a
}

// last is the answer before the one that is on its way.
func (l *Lookups[K, V]) last(k K) (v V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.asked[k]; a != nil {
		v = a.last
	}
	return v
}

// survive takes a mistake in reading what strangers publish for no answer: mail must not end with it.
func (l *Lookups[K, V]) survive(ctx context.Context, k K) (v V, known bool) {
	defer func() {
		if recover() != nil {
			known = false
		}
	}()
	return l.find(ctx, k)
}

// makeRoom forgets answers when there are too many: the old ones, then any. l.mu is held.
func (l *Lookups[K, V]) makeRoom(now time.Time) {
	if len(l.asked) < lookupsKept {
		return
	}
	for k, a := range l.asked {
		if a.old(now) || len(l.asked) >= lookupsKept {
			delete(l.asked, k)
		}
	}
}

// peek returns what is known without waiting: the answer, else an older one while that holds.
func (a *lookup[V]) peek(now time.Time) (v V, known bool) {
	select {
	case <-a.done:
		if a.known {
			return a.v, true
		}
	default:
	}
	return a.last, now.Before(a.stale)
}

// wait returns the answer, an older one where that still holds, or what is known when ctx ends.
func (a *lookup[V]) wait(ctx context.Context, now time.Time) (v V, known bool) {
	if v, known = a.peek(now); known {
		return v, known
	}
	select {
	case <-a.done:
	case <-ctx.Done():
	}
	return a.peek(now)
}

func (a *lookup[V]) old(now time.Time) bool {
	select {
	case <-a.done:
		return now.After(a.until)
	default:
		return false
	}
}
