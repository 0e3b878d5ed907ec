package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/proxy/pool"
)

// Pools lists the pools with their addresses.
func (b backend) Pools(context.Context) ([]api.Pool, error) {
	b.d.usePools() // what is shown is in force
	ps := []api.Pool{}
	for _, def := range b.d.pools.conf.Load().defs {
		p := api.Pool{Name: def.Name, Own: def.Own, Users: def.Users, Senders: def.Senders, Addresses: []api.PoolAddress{},
			Class: map[pool.Class]string{pool.Bounce: "bounce", pool.Risk: "risk", pool.Forwarded: "forwarded"}[def.Class]}
		for _, a := range def.Addresses {
			p.Addresses = append(p.Addresses, b.poolAddress(a))
		}
		ps = append(ps, p)
	}
	return ps, nil
}

func (b backend) poolAddress(a pool.Address) api.PoolAddress {
	c, _ := b.d.pools.Get(a.IP)
	out := api.PoolAddress{Address: a.IP, Helo: a.Helo, Weight: max(a.Weight, 1), State: api.InUse, Why: c.Why(), Unsure: c.Unsure, Since: moment(c.Since), Checked: moment(c.Checked)}
	switch {
	case c.Out:
		out.State = api.Out
	case len(c.Faults) > 0:
		out.State = api.Failing
	}
	return out
}

// CheckPools checks all addresses, or one, and tells what holds then.
func (b backend) CheckPools(ctx context.Context, r api.PoolRequest) ([]api.PoolAddress, error) {
	if r.Address.IsValid() {
		if _, err := b.deliveryAddress(r.Address); err != nil {
			return nil, err
		}
	}
	if err := b.d.pools.check(ctx, r.Address); err != nil {
		return nil, err
	}
	b.d.usePools()
	out, seen := []api.PoolAddress{}, map[netip.Addr]bool{}
	for _, def := range b.d.pools.conf.Load().defs {
		for _, a := range def.Addresses {
			if !seen[a.IP] && (!r.Address.IsValid() || a.IP == r.Address.Unmap()) {
				out = append(out, b.poolAddress(a))
			}
			seen[a.IP] = true
		}
	}
	return out, nil
}

// deliveryAddress finds one of the addresses.
func (b backend) deliveryAddress(ip netip.Addr) (pool.Address, error) {
	for _, def := range b.d.pools.conf.Load().defs {
		if i := slices.IndexFunc(def.Addresses, func(a pool.Address) bool { return a.IP == ip.Unmap() }); i >= 0 {
			return def.Addresses[i], nil
		}
	}
	return pool.Address{}, &api.Problem{Status: http.StatusNotFound, Code: "no-such-address", What: fmt.Sprintf("%v is no delivery address", ip), Remedy: "`sluice pool list` shows them"}
}

// SuspendAddress takes an address out until it is resumed, whatever is left of its pools: a person says so.
func (b backend) SuspendAddress(_ context.Context, who string, r api.PoolRequest) (*api.PoolAddress, error) {
	return b.changeAddress(who, "delivery address suspended", r, func() { b.d.pools.Suspend(r.Address, who, r.Reason, time.Now()) })
}

// ResumeAddress gives an address back to the gate.
func (b backend) ResumeAddress(_ context.Context, who string, r api.PoolRequest) (*api.PoolAddress, error) {
	return b.changeAddress(who, "delivery address resumed", r, func() { b.d.pools.Resume(r.Address, time.Now()) })
}

func (b backend) changeAddress(who, what string, r api.PoolRequest, do func()) (*api.PoolAddress, error) {
	a, err := b.deliveryAddress(r.Address)
	if err != nil {
		return nil, err
	}
	do()
	b.d.usePools()
	if err := b.d.pools.save(); err != nil {
		return nil, fmt.Errorf("%s, but a restart would forget it: %w", what, err)
	}
	if err := b.d.store.Audit(store.Act{At: time.Now(), Who: who, What: what, Subject: a.IP.String(), Detail: r.Reason}); err != nil {
		return nil, err
	}
	p := b.poolAddress(a)
	return &p, nil
}

// Relays lists the destinations that were learnt to be relays.
func (b backend) Relays(context.Context) ([]api.Relay, error) {
	rs := []api.Relay{}
	for _, r := range b.d.authority.Relays(time.Now()) {
		rs = append(rs, api.Relay{Address: r.To, Mails: r.Mails, Last: r.Last, Domain: r.Domain})
	}
	slices.SortFunc(rs, func(x, y api.Relay) int { return y.Last.Compare(x.Last) })
	return rs, nil
}

// poolFinding tells of addresses that are out or failing.
func (b backend) poolFinding() []api.Finding {
	var fs []api.Finding
	n := 0
	for _, c := range b.d.pools.List() {
		n++
		switch {
		case c.Out && c.Held != "":
			fs = append(fs, finding("delivery address "+c.IP.String(), true, api.Warn, "is not used: "+c.Why(), "sluice pool resume "+c.IP.String()))
		case c.Out:
			fs = append(fs, finding("delivery address "+c.IP.String(), true, api.Fail, "is not used: "+c.Why(), "it is used again by itself once it is good; sluice pool check "+c.IP.String()))
		case c.Kept:
			fs = append(fs, finding("delivery address "+c.IP.String(), true, api.Fail, "is used though it should not be, since too few others would be left: "+c.Why(), "mend it; then sluice pool check "+c.IP.String()))
		case c.Unsure != "":
			fs = append(fs, finding("delivery address "+c.IP.String(), true, api.Warn, "not everything is known of it: "+c.Unsure, "sluice pool check "+c.IP.String()))
		}
	}
	if len(fs) == 0 && n > 0 {
		return []api.Finding{{Check: "pools", State: api.OK, Text: fmt.Sprintf("%d delivery addresses in use", n)}}
	}
	return fs
}
