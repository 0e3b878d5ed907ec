package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sluice/cmd/internal/resolver"
	"sluice/cmd/internal/store"
	"sluice/filter/sign"
)

// How often records of keys are looked at.
const (
	dkimEvery    = time.Minute      // whether there is something to do
	dkimSoon     = time.Hour        // for how long a key that waits for its record is looked at each time
	dkimWaiting  = 10 * time.Minute // then
	dkimSigning  = 24 * time.Hour
	dkimMost     = 100 // questions in a row
	dkimQuestion = 3 * time.Second
)

// keepDKIM looks for the records of keys, and lets go of keys whose time is over, until ctx ends or another process does so.
func (d *daemon) keepDKIM(ctx context.Context) {
	t := time.NewTicker(dkimEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			d.tendKeys(ctx, time.Now())
		case <-d.handedOver:
			return
		case <-ctx.Done():
			return
		}
	}
}

// tendKeys does what is due.
func (d *daemon) tendKeys(ctx context.Context, now time.Time) {
	asked := 0
	for _, h := range d.dkim.ring.All() {
		switch {
		case ctx.Err() != nil || d.retired():
			return
		case h.Err != nil:
			d.dkim.unreadable(h.Name(), h.Err)
		case !h.Until.IsZero() && now.After(h.Until):
			d.dropKey(h)
		case h.Until.IsZero() && asked < dkimMost && d.dkim.due(h, now):
			asked++
			if err := d.lookForRecord(ctx, h, "sluiced"); err != nil {
				d.log.Error("could not note that a key's record is there", "key", h.Name(), "err", err)
			}
		}
	}
}

// due tells whether the record of a key is to be looked at.
func (k *dkimKeys) due(h *sign.Held, now time.Time) bool {
	l, ok := k.last(h)
	every := dkimSigning
	if h.Seen.IsZero() {
		if every = dkimWaiting; now.Sub(h.Made) < dkimSoon {
			every = 0
		}
	}
	return !ok || now.Sub(l.at) >= every
}

// lookForRecord asks the DNS for a key's record. The first time that it is there the key signs, and those before it retire.
func (d *daemon) lookForRecord(ctx context.Context, h *sign.Held, who string) error {
	ctx, cancel := context.WithTimeout(ctx, dkimQuestion)
	defer cancel()
	txt, err := dnsBackend(&d.cfg.Load().DNS).LookupTXT(ctx, h.Name()+".") // afresh: somebody just published it; CNAMEs are followed
	if err == nil || resolver.NotFound(err) {
		err = h.Published(txt)
	}
	now := time.Now()
	before, known := d.dkim.last(h)
	d.dkim.note(h, now, err)
	if err != nil {
		if !h.Seen.IsZero() && (!known || before.err == nil) {
			d.log.Warn("receivers do not find the record of a key that signs mail", "key", h.Name(), "err", err)
		}
		return nil
	}
	d.dkim.change.Lock()
	defer d.dkim.change.Unlock()
	if !slices.Contains(d.dkim.ring.Of(h.Domain), h) { // it was changed or removed meanwhile
		return nil
	}
	if h.Seen.IsZero() {
		now = now.UTC().Truncate(time.Second)
		if err := d.dkim.put(h.With(func(c *sign.Held) { c.Seen = now })); err != nil {
			return err
		}
		d.auditKey(who, "dkim key signs", h, "its record is in the DNS")
	}
	return d.retireKeys(h.Domain, who)
}

// retireKeys retires the keys of a domain in whose place newer ones sign. d.dkim.change is held.
func (d *daemon) retireKeys(domain, who string) error {
	until := time.Now().Add(d.cfg.Load().DKIM.Keep.D()).UTC().Truncate(time.Second)
	for _, old := range d.dkim.ring.Superseded(domain) {
		if err := d.dkim.put(old.With(func(c *sign.Held) { c.Until = until })); err != nil {
			return err
		}
		d.auditKey(who, "dkim key retired", old, "its record is needed until "+until.Format(time.DateOnly))
	}
	return nil
}

// dropKey removes a key that nothing needs any more.
func (d *daemon) dropKey(h *sign.Held) {
	d.dkim.change.Lock()
	defer d.dkim.change.Unlock()
	if err := d.dkim.remove(h); err != nil {
		d.log.Error("could not remove a retired key", "key", h.Name(), "err", err)
		return
	}
	d.auditKey("sluiced", "dkim key removed", h, "retired until "+h.Until.Format(time.DateOnly))
}

// auditKey tells journal and audit log what became of a key.
func (d *daemon) auditKey(who, what string, h *sign.Held, detail string) {
	d.log.Info(what, "key", h.Name(), "detail", detail, "by", who)
	act := store.Act{At: time.Now(), Who: who, What: what, Subject: h.Domain, Detail: h.Selector + " (" + h.Type + ")"}
	if detail != "" {
		act.Detail += ": " + detail
	}
	if err := d.store.Audit(act); err != nil {
		d.log.Error("could not write the audit log", "act", what, "key", h.Name(), "err", err)
	}
}

// freeSelectors are the names of new keys of a domain, one for each type: what is asked for, else by the day.
func freeSelectors(ring []*sign.Held, asked string, kinds []string, now time.Time) ([]string, error) {
	taken := func(s string) bool {
		return slices.ContainsFunc(ring, func(h *sign.Held) bool { return h.Selector == s })
	}
	names := func(base string) (out []string) {
		for _, kind := range kinds {
			name := base
			if kind == sign.Ed25519 && len(kinds) > 1 {
				name += "e"
			}
			out = append(out, name)
		}
		return out
	}
	if asked != "" {
		if out := names(asked); !slices.ContainsFunc(out, taken) {
			return out, nil
		}
		return nil, fmt.Errorf("there is a key of the selector %q already", asked)
	}
	for n := 1; ; n++ {
		base := "s" + now.UTC().Format("20060102")
		if n > 1 {
			base += fmt.Sprintf("-%d", n)
		}
		if out := names(base); !slices.ContainsFunc(out, taken) {
			return out, nil
		}
	}
}
