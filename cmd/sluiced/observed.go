package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"sluice/cmd/internal/api"
	"sluice/filter"
	"sluice/intercept/control"
	"sluice/intercept/flow"
	"sluice/proxy"
)

// opaque stands for a leg whose protection and contents an observer does not see.
const opaque = "opaque"

// observations are what sluice-observe told, by user; they begin anew with the process.
type observations struct {
	mu    sync.Mutex
	users map[uint32]api.Observed
	seen  uint64
	loss  control.ObservedLoss
}

// of returns the counts of a user, nil where nothing was observed.
func (o *observations) of(user uint32) *api.Observed {
	o.mu.Lock()
	defer o.mu.Unlock()
	c, ok := o.users[user]
	if !ok {
		return nil
	}
	c.OpaqueShare = float64(c.Opaque) / float64(c.Flows)
	return &c
}

// counters adds the observer's own account of itself.
func (o *observations) counters(to map[string]uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == 0 {
		return
	}
	to["observed_flows"], to["observed_lost_pieces"] = o.seen, o.loss.Kernel
	to["observed_lost_flows"], to["observed_lost_records"] = o.loss.Flows, o.loss.Records
}

func (o *observations) report(r control.ObservedReport) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen, o.loss = r.Seen, r.Loss
}

func (o *observations) add(user uint32, f *control.Observed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.users == nil {
		o.users = make(map[uint32]api.Observed)
	}
	c := o.users[user]
	c.Flows++
	if f.Opaque {
		c.Opaque++
	}
	c.Messages += len(f.Messages)
	for _, m := range f.Messages {
		for _, t := range m.To {
			c.Recipients++
			if t.Code >= 400 {
				c.RefusedRecipients++
			}
		}
		if m.Whole && m.Code/100 == 2 {
			c.Accepted++
		}
	}
	o.users[user] = c
}

// takeObserved takes the observer's reports until ctx ends. While another sluiced still has the socket it tries again.
func (d *daemon) takeObserved(ctx context.Context) {
	path, last := control.ObservedSocket(d.cfg.Load().API.Socket), ""
	allow := func(p control.Peer) bool { return p.UID == 0 || p.UID == uint32(os.Getuid()) }
	logf := func(format string, args ...any) { d.log.Warn(fmt.Sprintf(format, args...)) }
	for ctx.Err() == nil {
		l, err := control.Listen(path, os.Getgid())
		if err == nil {
			err = control.ServeObserved(ctx, l, allow, logf, d.observed)
		}
		if err != nil && err.Error() != last {
			last = err.Error()
			d.log.Warn("could not take an observer's reports; it is tried again", "err", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// observed puts a report down: counters, and one record for each message, or for the flow where there was none that could
// be read.
func (d *daemon) observed(r control.ObservedReport) {
	d.observations.report(r)
	if r.Observed == nil {
		return
	}
	o := r.Observed
	user, ok := d.sources.Attribute(o.Client.Addr())
	if !ok {
		return
	}
	d.observations.add(user.ID, o)
	f := flow.Flow{ID: d.ids.Next(), Client: o.Client, Target: o.Target, User: user, Start: o.Start}
	for _, rec := range observedRecords(f, o) {
		d.tally.Put(rec)
	}
}

// observedRecords are the lines of the log for one observed flow.
func observedRecords(f flow.Flow, o *control.Observed) []*proxy.Record {
	var out []*proxy.Record
	base := proxy.Record{Flow: f, Helo: o.Helo, Status: proxy.Observed, Verdict: filter.Verdict{Cause: -1}, Source: o.Client.Addr()}
	for i, m := range o.Messages {
		rec := base
		rec.ID, rec.Start, rec.Duration, rec.From = fmt.Sprintf("%s.%d", f.ID, i+1), m.Start, max(0, m.End.Sub(m.Start)), m.From
		for _, t := range m.To {
			rec.To = append(rec.To, proxy.Recipient{Address: t.Address, Code: t.Code, Reply: t.Reply})
		}
		if m.Code != 0 {
			rec.Remote = fmt.Sprintf("%d %s", m.Code, m.Reply)
			rec.Reply = rec.Remote
		}
		switch {
		case m.Code == 0:
			rec.Note = "the answer was not seen"
		case !m.Whole:
			rec.Note = "no message was sent"
		}
		out = append(out, &rec)
	}
	if len(out) > 0 && !o.Opaque && !o.Truncated && !o.Lossy {
		return out
	}
	rest := base
	rest.ID, rest.Start, rest.Duration, rest.Remote, rest.Reply = f.ID.String(), o.Start, max(0, o.End.Sub(o.Start)), o.Last, o.Last
	switch {
	case o.Opaque:
		rest.In.Version, rest.Note = opaque, "STARTTLS: what followed is not known"
	case o.Lossy:
		rest.In.Version, rest.Note = opaque, "parts were lost or unreadable: more may have followed"
	case o.Truncated:
		rest.In.Version, rest.Note = opaque, "longer than what is read: more may have followed"
	default:
		rest.Note = "no message"
	}
	return append(out, &rest)
}
