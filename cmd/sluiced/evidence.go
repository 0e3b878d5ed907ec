package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/msglog"
	"sluice/cmd/internal/store"
	"sluice/filter/lock"
	"sluice/proxy"
)

// The bounds of a bundle.
const (
	mostTimeline   = 2000
	timelineBefore = 24 * time.Hour
	timelineAfter  = time.Hour
	mostOpenFlows  = 200
)

// keepEvidence keeps, beside what stands in the lock itself, what would be gone later: the connections that were open when it
// began, and samples of what was sent.
func (d *daemon) keepEvidence(l *lock.Lock, open []proxy.Live) {
	text, err := json.Marshal(d.shownFlows(open[:min(len(open), mostOpenFlows)]))
	if err == nil {
		err = d.store.PutFlows(l.Ticket, l.Since, text)
	}
	for i := range l.Evidence {
		if one := d.samples.of(l.Evidence[i].Message); one != nil {
			err = errors.Join(err, d.samples.keep(one, l.Ticket))
		}
	}
	if err != nil {
		d.log.Error("not all evidence of a lock was kept", "user", l.User.Name, "ticket", l.Ticket, "err", err)
	}
}

const bundleText = `This is what the lock %s of %s rests on.

lock.json       the lock: reason, rule, reputation with its factors, and the messages that count
flows.json      the connections that were open when it began
timeline.jsonl  the message log of the user, from a day before the lock, oldest first; at most %d lines
samples/        the messages that count, as they came, as far as they are kept; of one above 64 KiB the beginning

It holds mail of other people: treat it as such.
`

// Bundle writes the evidence of a lock, in force or ended, as a compressed tar archive (LCK7).
func (b backend) Bundle(ctx context.Context, who, ticket string, begin func(name string) io.Writer) error {
	d := b.d
	l, ok, err := d.store.LockOf(ticket)
	switch {
	case err != nil:
		return err
	case !ok:
		return &api.Problem{Status: http.StatusNotFound, Code: "no-such-ticket", What: fmt.Sprintf("there is no lock %q", ticket), Remedy: "`sluice locks --history` lists them"}
	}
	flows, err := d.store.FlowsOf(ticket)
	if err != nil {
		return err
	}
	timeline, err := d.timeline(ctx, &l)
	if err != nil {
		return err
	}
	samples, err := d.samples.kept(l.User.Name, ticket)
	if err != nil {
		return err
	}
	if err := d.store.Audit(store.Act{Who: who, What: "evidence read", Subject: ticket, Detail: l.Name()}); err != nil {
		return err
	}
	shown, err := json.MarshalIndent(shownLock(&l), "", "  ")
	if err != nil {
		return err
	}
	z := gzip.NewWriter(begin(ticket + ".tar.gz"))
	t := tar.NewWriter(z)
	put := func(name string, text []byte) {
		if err == nil {
			err = t.WriteHeader(&tar.Header{Name: ticket + "/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: l.Since, Format: tar.FormatPAX})
		}
		if err == nil {
			_, err = t.Write(text)
		}
	}
	put("README.txt", fmt.Appendf(nil, bundleText, ticket, l.Name(), mostTimeline))
	put("lock.json", shown)
	put("flows.json", flows)
	put("timeline.jsonl", timeline)
	for i := range samples {
		c, rerr := d.samples.box.Read(samples[i].ID)
		if rerr != nil { // the others are worth having
			put("samples/"+samples[i].Message+".error.txt", []byte(rerr.Error()+"\n"))
			continue
		}
		put("samples/"+samples[i].Message+".eml", c.Text)
	}
	return errors.Join(err, t.Close(), z.Close())
}

// timeline are the log's lines around a lock, oldest first. What a sender tries under his lock leaves room for what led to it.
func (d *daemon) timeline(ctx context.Context, l *lock.Lock) ([]byte, error) {
	after, err := d.lines(ctx, msglog.Query{User: l.User.ID, From: l.Since, Until: l.Since.Add(timelineAfter)}, mostTimeline/4)
	if err != nil {
		return nil, err
	}
	before, err := d.lines(ctx, msglog.Query{User: l.User.ID, From: l.Since.Add(-timelineBefore), Until: l.Since}, mostTimeline-len(after))
	return slices.Concat(slices.Concat(before...), slices.Concat(after...)), err
}

// lines are the newest lines of the log that q asks for, at most so many, oldest first.
func (d *daemon) lines(ctx context.Context, q msglog.Query, most int) (lines [][]byte, err error) {
	eerr := d.messages.Each(ctx, q, func(r *proxy.Record) bool {
		var line []byte
		if line, err = json.Marshal(message(r)); err == nil {
			lines = append(lines, append(line, '\n'))
		}
		return err == nil && len(lines) < most
	})
	slices.Reverse(lines)
	return lines, errors.Join(err, eerr)
}
