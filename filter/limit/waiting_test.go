package limit

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// TestMessagesThatWait: what a smarthost would take beyond the bound is deferred, what is on its way there counts, and
// what never comes there is not asked about.
func TestMessagesThatWait(t *testing.T) {
	t.Parallel()
	held := 1
	l := bound(policy.QueuedMessages, 3)
	r := NewRate(NewCounts(0), &fixed{policy.Settings{Limits: l}}, nil)
	r.Waiting = NewWaiting(func(user uint32) int {
		if user != 1 {
			return 0
		}
		return held
	})
	ctx := context.Background()
	mails := map[flow.ID]*message.Message{}
	ask := func(id flow.ID, user uint32, handedIn bool) *filter.Verdict {
		m := mails[id]
		if m == nil {
			m = mail(id, user)
			mails[id] = m
		}
		m.HandedIn, m.Rcpt = handedIn, "x@sink.example"
		v := filter.Judge(r.Check(ctx, filter.Rcpt, m, nil))
		return &v
	}
	settle := func(id flow.ID) { r.Settle(mails[id], filter.Outcome{}) }
	for range 2 { // a further recipient takes no further place
		if v := ask(1, 1, true); v.Refused() {
			t.Fatalf("the second message: %+v", v)
		}
	}
	if v := ask(2, 1, true); v.Refused() {
		t.Fatalf("the third: %+v", v)
	}
	v := ask(3, 1, true)
	h := v.Decisive()
	if h == nil || h.Code != "QUEUE-MAX" || h.SMTP != 452 || h.Enhanced != "4.3.1" || h.Action != filter.Defer ||
		h.Text != "as many messages of this sender wait for delivery as may (3); try again later" {
		t.Fatalf("the fourth: %+v", h)
	}
	settle(3)
	if v := ask(4, 1, false); v.Refused() {
		t.Errorf("one that is passed on at once: %+v", v)
	}
	if v := ask(5, 2, true); v.Refused() {
		t.Errorf("one of somebody else: %+v", v)
	}
	held++ // that of flow 1 is in the queue
	settle(1)
	if v := ask(6, 1, true); !v.Refused() {
		t.Error("two are held, one is coming, and another is let in")
	}
	settle(2) // it was not handed in after all
	if v := ask(7, 1, true); v.Refused() {
		t.Errorf("behind one that was given up: %+v", v)
	}
	settle(7)
	held = 3
	l.Action[policy.QueuedMessages], l.Text[policy.QueuedMessages] = policy.RejectOver, "your plan has three places"
	if h := ask(8, 1, true).Decisive(); h == nil || h.SMTP != 550 || h.Text != "your plan has three places" {
		t.Errorf("with action reject: %+v", h)
	}
	l.Shadow[policy.QueuedMessages] = true
	m := mail(9, 1)
	m.HandedIn, m.Rcpt = true, "x@sink.example"
	r.Check(ctx, filter.Rcpt, m, nil)
	hits := r.Check(ctx, filter.Data, m, nil)
	if v := filter.Judge(hits); v.Refused() || len(hits) != 1 || hits[0].Evidence != "only reported: queued_messages 3 of the user" {
		t.Errorf("only reported: %+v", hits)
	}
	r.Settle(m, filter.Outcome{})
	if settle(5); len(r.Waiting.coming) != 0 {
		t.Errorf("places are not given back: %v", r.Waiting.coming)
	}
	l.Max[policy.QueuedMessages] = 0
	if v := ask(10, 1, true); v.Refused() {
		t.Errorf("without a bound: %+v", v)
	}
}

// TestNoneSlipsIntoTheQueue: with many at once there are never more than may be.
func TestNoneSlipsIntoTheQueue(t *testing.T) {
	t.Parallel()
	var held atomic.Int64
	w := NewWaiting(func(uint32) int { return int(held.Load()) })
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if w.Take(1, 50) {
					held.Add(1) // first, as a commit does
					w.Give(1)
				}
			}
		})
	}
	all.Wait()
	if n := held.Load(); n != 50 || !w.Full(1, 50) {
		t.Errorf("%d are held, want 50", n)
	}
}
