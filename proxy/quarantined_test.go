package proxy

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/filter"
	"sluice/filter/message"
)

// shelf is a quarantine in memory, by the texts of messages.
type shelf struct {
	mu       sync.Mutex
	fail     error
	kept     map[string]int // tries
	released map[string]bool
	gone     []string
}

func (q *shelf) Has(user uint32) bool { return user == 7 }

func (q *shelf) text(m *Kept) string {
	b, _ := io.ReadAll(m.Body.NewReader())
	return m.Rcpts[0].Address + string(b)
}

func (q *shelf) Keep(_ context.Context, m *Kept, v *filter.Verdict) (Custody, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fail != nil {
		return Custody{}, q.fail
	}
	if v.Action != filter.Quarantine || len(m.Trace) == 0 || m.Mail.Address == "" {
		return Custody{}, errors.New("asked to keep what is not to be kept")
	}
	q.kept[q.text(m)]++
	return Custody{"q1", q.released[q.text(m)]}, nil
}

func (q *shelf) Known(m *Kept) (Custody, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fail != nil {
		return Custody{}, q.fail
	}
	if q.kept[q.text(m)] == 0 {
		return Custody{}, nil
	}
	return Custody{"q1", q.released[q.text(m)]}, nil
}

func (q *shelf) Delivered(c Custody) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gone = append(q.gone, c.ID)
}

func (q *shelf) releaseAll() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for text := range q.kept {
		q.released[text] = true
	}
}

// shelved is a rig whose filter puts SPAMWORD into quarantine, as long as strict.
func shelved(t *testing.T, mx *remote, later bool) (*rig, *shelf, *atomic.Bool) {
	q, strict := &shelf{kept: map[string]int{}, released: map[string]bool{}}, new(atomic.Bool)
	strict.Store(true)
	hit := filter.Hit{Code: "SPAM", Class: filter.Spam, Action: filter.Quarantine, Text: "it looks like spam"}
	step := onWord(filter.Data, hit)
	inner := step.Check.(checkFunc)
	step.Check = checkFunc(func(ctx context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
		if !strict.Load() {
			return hits
		}
		return inner(ctx, p, m, hits)
	})
	r := newRig(t, mx.addr(), steps(step), func(r *rig) { r.cfg.Quarantine, r.cfg.Settings.HeldLater = q, later })
	return r, q, strict
}

// TestQuarantine: a copy is kept before the client hears 550, the destination never sees the message, and where no copy can
// be kept nothing is said for good.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r, q, _ := shelved(t, mx, false)
	p := r.hello()
	p.envelope()
	p.send(spamMail, "550 5.7.1 gw.example: [SPAM] it looks like spam")
	q.mu.Lock()
	if len(q.kept) != 1 {
		t.Errorf("%d copies were kept before the answer", len(q.kept))
	}
	q.fail = errors.New("the disk is full")
	q.mu.Unlock()
	p.envelope()
	p.send(spamMail, "451 4.7.1 gw.example: [SPAM]")
	p.envelope()
	p.send(goodMail, "451 4.3.0") // whether it went out before nobody knows now
	q.mu.Lock()
	q.fail = nil
	q.mu.Unlock()
	p.envelope()
	p.send(goodMail, "250 2.0.0 queued")
	p.cmd("QUIT", "221")
	all := r.log.wait(t, 4)
	if all[0].Status != Quarantined || all[0].Note != "held as q1" || all[0].Verdict.Class != filter.Spam || all[0].Source.IsValid() || all[1].Status != Withheld || !strings.Contains(all[1].Note, "disk is full") || all[2].Status != Deferred || all[3].Status != Delivered {
		t.Errorf("records: %v %q, %v %q, %v, %v", all[0].Status, all[0].Note, all[1].Status, all[1].Note, all[2].Status, all[3].Status)
	}
	if got := mx.messages(); len(got) != 1 || strings.Contains(got[0], "SPAMWORD") {
		t.Errorf("the destination got %q", got)
	}
}

// TestQuarantineAndComeAgain: with 451 the client tries again; after a release it hears 250 and nothing goes out twice,
// whatever the filter says meanwhile. What passes by itself is no longer held.
func TestQuarantineAndComeAgain(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r, q, strict := shelved(t, mx, true)
	p := r.hello()
	for range 2 {
		p.envelope()
		p.send(spamMail, "451 4.7.1 gw.example: [SPAM] it looks like spam")
	}
	other := strings.Replace(spamMail, "SPAMWORD", "SPAMWORD, and more", 1)
	p.envelope()
	p.send(other, "451 4.7.1")
	q.mu.Lock()
	tries := 0
	for _, n := range q.kept {
		tries += n
	}
	q.mu.Unlock()
	if tries != 3 {
		t.Errorf("%d tries were counted", tries)
	}
	strict.Store(false) // the filter has learnt better
	p.envelope()
	p.send(other, "250 2.0.0 queued")
	r.log.wait(t, 4)
	p.cmd("NOOP", "250") // the quarantine hears of it behind the record
	q.mu.Lock()
	if len(q.gone) != 1 {
		t.Errorf("a copy whose retry went out stays: %q", q.gone)
	}
	q.mu.Unlock()
	q.releaseAll()
	p.envelope()
	p.send(spamMail, "250 2.0.0 gw.example: released before as q1")
	strict.Store(true)
	p.envelope()
	p.send(spamMail, "250 2.0.0 gw.example: released before as q1")
	p.cmd("QUIT", "221")
	all := r.log.wait(t, 6)
	if all[0].Status != Quarantined || all[4].Status != Queued || all[5].Status != Queued || !strings.Contains(all[5].Note, "released before") {
		t.Errorf("records: %v, %v, %v %q", all[0].Status, all[4].Status, all[5].Status, all[5].Note)
	}
	if got := mx.messages(); len(got) != 1 || !strings.Contains(got[0], "and more") {
		t.Errorf("the destination got %d messages", len(got))
	}
}

// TestQuarantineOfALockedUser (LCK3): the lock answers, and a copy is kept.
func TestQuarantineOfALockedUser(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r, q, _ := shelved(t, mx, false)
	r.locks.lock("T-7")
	p := r.hello()
	p.envelope()
	p.send(spamMail, "451 4.7.1 gw.example: [LOCKED]")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Deferred || rec.Ticket != "T-7" || rec.Note != "held as q1" {
		t.Errorf("record: %v %q", rec.Status, rec.Note)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.kept) != 1 {
		t.Errorf("%d copies", len(q.kept))
	}
}
