package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/msglog"
	"sluice/proxy/pool"
)

const (
	gateWindow   = 24 * time.Hour
	gatePatience = 10 * time.Second // for the DNS; what comes later is there for the next report
	mostAsked    = 2000             // domains that one report asks the DNS about, those with the most messages first
)

// Gate gives the figures of the roll-out for all users, one, or a prefix.
func (b backend) Gate(ctx context.Context, q api.GateQuery) (*api.Gate, error) {
	return b.d.gateFigures(ctx, q)
}

// gateFigures reads the log from q.Since on. It may take seconds: the log is long, and the DNS is asked.
func (d *daemon) gateFigures(ctx context.Context, q api.GateQuery) (*api.Gate, error) {
	now := time.Now()
	g := &api.Gate{Scope: "all", Since: q.Since, Until: now, Whole: true}
	if g.Since.IsZero() {
		g.Since = now.Add(-gateWindow)
	}
	find := msglog.Query{From: g.Since, Client: q.Prefix}
	switch {
	case q.User != "":
		m, err := backend{d}.find(q.User)
		if err != nil {
			return nil, err
		}
		find.User, g.Scope = m.ID, m.Name
	case q.Prefix.IsValid():
		g.Scope = q.Prefix.String()
	}
	select {
	case d.reporting <- struct{}{}:
		defer func() { <-d.reporting }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	f := newFigures(settingsOf{d.policy}, gate{sources: d.sources}.source, d.managedAddresses())
	if err := d.messages.Each(ctx, find, f.add); err != nil && ctx.Err() != nil {
		return nil, err
	} else if err != nil {
		d.log.Warn("parts of the message log could not be read for a report", "err", err)
	}
	if f.read >= mostRecords {
		g.Whole, g.Since = false, f.first
	}
	wait, cancel := context.WithTimeout(ctx, gatePatience)
	defer cancel()
	f.report(g, answers(wait, d.authority, f))
	if o := d.observer(); g.Flows == 0 && o.Wanted && !o.Present {
		g.Lines[0].Text += ", and sluice-observe does not report"
		g.Lines[0].Remedy = "systemctl enable --now sluice-observe"
	}
	return g, nil
}

// managedAddresses are the delivery addresses that mail may leave from.
func (d *daemon) managedAddresses() (as []netip.Addr) {
	for _, a := range d.cfg.Load().Delivery.Address {
		if a.Weight > 0 {
			as = append(as, a.Address)
		}
	}
	return as
}

// dnsAnswers is what the DNS said about the mail in figures.
type dnsAnswers struct {
	spf        map[pool.SPFQuestion]pool.Leave
	exchangers map[string]pool.Exchangers
}

// answers asks about everything at once, and returns what is known when ctx ends.
func answers(ctx context.Context, a *pool.Authority, f *figures) dnsAnswers {
	spfs, domains := newTop[pool.SPFQuestion](), newTop[string]()
	for i := range f.mails {
		m := &f.mails[i]
		for _, q := range m.spfQuestions(f.managed) {
			spfs.add(q, 1)
		}
		for _, d := range m.domains {
			domains.add(d, 1)
		}
	}
	done := make(chan map[pool.SPFQuestion]pool.Leave, 1)
	go func() { done <- a.SPF.Answers(ctx, spfs.keys(mostAsked)) }()
	mx := a.Exchangers.Answers(ctx, domains.keys(mostAsked))
	return dnsAnswers{<-done, mx}
}

// spfQuestions are what tells whether a message would lose by leaving from a delivery address: SPF of the customer's own
// address, and of each delivery address of the family. None where that does not depend on SPF.
func (m *mailSeen) spfQuestions(managed []netip.Addr) (qs []pool.SPFQuestion) {
	if m.sender == "" {
		return nil
	}
	for _, a := range managed {
		if a.Is4() == m.target.Is4() {
			qs = append(qs, pool.SPFQuestion{Domain: m.sender, From: a})
		}
	}
	if len(qs) > 0 {
		qs = append(qs, pool.SPFQuestion{Domain: m.sender, From: m.client})
	}
	return qs
}

// loses tells whether SPF passes from the customer's address and forbids a delivery address; known is false while the
// DNS has not said enough.
func (a *dnsAnswers) loses(m *mailSeen, managed []netip.Addr) (loses, known bool) {
	known = true
	own := false
	for _, q := range m.spfQuestions(managed) {
		r, ok := a.spf[q]
		switch {
		case !ok:
			known = false
		case q.From == m.client:
			own = r == pool.Allowed
			if !own {
				return false, true // nothing to lose
			}
		case !r.OK():
			loses = true
		}
	}
	return loses && own && known, known
}

// relayed tells whether a message went to a host that does not take mail for its recipients' domains, as a smart host or
// a connector does.
func (a *dnsAnswers) relayed(m *mailSeen) (relayed, known bool) {
	known = len(m.domains) > 0
	for _, d := range m.domains {
		as, ok := a.exchangers[d]
		switch {
		case !ok:
			known = false
		case as.Has(m.target) || as.Near(m.target):
			return false, true // one of the domains is at home there
		}
	}
	return known, known
}

func share(n, of int) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}

// percent tells a share without calling a few nobody.
func percent(n, of int) string {
	p := 100 * share(n, of)
	switch {
	case n > 0 && p < 0.1:
		return "< 0.1 %"
	case p < 10:
		return fmt.Sprintf("%.1f %%", p)
	}
	return fmt.Sprintf("%.0f %%", p)
}
