package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"time"

	"sluice/cmd/internal/config"
	"sluice/cmd/internal/msglog"
	"sluice/cmd/internal/public"
	"sluice/docs/codes"
	"sluice/intercept/flow"
	"sluice/proxy"
)

// pages marks a listener at which the public pages are served.
const pages = "public"

// newPublic makes the server of the pages; nil where there are none.
func newPublic(d *daemon, cfg *config.Config) (*public.Server, error) {
	if len(cfg.Public.Listen) == 0 {
		return nil, nil
	}
	d.publicTLS = d.clientTLS()
	d.publicTLS.NextProtos = []string{"http/1.1"}
	return public.New(public.Options{Pages: codes.Pages, Links: d.notices.now.Load().links, Desk: desk{d}, Log: d.log, Look: func() public.Look {
		cfg := d.cfg.Load()
		look := public.Look{Brand: cfg.Gateway.Brand, Contact: cfg.Gateway.Contact}
		for _, p := range cfg.Public.Proxies {
			look.Proxies = append(look.Proxies, p.Prefix)
		}
		return look
	}})
}

// pageOf links refusals to the pages, where there are any.
func (d *daemon) pageOf(cfg *config.Config) func(code, message string) string {
	if cfg.Public.URL == "" {
		return nil
	}
	return d.notices.page
}

// keepPublic answers until ctx ends.
func (d *daemon) keepPublic(ctx context.Context) {
	if d.public == nil {
		return
	}
	done := make(chan error, 1)
	go func() { done <- d.public.Run() }()
	<-ctx.Done()
	if err := errors.Join(d.public.Close(), <-done); err != nil {
		d.log.Warn("the public pages did not end well", "err", err)
	}
}

// servePages answers one connection to the public pages.
func (d *daemon) servePages(c *flow.Conn, done func()) {
	switch {
	case d.public == nil: // it is read at the start only
		_ = c.Close()
		done()
	case d.cfg.Load().Public.TLS:
		d.public.Serve(tls.Server(c, d.publicTLS), done)
	default:
		d.public.Serve(c, done)
	}
}

// desk is what the pages see of the daemon.
type desk struct{ d *daemon }

// refusedRecord finds the log's record of a message that was kept from its recipients.
func (d *daemon) refusedRecord(ctx context.Context, id string) (*proxy.Record, error) {
	var found *proxy.Record
	err := d.messages.Each(ctx, msglog.Query{ID: id}, func(r *proxy.Record) bool {
		if r.ID == id && r.Verdict.Decisive() != nil && r.Verdict.Refused() {
			found = r
		}
		return found == nil
	})
	if found != nil {
		return found, nil
	}
	if err == nil {
		err = public.ErrUnknown
	}
	return nil, err
}

// Refused implements public.Desk.
func (p desk) Refused(ctx context.Context, id string) (*public.Refusal, error) {
	r, err := p.d.refusedRecord(ctx, id)
	if err != nil {
		return nil, err
	}
	a, known, err := p.d.store.AppealOf(id)
	out := &public.Refusal{ID: id, Time: r.Start, Code: r.Verdict.Decisive().Code, Recipients: len(r.To)}
	if known {
		out.Appeal = a.State
	}
	return out, err
}

// Locked implements public.Desk.
func (p desk) Locked(_ context.Context, ticket string) (*public.Lock, error) {
	l, ok := p.d.locks.Ticket(ticket)
	if !ok {
		return nil, public.ErrOver
	}
	left, err := p.d.byLink(&l)
	if err != nil {
		return nil, err
	}
	out := &public.Lock{Ticket: l.Ticket, Whom: l.Name(), Code: pageOf(l.Code), Reason: l.Reason, Since: l.Since, Until: l.Until, Left: left}
	for i := range l.Evidence[:min(len(l.Evidence), 2*mostExamples)] {
		e := &l.Evidence[i]
		out.Examples = append(out.Examples, public.Example{Time: e.At, From: e.From, Code: e.Code})
	}
	return out, nil
}

// Unlock implements public.Desk.
func (p desk) Unlock(_ context.Context, ticket string, from netip.Addr) error {
	return p.d.unlockByLink(ticket, from)
}

// countVerdicts writes down, each minute, how many messages were stopped as bad: the figure beside which appeals stand.
func (d *daemon) countVerdicts(ctx context.Context) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		if n := d.tally.stopped.Swap(0); n > 0 {
			if err := d.store.CountVerdicts(time.Now(), n, 0); err != nil {
				d.tally.stopped.Add(n)
				d.log.Error("could not count what was stopped", "err", err)
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}
