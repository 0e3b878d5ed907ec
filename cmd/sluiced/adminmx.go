package main

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/cmd/internal/resolver"
	"sluice/intercept/control"
)

// adminEvery is how often the exchangers of the administrator's mailbox are looked at again; answers are remembered by
// the resolver.
const adminEvery = time.Minute

// adminDoor keeps the way to the administrator's mailbox open for locked users (INT6): their connections to its exchangers
// reach the proxy, past the budget of explained ones, and there only that mailbox is open (LCK3).
type adminDoor struct {
	ask  func(ctx context.Context, domain string) ([]netip.Addr, error)
	wake chan struct{}
	told *control.Client // who was told last; only keepAdmin uses it and open
	open []netip.Addr
}

func newAdminDoor(r *resolver.Resolver) *adminDoor {
	return &adminDoor{ask: func(ctx context.Context, domain string) ([]netip.Addr, error) {
		_, as, err := r.Exchangers(ctx, domain)
		return as, err
	}, wake: make(chan struct{}, 1)}
}

// look has the door looked at now: the helper is new, or the configuration.
func (a *adminDoor) look() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// keepAdmin tells the kernel the exchangers whenever they, or the helper, are others than before. While the DNS does not
// answer, those known stay.
func (d *daemon) keepAdmin(ctx context.Context) {
	t := time.NewTicker(adminEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-d.admin.wake:
		case <-ctx.Done():
			return
		}
		if err := d.openAdmin(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("could not keep the way to the administrator's mailbox open for locked users; it is tried again", "err", err)
		}
	}
}

func (d *daemon) openAdmin(ctx context.Context) error {
	c := d.link.client.Load()
	if c == nil {
		return nil // look is called when it is there
	}
	var addrs []netip.Addr
	if _, domain, ok := strings.Cut(d.cfg.Load().Gateway.AdminAddress, "@"); ok {
		found, err := d.admin.ask(ctx, domain)
		if err != nil {
			return err
		}
		addrs = found
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	addrs = addrs[:min(len(addrs), control.MaxLockExempt)]
	if c == d.admin.told && slices.Equal(addrs, d.admin.open) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, helperPatience)
	defer cancel()
	if err := c.SetLockExempt(ctx, addrs); err != nil {
		return err
	}
	d.admin.told, d.admin.open = c, addrs
	return nil
}
