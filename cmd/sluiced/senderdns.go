package main

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"

	"blitiri.com.ar/go/spf"
	"golang.org/x/net/publicsuffix"

	"sluice/cmd/internal/config"
	"sluice/cmd/internal/resolver"
	"sluice/proxy/pool"
)

// newAuthority asks the DNS where mail may leave from, for deliveries and for reports.
func newAuthority(r *resolver.Resolver) *pool.Authority {
	return pool.NewAuthority(
		func(ctx context.Context, q pool.SPFQuestion) (pool.Leave, bool) {
			// The local part matters to macros only, which nearly nobody uses; one answer holds for the whole domain.
			res, _ := spf.CheckHostWithSender(q.From.AsSlice(), q.Domain, "postmaster@"+q.Domain, spf.WithResolver(r), spf.WithContext(ctx))
			return leaveOf(res), res != spf.TempError
		},
		func(ctx context.Context, domain string) (pool.Exchangers, bool) {
			hosts, as, err := r.Exchangers(ctx, domain)
			return pool.Exchangers{Addrs: as, Provider: provider(hosts)}, err == nil
		})
}

// leaveOf sorts the results of RFC 7208 2.6.
func leaveOf(r spf.Result) pool.Leave {
	switch r {
	case spf.Pass:
		return pool.Allowed
	case spf.None:
		return pool.Unsaid
	case spf.Neutral:
		return pool.Tolerated
	}
	return pool.Forbidden
}

// provider is the domain to which the first of a domain's mail exchangers belongs.
func provider(hosts []string) string {
	if len(hosts) == 0 {
		return ""
	}
	host := strings.ToLower(strings.TrimSuffix(hosts[0], "."))
	if d, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
		return d
	}
	return host
}

// ourName tells whether a host name in small letters is one of the gateway's.
func (d *daemon) ourName(name string) bool {
	c := d.cfg.Load()
	if strings.EqualFold(c.Gateway.Name, name) || strings.EqualFold(c.Smarthost.Name, name) {
		return true
	}
	for i := range c.Delivery.Address {
		if strings.EqualFold(c.Delivery.Address[i].Helo, name) {
			return true
		}
	}
	return false
}

// dnsBackend asks the servers of the configuration, else those of /etc/resolv.conf.
func dnsBackend(c *config.DNS) resolver.Backend {
	r := &net.Resolver{PreferGo: true}
	if len(c.Servers) > 0 {
		var turn atomic.Uint32
		r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			to := netip.AddrPortFrom(c.Servers[int(turn.Add(1))%len(c.Servers)], 53)
			return new(net.Dialer).DialContext(ctx, network, to.String())
		}
	}
	return r
}
