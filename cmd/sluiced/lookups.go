package main

import (
	"context"
	"sync"
	"time"
)

const (
	lookupsAtOnce  = 16               // questions under way
	lookupPatience = 20 * time.Second // for one question, with all that follows from it
	lookupsKept    = 50_000           // answers remembered
	lookupKeep     = 6 * time.Hour
	unknownKeep    = time.Minute // before a question without an answer is asked again
)

// lookups answers questions in the background and remembers the answers; nobody waits longer than he wants to.
type lookups[K comparable, V any] struct {
	find  func(context.Context, K) (v V, known bool)
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
}

func newLookups[K comparable, V any](find func(context.Context, K) (V, bool)) *lookups[K, V] {
	return &lookups[K, V]{find: find, slots: make(chan struct{}, lookupsAtOnce), asked: map[K]*lookup[V]{}}
}

// answers returns what is known about keys when all is answered or ctx ends. Questions that are then open go on.
func (l *lookups[K, V]) answers(ctx context.Context, keys []K) map[K]V {
	open := make(map[K]*lookup[V], len(keys))
	for _, k := range keys {
		open[k] = l.start(k)
	}
	out := make(map[K]V, len(keys))
	for k, a := range open {
		select {
		case <-a.done:
		default:
			select {
			case <-a.done:
			case <-ctx.Done():
				continue
			}
		}
		if a.known {
			out[k] = a.v
		}
	}
	return out
}

// start returns the answer to k, or the question that is under way.
func (l *lookups[K, V]) start(k K) *lookup[V] {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a, ok := l.asked[k]; ok && !a.old() {
		return a
	}
	l.makeRoom()
	a := &lookup[V]{done: make(chan struct{})}
	l.asked[k] = a
	go func() {
		l.slots <- struct{}{}
		defer func() { <-l.slots }()
		ctx, cancel := context.WithTimeout(context.Background(), lookupPatience)
		defer cancel()
		a.v, a.known = l.survive(ctx, k)
		a.until = time.Now().Add(lookupKeep)
		if !a.known {
			a.until = time.Now().Add(unknownKeep)
		}
		close(a.done)
	}()
	return a
}

// survive takes a mistake in reading what strangers publish for no answer: mail must not end with it.
func (l *lookups[K, V]) survive(ctx context.Context, k K) (v V, known bool) {
	defer func() {
		if recover() != nil {
			known = false
		}
	}()
	return l.find(ctx, k)
}

// makeRoom forgets answers when there are too many: the old ones, then any. l.mu is held.
func (l *lookups[K, V]) makeRoom() {
	if len(l.asked) < lookupsKept {
		return
	}
	for k, a := range l.asked {
		if a.old() || len(l.asked) >= lookupsKept {
			delete(l.asked, k)
		}
	}
}

func (a *lookup[V]) old() bool {
	select {
	case <-a.done:
		return time.Now().After(a.until)
	default:
		return false
	}
}
