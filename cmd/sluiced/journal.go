package main

import (
	"strconv"
	"strings"
	"sync/atomic"

	"sluice/cmd/internal/inflight"
	"sluice/filter"
	"sluice/intercept/flow"
	"sluice/proxy"
)

// journal tells the list of messages in flight about records.
type journal struct{ *inflight.Journal }

func (j journal) Sent(r *proxy.Record) int {
	e := inflight.Entry{ID: r.ID, User: r.Flow.User.Name, Client: r.Flow.Client, Target: r.Flow.Target, Source: r.Source,
		From: r.From, Rcpts: len(r.To), Size: r.Size, Sent: r.Start}
	if len(r.To) > 0 {
		e.To = r.To[0].Address
	}
	return j.Journal.Sent(&e)
}

// ambiguous is the log record of a message that an earlier process left between its final dot and the answer.
func ambiguous(e *inflight.Entry, r *roster) *proxy.Record {
	rec := &proxy.Record{
		ID: e.ID, Start: e.Sent, From: e.From, Size: e.Size, Source: e.Source, Status: proxy.Ambiguous, Verdict: filter.Verdict{Cause: -1},
		Flow: flow.Flow{Client: e.Client, Target: e.Target, User: flow.User{Name: e.User}, Start: e.Sent},
		Note: "sluiced was killed between the final dot and the answer; recipients: " + strconv.Itoa(e.Rcpts),
	}
	if e.To != "" {
		rec.To = []proxy.Recipient{{Address: e.To}}
	}
	id, _, _ := strings.Cut(e.ID, ".")
	if n, err := strconv.ParseUint(id, 36, 64); err == nil {
		rec.Flow.ID = flow.ID(n)
	}
	if u, ok := r.table.Attribute(e.Client.Addr()); ok {
		rec.Flow.User = u
	}
	return rec
}

// tally counts messages by status on their way to the log.
type tally struct {
	next    proxy.Log
	asked   *askedCounts        // may be nil
	learn   func(*proxy.Record) // may be nil
	flush   func() error        // writes out what next holds; may be nil
	counts  [proxy.Statuses]atomic.Uint64
	stopped atomic.Uint64 // messages kept from their recipients for being bad, that the store has not counted yet
}

func (t *tally) Put(r *proxy.Record) {
	if int(r.Status) < len(t.counts) {
		t.counts[r.Status].Add(1)
	}
	if r.Verdict.Class.Bad() && r.Verdict.Refused() && !r.Shadow && r.Status != proxy.Observed {
		t.stopped.Add(1)
	}
	if t.asked != nil {
		t.asked.note(r)
	}
	t.next.Put(r)
	if t.learn != nil {
		t.learn(r)
	}
	if r.Status == proxy.Ambiguous && t.flush != nil {
		_ = t.flush() // rare, and must outlive a kill that comes now; the log tells its own failures
	}
}

// byStatus are the counts by the statuses' names.
func (t *tally) byStatus() map[string]uint64 {
	m := make(map[string]uint64, len(t.counts))
	for i := range t.counts {
		m[proxy.Status(i).String()] = t.counts[i].Load()
	}
	return m
}
