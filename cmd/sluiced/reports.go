package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/msglog"
	"sluice/cmd/internal/store"
	"sluice/filter/content"
	"sluice/filter/content/school"
	"sluice/filter/lock"
	"sluice/filter/lock/ladder"
	mail "sluice/filter/message"
	"sluice/filter/reputation/feedback"
	"sluice/filter/reputation/trap"
	"sluice/proxy"
)

// maxTrails is how many Received fields of a reported message are looked at for one of ours.
const maxTrails = 40

// reports knows which reports were taken lately, so that one that comes twice counts once.
type reports struct {
	mu    sync.Mutex
	known map[[32]byte]bool
	order [][32]byte

	taken, unmatched, refused atomic.Uint64
}

// maxKnown is how many reports are remembered.
const maxKnown = 10000

// first tells whether a report is seen for the first time.
func (r *reports) first(data []byte) bool {
	sum := sha256.Sum256(data)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[[32]byte]bool{}
	}
	if r.known[sum] {
		return false
	}
	if r.order = append(r.order, sum); len(r.order) > maxKnown {
		delete(r.known, r.order[0])
		r.order = r.order[1:]
	}
	r.known[sum] = true
	return true
}

// Report takes a report: it finds the message that it is about, by our trace field, counts it against who sent that, and
// teaches the content filter (ARF2, CON6).
func (b backend) Report(ctx context.Context, who string, data []byte) (*api.Report, error) {
	out, err := b.d.report(ctx, data)
	if err != nil {
		b.d.reports.refused.Add(1)
		what, remedy, _ := strings.Cut(err.Error(), "; ")
		return nil, &api.Problem{Status: http.StatusBadRequest, Code: "no-report", What: what, Remedy: remedy}
	}
	return out, b.d.store.Audit(store.Act{At: time.Now(), Who: who, What: "report taken", Subject: out.User, Detail: fmt.Sprintf("%s by %s about %s; learnt: %s", out.Kind, out.Reporter, out.Message, out.Learnt)})
}

func (d *daemon) report(ctx context.Context, data []byte) (*api.Report, error) {
	r, err := feedback.Read(data)
	if err != nil {
		return nil, err
	}
	out := &api.Report{Kind: string(r.Kind), Reporter: r.Reporter}
	if !d.reports.first(data) {
		out.Again, out.Learnt = true, "no: the report is known"
		return out, nil
	}
	d.reports.taken.Add(1)
	rec, err := d.reported(ctx, r)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		d.reports.unmatched.Add(1)
		out.Learnt = "no: it is about no message of ours that the log has"
		return out, nil
	}
	out.Message, out.User, out.Identity, out.Source = rec.ID, rec.Flow.User.Name, rec.Identity, address(rec.Source)
	out.Learnt = d.learnReported(r, rec)
	if r.Kind.Complains() {
		out.Counted = true
		d.locks.Tell(rec.Flow.User, rec.Identity, ladder.Event{Kind: ladder.Complaint}, lock.Evidence{
			Message: rec.ID, At: time.Now(), From: rec.From, Check: "reports", Code: "COMPLAINT", Class: "policy", Detail: fmt.Sprintf("%s by %s", r.Kind, r.Reporter),
		})
	}
	d.log.Info("report taken", "kind", out.Kind, "reporter", out.Reporter, "message", out.Message, "user", out.User, "identity", out.Identity, "source", out.Source, "learnt", out.Learnt)
	return out, nil
}

// reported finds the message that a report is about; nil where it is none of ours, or too old for the log.
func (d *daemon) reported(ctx context.Context, r *feedback.Report) (*proxy.Record, error) {
	if err := d.messages.Flush(); err != nil {
		return nil, err
	}
	for _, l := range d.trace.Left(content.CRLF(r.Original), maxTrails) {
		found, err := d.messages.Find(ctx, msglog.Query{ID: fmt.Sprintf("%s.%d", l.Flow, l.N), Limit: 1})
		if err != nil {
			return nil, err
		}
		for _, rec := range found {
			for _, to := range rec.To {
				if d.trace.Proves(l, rec.Flow.User.ID, to.Address) {
					return rec, nil
				}
			}
		}
	}
	return nil, nil
}

// learnReported teaches the content filter a reported message, and says what it was learnt as, or why it was not. What a
// report contains may be anything behind a header of ours, so it is learnt only where its size is about that of the log.
func (d *daemon) learnReported(r *feedback.Report, rec *proxy.Record) string {
	size := int64(len(r.Original))
	switch {
	case !r.Whole:
		return "no: the report has the header alone"
	case !r.Kind.Complains() && r.Kind != feedback.NotSpam:
		return "no: it says nothing about the text"
	case size < rec.Size/2 || size > rec.Size*2+32<<10:
		return fmt.Sprintf("no: the reported message has %d bytes and ours had %d", size, rec.Size)
	}
	bad := r.Kind.Complains()
	source := "reports of " + r.Reporter
	_, err := d.school.Train(r.Original, bad, source, false)
	return d.learntAs(bad, err)
}

func (d *daemon) learntAs(bad bool, err error) string {
	switch {
	case err == nil:
		return className(bad)
	case errors.Is(err, school.ErrKnown):
		return "no: the filter knows it"
	}
	return "no: " + err.Error()
}

// trapSource is who teaches what runs into traps; each user has a budget of his own.
const trapSource = "traps"

// trapped learns a message that ran into a trap, beside the way of mail: the text is copied.
func (d *daemon) trapped(m *mail.Message) {
	data, user := append([]byte(nil), m.Data...), m.Flow.User.Name
	d.audits.Go(func() {
		_, err := d.school.Train(data, true, trapSource+", "+user, false)
		d.log.Warn("a message ran into a trap", "code", trap.Code, "user", user, "learnt", d.learntAs(true, err))
	})
}
