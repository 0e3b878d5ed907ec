package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"sluice/cmd/internal/config"
	"sluice/cmd/internal/notify"
	"sluice/cmd/internal/store"
	"sluice/filter"
	"sluice/proxy"
	"sluice/proxy/quarantine"
	"sluice/proxy/spool"
)

// sweepEvery is how often it is looked which held messages' time is over.
const sweepEvery = time.Minute

// openQuarantine opens what is held.
func (d *daemon) openQuarantine(cfg *config.Config) (*quarantine.Box, error) {
	key := cfg.Quarantine.KeyFile
	if key == "" {
		key = filepath.Join(cfg.Store.Dir, "quarantine.key")
	}
	return quarantine.Open(quarantine.Options{
		Dir: filepath.Join(cfg.Store.Dir, "quarantine"), KeyFile: key, Index: d.store.Held(),
		Keep:  func() time.Duration { return d.cfg.Load().Quarantine.Retention.D() },
		Most:  func() int64 { return int64(d.cfg.Load().Quarantine.Space) },
		Alarm: func(err error) { d.log.Error("the quarantine needs attention", "err", err) },
	})
}

// keepQuarantine drops what was held long enough, until ctx ends or another process does.
func (d *daemon) keepQuarantine(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			n, err := d.held.Sweep()
			if _, serr := d.samples.box.Sweep(); serr != nil {
				d.log.Error("could not look after samples of locks", "err", serr)
			}
			if err == nil {
				_, err = d.held.Refresh() // an older process may have kept something
			}
			if err != nil {
				d.log.Error("could not look after held messages", "err", err)
			}
			if n > 0 {
				d.log.Info("held messages deleted, their time was over", "count", n)
			}
		case <-d.handedOver:
			return
		case <-ctx.Done():
			return
		}
	}
}

// custodian is what the proxy sees of the quarantine.
type custodian struct{ d *daemon }

// Has implements proxy.Quarantine.
func (c custodian) Has(user uint32) bool { return c.d.held.Has(user) }

// Keep implements proxy.Quarantine.
func (c custodian) Keep(_ context.Context, m *proxy.Kept, v *filter.Verdict) (proxy.Custody, error) {
	print, err := printOf(m)
	if err != nil {
		return proxy.Custody{}, err
	}
	env := keeper(c).envelopeOf(m)
	l := quarantine.Letter{Envelope: &env, Trace: m.Trace, Text: m.Body.NewReader(), Entry: quarantine.Entry{
		User: env.User, UserName: env.UserName, Login: m.Login, Client: env.Client, From: env.From, Size: m.Body.Size(), Message: m.ID, Print: print,
	}}
	for _, r := range env.Rcpts {
		l.Entry.To = append(l.Entry.To, r.Address)
	}
	if h := v.Decisive(); h != nil {
		l.Entry.Check, l.Entry.Code, l.Entry.Class, l.Entry.Evidence = h.Check, h.Code, v.Class.String(), h.Evidence
	}
	l.Entry.Group, _ = v.Copies()
	e, err := c.d.held.Keep(&l)
	if err != nil {
		c.d.log.Error("no copy of a message could be held; it is put off", "message", m.ID, "err", err)
		return proxy.Custody{}, err
	}
	if m.HandedIn && e.Tries == 1 {
		c.notice(&e, &env)
	}
	return proxy.Custody{ID: e.ID, Released: e.State == quarantine.Released}, nil
}

// notice tells whoever handed a message in at the smarthost that it is held, where it is known who that is.
func (c custodian) notice(e *quarantine.Entry, env *spool.Envelope) {
	d := c.d
	to, ok := d.mail.NoticeTo(env)
	if !ok || to == "" {
		return
	}
	g := &d.cfg.Load().Gateway
	contact := g.Contact
	if contact == "" {
		contact = "your provider"
	}
	err := d.sendNotice(&notify.Mail{To: to, ID: e.ID + ".notice", Subject: "Your message is held", Text: fmt.Sprintf(
		"A message of yours was not delivered: it is held until somebody has looked at it.\n\nIts number: %s\nIts recipients: %s\nThe reason: %s\n\nQuestions: %s\n",
		e.ID, strings.Join(e.To[:min(len(e.To), 20)], ", "), e.Code, contact)})
	if err != nil {
		d.log.Warn("nobody was told that a message is held", "id", e.ID, "user", e.UserName, "err", err)
	}
}

// Known implements proxy.Quarantine.
func (c custodian) Known(m *proxy.Kept) (proxy.Custody, error) {
	print, err := printOf(m)
	if err != nil {
		return proxy.Custody{}, err
	}
	e, err := c.d.held.Known(print)
	if errors.Is(err, quarantine.ErrUnknown) {
		return proxy.Custody{}, nil
	}
	return proxy.Custody{ID: e.ID, Released: e.State == quarantine.Released}, err
}

// Delivered implements proxy.Quarantine: a copy whose retry went out is removed.
func (c custodian) Delivered(k proxy.Custody) {
	if _, err := c.d.held.Delete(k.ID); err != nil && !errors.Is(err, quarantine.ErrUnknown) {
		c.d.log.Error("the copy of a message that went out is held still", "id", k.ID, "err", err)
		return
	}
	c.d.audits.Go(func() {
		act := store.Act{At: time.Now(), Who: "sluiced", What: "quarantine delete", Subject: k.ID, Detail: "its sender tried again, and the message went out"}
		if err := c.d.store.Audit(act); err != nil {
			c.d.log.Error("could not write the audit log", "act", act.What, "id", k.ID, "err", err)
		}
	})
}

// printOf is the fingerprint of a message.
func printOf(m *proxy.Kept) (string, error) {
	to := make([]string, len(m.Rcpts))
	for i := range m.Rcpts {
		to[i] = m.Rcpts[i].Address
	}
	head := m.Body.HeaderLen()
	header := m.Body.Header()
	if int64(len(header)) < head { // its end lies in a file: all of it counts as text
		header, head = nil, 0
	}
	return quarantine.Fingerprint(m.Flow.User.ID, m.Mail.Address, to, header, io.NewSectionReader(m.Body, head, m.Body.Size()-head))
}
