package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"sluice/filter"
	"sluice/intercept/control"
	"sluice/intercept/flow"
	"sluice/proxy"
	"sluice/proxy/smtp"
)

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
	f := flow.Flow{ID: flow.ID(o.ID), Client: o.Client, Target: o.Target, User: user, Start: o.Start}
	for i := range o.Messages {
		m, id := &o.Messages[i], fmt.Sprintf("%s.%d", f.ID, o.Before+i+1)
		heard := overheard(o, m)
		w := d.proxy.Would(&f, id, heard, d.unenforced.observed)
		d.observations.message(user.ID, m, &w)
		d.tally.Put(observedMessage(f, id, o, m, heard, &w))
	}
	if o.More {
		return
	}
	d.observations.flow(user.ID, o)
	if rest := observedFlow(f, o); rest != nil {
		d.tally.Put(rest)
	}
}

// overheard is a message as the filter is asked about it.
func overheard(o *control.Observed, m *control.ObservedMessage) *proxy.Overheard {
	h := &proxy.Overheard{Start: m.Start, Helo: o.Helo, Body: m.Body, Size: max(m.Size, int64(len(m.Body))), Whole: m.Whole,
		Mail: smtp.Mail{Path: smtp.Path{Address: m.From}, Size: m.Said, UTF8: m.UTF8}}
	if m.Eight {
		h.Mail.Body = smtp.Body8BitMIME
	}
	if m.Wrong {
		_, h.Wrong = smtp.ParseMail(m.From)
	}
	for _, t := range m.To {
		h.To = append(h.To, proxy.Recipient{Address: t.Address, Code: t.Code, Reply: t.Reply})
	}
	code := 0
	if m.Whole || len(m.To) == 0 && m.Code/100 != 2 {
		code = m.Code
	}
	h.Status = proxy.Ended(code, h.To, m.Sent)
	return h
}

// observedMessage is the line of the log for one message.
func observedMessage(f flow.Flow, id string, o *control.Observed, m *control.ObservedMessage, h *proxy.Overheard, w *proxy.Would) *proxy.Record {
	rec := observedBase(f, o)
	rec.ID, rec.Start, rec.Duration, rec.From, rec.To, rec.Size = id, m.Start, max(0, m.End.Sub(m.Start)), m.From, h.To, m.Size
	rec.Verdict, rec.Would, rec.Identity, rec.Forwarded, rec.Likely = w.Verdict, w.Reply, w.Identity, w.Forwarded, w.Likely
	if m.Code != 0 && !m.Torn {
		rec.Remote = fmt.Sprintf("%d %s", m.Code, m.Reply)
		rec.Reply = rec.Remote
	}
	switch {
	case m.Torn:
		rec.Note = "parts were lost or unreadable: what became of it is not known"
	case m.Code == 0:
		rec.Note = "the answer was not seen"
	case !m.Whole:
		rec.Note = "no message was sent"
	case m.Size == 0:
		rec.Note = "judged by its beginning"
	}
	return rec
}

func observedBase(f flow.Flow, o *control.Observed) *proxy.Record {
	return &proxy.Record{Flow: f, Helo: o.Helo, Status: proxy.Observed, Verdict: filter.Verdict{Cause: -1}, Source: o.Client.Addr()}
}

// observedFlow is the line of the log for a flow of which not all could be read, or in which there was no message; else
// nil.
func observedFlow(f flow.Flow, o *control.Observed) *proxy.Record {
	if o.Before+len(o.Messages) > 0 && !o.Opaque && !o.Truncated && !o.Lossy {
		return nil
	}
	rest := observedBase(f, o)
	rest.ID, rest.Start, rest.Duration, rest.Remote, rest.Reply = f.ID.String(), o.Start, max(0, o.End.Sub(o.Start)), o.Last, o.Last
	switch {
	case o.Opaque:
		rest.In.Version, rest.Note = proxy.Opaque, "STARTTLS: what followed is not known"
	case o.Lossy:
		rest.In.Version, rest.Note = proxy.Opaque, "parts were lost or unreadable: more may have followed"
	case o.Truncated:
		rest.In.Version, rest.Note = proxy.Opaque, "longer than what is read: more may have followed"
	default:
		rest.Note = "no message"
	}
	return rest
}
