package msglog

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice/proxy"
)

// tailRoom is how many records may wait for a reader who follows the log.
const tailRoom = 4096

// tails are those who follow the log.
type tails struct {
	n   atomic.Int32
	mu  sync.Mutex
	all map[*tail]struct{}
}

type tail struct {
	q       Query
	records chan *proxy.Record
	missed  atomic.Uint64
}

// offer gives a record to those who want it. It does not wait for them.
func (t *tails) offer(r *proxy.Record) {
	if t.n.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for one := range t.all {
		if !one.q.match(r) {
			continue
		}
		select {
		case one.records <- r:
		default:
			one.missed.Add(1)
		}
	}
}

func (t *tails) add(one *tail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = map[*tail]struct{}{}
	}
	t.all[one] = struct{}{}
	t.n.Add(1)
}

func (t *tails) remove(one *tail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, one)
	t.n.Add(-1)
}

// Tail calls f with each record that q asks for as it is put, until ctx ends. A reader who is too slow is told by a
// record with a note how many it missed. q's Limit has no meaning here.
func (l *Log) Tail(ctx context.Context, q Query, f func(*proxy.Record)) error {
	t := &tail{q: q, records: make(chan *proxy.Record, tailRoom)}
	l.tails.add(t)
	defer l.tails.remove(t)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case r := <-t.records:
			f(r)
			if n := t.missed.Swap(0); n > 0 {
				f(&proxy.Record{Start: time.Now(), Status: proxy.NoMessage, Note: fmt.Sprintf("%d records are not shown: the reader is too slow", n)})
			}
		}
	}
}
