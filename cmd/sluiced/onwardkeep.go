package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"sluice/proxy"
	"sluice/proxy/tlspolicy"
)

// lookUp finds the addresses of the hosts of rules. A host that cannot be looked up keeps those it had in old.
func (o *onward) lookUp(ctx context.Context, r *onwardRules, old *serverRules) error {
	all := serverRules{}
	var errs []error
	for i := range r.hosts {
		h := &r.hosts[i]
		a, err := o.dns.Look(ctx, h.host, tlspolicy.Addresses)
		if err != nil {
			errs = append(errs, fmt.Errorf("could not look up %s of delivery.protect, whose rule holds for the addresses known before: %w", h.host, err))
		}
		if err != nil && old != nil {
			for addr, was := range *old {
				if was.host == h.host {
					all[addr] = h
				}
			}
		}
		for _, addr := range a.Addrs {
			all[addr] = h
		}
	}
	r.servers.Store(&all)
	return errors.Join(errs...)
}

// keepOnward keeps what is known of destinations until ctx ends.
func (d *daemon) keepOnward(ctx context.Context) {
	fresh, save, hosts := time.NewTicker(freshEvery), time.NewTicker(savedEvery), time.NewTicker(hostsEvery)
	defer fresh.Stop()
	defer save.Stop()
	defer hosts.Stop()
	for {
		select {
		case <-ctx.Done():
			d.saveSTS()
			return
		case <-hosts.C:
			r := d.onward.rules.Load()
			if err := d.onward.lookUp(ctx, r, r.servers.Load()); err != nil && ctx.Err() == nil {
				d.log.Warn("a host was not found", "err", err)
			}
		case <-save.C:
			d.saveSTS()
		case <-fresh.C:
			d.onward.finder.Refresh(ctx)
		}
	}
}

func (d *daemon) saveSTS() {
	if d.retired() {
		return // it is the successor's file
	}
	if err := d.onward.finder.Save(); err != nil {
		d.log.Error("could not write down MTA-STS policies; they are fetched again after a restart", "err", err)
	}
}

// askedCounts counts messages by what their recipients' domains asked for, and whether they got it.
type askedCounts struct {
	dane, enforce, testing struct{ ok, failed atomic.Uint64 }
	unknown                atomic.Uint64
}

// note counts a message that went onward.
func (c *askedCounts) note(r *proxy.Record) {
	what := &c.dane
	switch r.Asks.Policy {
	case "dane":
	case "mta-sts enforce":
		what = &c.enforce
	case "mta-sts testing":
		what = &c.testing
	case "unknown":
		c.unknown.Add(1)
		return
	default:
		return
	}
	if r.Asks.Verdict() == "ok" {
		what.ok.Add(1)
	} else {
		what.failed.Add(1)
	}
}
