package delivery

import (
	"context"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"sluice/proxy/smtp"
	"sluice/proxy/spool"
	"sluice/proxy/tlspolicy"
)

// way is one address of one host to try.
type way struct {
	host   string
	target netip.AddrPort
	policy *tlspolicy.Policy
	proof  *tlspolicy.Policy // what shows that mail for the domain may go there (RFC 8689 4.2.1); nil: nothing does
	up     *Upstream
}

// route is where mail for a domain may go, the best first.
type route struct {
	site     string // what hosts share
	ways     []way
	hindered error // why there may be more ways; nil: there are none
}

// mostWays bounds the addresses that one try goes through.
const mostWays = 12

// nowhere is why there is no route, as an answer to every recipient.
type nowhere struct{ spool.Reply }

func (n *nowhere) Error() string { return n.Text }

func no(code int, enh smtp.Enhanced, format string, args ...any) error {
	return &nowhere{ours(code, enh, fmt.Sprintf(format, args...))}
}

// route finds where mail for a domain goes. The error is a *nowhere.
func (q *Queue) route(ctx context.Context, env *spool.Envelope, domain string) (*route, error) {
	if q.o.Upstream != nil {
		if up := q.o.Upstream(env.User, spool.Domain(env.From), domain); up != nil {
			return q.upstream(ctx, up)
		}
	}
	if lit, ok := strings.CutPrefix(domain, "["); ok {
		return q.literal(strings.TrimSuffix(lit, "]"))
	}
	d, err := q.o.Domains.Domain(ctx, domain)
	if err != nil {
		return nil, no(451, smtp.Enhanced{4, 4, 3}, "could not find the mail exchangers of %s: %v", domain, err)
	}
	if d.Null {
		return nil, no(556, smtp.Enhanced{5, 1, 10}, "%s takes no mail (RFC 7505)", domain)
	}
	return q.exchangers(d)
}

// exchangers makes a route of a domain's hosts (RFC 5321 5.1). Where the gateway itself is among them those that are no
// better are left out: mail would come back.
func (q *Queue) exchangers(d *tlspolicy.Domain) (*route, error) {
	r := &route{site: d.Name}
	hosts := slices.Clone(d.Hosts)
	for i, h := range hosts {
		if slices.ContainsFunc(h.Answer.Addrs, q.self) || strings.EqualFold(h.Host, q.o.Name) {
			first := slices.IndexFunc(hosts, func(o tlspolicy.Host) bool { return o.Preference == h.Preference })
			if hosts = hosts[:min(first, i)]; len(hosts) == 0 {
				return nil, no(554, smtp.Enhanced{5, 4, 6}, "mail for %s would come back to this gateway, which does not take it", d.Name)
			}
			break
		}
	}
	known := false
	for from := 0; from < len(hosts); {
		to := from + 1
		for to < len(hosts) && hosts[to].Preference == hosts[from].Preference {
			to++
		}
		for _, h := range q.shuffled(hosts[from:to]) {
			if h.Err != nil {
				r.hindered = h.Err
				continue
			}
			known = known || len(h.Answer.Addrs) > 0
			for _, a := range q.sorted(h.Answer.Addrs) {
				r.ways = append(r.ways, way{host: h.Host, target: netip.AddrPortFrom(a, q.o.Port), policy: h.Policy, proof: h.Proof})
			}
		}
		from = to
	}
	switch {
	case len(r.ways) > 0:
		r.site = strings.ToLower(d.Hosts[0].Host)
		r.ways = r.ways[:min(len(r.ways), mostWays)]
		return r, nil
	case r.hindered != nil:
		return nil, no(451, smtp.Enhanced{4, 4, 3}, "no exchanger of %s can be used now: %v", d.Name, r.hindered)
	case known:
		return nil, no(550, smtp.Enhanced{5, 4, 4}, "no exchanger of %s has an address on the internet", d.Name)
	}
	return nil, no(550, smtp.Enhanced{5, 1, 2}, "%s has neither a mail exchanger nor an address", d.Name)
}

// shuffled gives hosts of one preference in an order of chance (RFC 5321 5.1).
func (q *Queue) shuffled(hosts []tlspolicy.Host) []tlspolicy.Host {
	if len(hosts) > 1 {
		q.rand(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	}
	return hosts
}

// sorted gives addresses that can be connected to, the preferred family first.
func (q *Queue) sorted(addrs []netip.Addr) (out []netip.Addr) {
	for _, v4 := range []bool{q.set.Load().IPv4, !q.set.Load().IPv4} {
		for _, a := range addrs {
			if a = a.Unmap(); a.Is4() == v4 && !a.IsUnspecified() && !a.IsMulticast() {
				out = append(out, a)
			}
		}
	}
	return out
}

func (q *Queue) self(a netip.Addr) bool {
	return q.o.Self != nil && q.o.Self(a.Unmap())
}

// literal routes mail for an address literal (RFC 5321 4.1.3).
func (q *Queue) literal(text string) (*route, error) {
	a, err := netip.ParseAddr(strings.TrimPrefix(strings.TrimPrefix(text, "ipv6:"), "IPv6:"))
	switch {
	case err != nil || a.Zone() != "":
		return nil, no(553, smtp.Enhanced{5, 1, 3}, "[%s] is no address", text)
	case q.self(a):
		return nil, no(554, smtp.Enhanced{5, 4, 6}, "mail for [%s] would come back to this gateway", text)
	}
	return &route{site: a.String(), ways: []way{{host: "[" + a.String() + "]", target: netip.AddrPortFrom(a.Unmap(), q.o.Port)}}}, nil
}

// upstream routes mail to a relay.
func (q *Queue) upstream(ctx context.Context, up *Upstream) (*route, error) {
	addrs := []netip.Addr{}
	if a, err := netip.ParseAddr(up.Host); err == nil {
		addrs = append(addrs, a)
	} else if addrs, err = q.o.Domains.Addresses(ctx, up.Host); err != nil {
		return nil, no(451, smtp.Enhanced{4, 4, 3}, "could not find the address of the relay %s: %v", up.Host, err)
	}
	r := &route{site: fmt.Sprintf("%s:%d", strings.ToLower(up.Host), up.Port)}
	var proof *tlspolicy.Policy
	if up.Policy != nil && up.Policy.Level >= tlspolicy.Verify { // the operator names it, and no DNS
		proof = up.Policy
	}
	for _, a := range q.sorted(addrs) {
		r.ways = append(r.ways, way{host: up.Host, target: netip.AddrPortFrom(a, up.Port), policy: up.Policy, proof: proof, up: up})
	}
	if len(r.ways) == 0 {
		return nil, no(451, smtp.Enhanced{4, 4, 4}, "the relay %s has no address", up.Host)
	}
	return r, nil
}

// laneOf is the key of the lane for a delivery's domain.
func laneOf(domain string) string { return strings.ToLower(domain) }

// spread gives a number from 0 to 1 that is the same for the same delivery and try.
func spread(id spool.ID, tries int) float64 {
	h := fnv.New32a()
	fmt.Fprintf(h, "%d/%d", id, tries)
	return float64(h.Sum32()) / (1 << 32)
}
