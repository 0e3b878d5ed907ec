package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/cmd/internal/config"
	"sluice/cmd/internal/resolver"
	"sluice/filter/policy"
	"sluice/proxy/tlspolicy"
)

// onward says how the leg to destinations is protected: by the rules of the configuration, else by the user's setting.
type onward struct {
	finder *tlspolicy.Finder
	dns    *resolver.Secure
	roots  *x509.CertPool
	silent bool // nothing is looked up for reports
	rules  atomic.Pointer[onwardRules]
	asked  askedCounts

	mu       sync.Mutex
	verified map[verifiedKey]*verifiedTerms // of the setting "verified", by domain and server
}

// onwardRules are those of one configuration.
type onwardRules struct {
	domains map[string]*tlspolicy.Policy // ".example" holds for all below
	hosts   []hostRule
	nets    []netRule // longest prefix first
	servers atomic.Pointer[serverRules]
}

// serverRules are the rules of hosts by the addresses that were looked up last.
type serverRules map[netip.Addr]*hostRule

type hostRule struct {
	host   string
	policy *tlspolicy.Policy
}

type netRule struct {
	prefix netip.Prefix
	policy *tlspolicy.Policy
}

type verifiedKey struct {
	domain string
	server netip.Addr
}

type verifiedTerms struct {
	from   *tlspolicy.Domain // what the policy was made of
	policy *tlspolicy.Policy
}

const (
	hostsEvery   = 5 * time.Minute  // between two look-ups of the hosts of rules
	hostsWait    = 5 * time.Second  // for the first of them, before a configuration is in force
	savedEvery   = time.Minute      // between two writes of MTA-STS policies
	freshEvery   = time.Hour        // between two looks for those that have had half of their time
	termsWait    = 10 * time.Second // for the names of a domain's exchangers, where a setting depends on them
	mostVerified = 10_000
)

// required is the policy of the setting "required": one, so that sessions are seen to have the same.
var required = &tlspolicy.Policy{Level: tlspolicy.Encrypt, Source: tlspolicy.Setting, Why: "delivery.tls, or the user's own"}

// newOnward makes it all. Warn hears of what goes without.
func newOnward(cfg *config.Config, store tlspolicy.Store, warn func(error)) (*onward, error) {
	roots, err := trustedRoots(cfg.Delivery.TLSRoots)
	if err != nil {
		return nil, err
	}
	o := resolver.SecureOptions{Trust: map[string]resolver.Trust{"local": resolver.TrustLocal, "trust": resolver.TrustAll, "off": resolver.TrustNone}[cfg.DNS.DNSSEC]}
	for _, a := range cfg.DNS.Servers {
		o.Servers = append(o.Servers, netip.AddrPortFrom(a.Unmap(), 53))
	}
	on := &onward{dns: resolver.NewSecure(o), roots: roots, silent: !cfg.DNS.Report, verified: map[verifiedKey]*verifiedTerms{}}
	web := tlspolicy.NewWeb(tlspolicy.WebOptions{DNS: on.dns, Roots: roots})
	on.finder, err = tlspolicy.NewFinder(tlspolicy.Options{DNS: on.dns, Fetch: web, Roots: roots, Store: store})
	if err = errors.Join(err, on.configure(&cfg.Delivery)); err != nil {
		warn(err)
	}
	return on, nil
}

// trustedRoots reads the authorities of a file; nil are the system's.
func trustedRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("could not read delivery.tls_roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("could not use delivery.tls_roots: %s holds no certificate; give a PEM file", file)
	}
	return pool, nil
}

// configure takes the rules of a configuration. The error tells which of them hold for nothing yet, since their host could
// not be looked up.
func (o *onward) configure(d *config.Delivery) error {
	r := &onwardRules{domains: map[string]*tlspolicy.Policy{}}
	for _, p := range d.Protect {
		t := &tlspolicy.Policy{Source: tlspolicy.Setting, Why: p.Reason, Names: lowered(p.Names)}
		t.Level = map[string]tlspolicy.Level{"none": tlspolicy.None, "opportunistic": tlspolicy.May, "required": tlspolicy.Encrypt, "verified": tlspolicy.Verify}[p.Level]
		switch {
		case p.Domain != "":
			name := strings.ToLower(p.Domain)
			if bare := strings.TrimPrefix(name, "."); len(t.Names) == 0 {
				t.Names = []string{bare, "." + bare}
			}
			r.domains[name] = t
		case p.Host != "":
			host := strings.ToLower(p.Host)
			if t.SNI = host; len(t.Names) == 0 {
				t.Names = []string{host}
			}
			r.hosts = append(r.hosts, hostRule{host, t})
		default:
			r.nets = append(r.nets, netRule{p.Prefix.Prefix, t})
		}
	}
	slices.SortStableFunc(r.nets, func(x, y netRule) int { return y.prefix.Bits() - x.prefix.Bits() })
	var old *serverRules
	if before := o.rules.Load(); before != nil {
		old = before.servers.Load()
	}
	ctx, cancel := context.WithTimeout(context.Background(), hostsWait)
	defer cancel()
	err := o.lookUp(ctx, r, old)
	o.rules.Store(r)
	return err
}

func lowered(names []string) (out []string) {
	for _, n := range names {
		out = append(out, strings.ToLower(n))
	}
	return out
}

// Terms gives what holds for a mail.
func (o *onward) Terms(ctx context.Context, u *policy.Settings, target netip.AddrPort, domain string) (*tlspolicy.Policy, error) {
	if p, ok := o.rules.Load().find(target.Addr(), domain); ok {
		return p, nil
	}
	switch u.Onward {
	case policy.RequireTLS:
		return required, nil
	case policy.VerifyTLS:
		if domain == "" {
			return required, nil
		}
		return o.byExchangers(ctx, target.Addr(), domain)
	}
	return nil, nil
}

// find gives the rule for a destination.
func (r *onwardRules) find(server netip.Addr, domain string) (*tlspolicy.Policy, bool) {
	if len(r.domains) > 0 {
		domain = strings.ToLower(strings.TrimSuffix(domain, "."))
		if p, ok := r.domains[domain]; ok {
			return p, true
		}
		for rest := domain; ; {
			i := strings.IndexByte(rest, '.')
			if i < 0 {
				break
			}
			if p, ok := r.domains[rest[i:]]; ok {
				return p, true
			}
			rest = rest[i+1:]
		}
	}
	if servers := r.servers.Load(); servers != nil {
		if h, ok := (*servers)[server.Unmap()]; ok {
			return h.policy, true
		}
	}
	for i := range r.nets {
		if r.nets[i].prefix.Contains(server.Unmap()) {
			return r.nets[i].policy, true
		}
	}
	return nil, false
}

// byExchangers is the setting "verified": a trusted certificate for one of the domain's mail exchangers.
func (o *onward) byExchangers(ctx context.Context, server netip.Addr, domain string) (*tlspolicy.Policy, error) {
	ctx, cancel := context.WithTimeout(ctx, termsWait)
	defer cancel()
	d, err := o.finder.Domain(ctx, domain)
	if err != nil {
		return nil, err
	}
	k := verifiedKey{d.Name, server.Unmap()}
	o.mu.Lock()
	defer o.mu.Unlock()
	if t := o.verified[k]; t != nil && t.from == d {
		return t.policy, nil
	}
	p := &tlspolicy.Policy{Level: tlspolicy.Verify, Source: tlspolicy.Setting, Why: "delivery.tls, or the user's own"}
	for _, h := range d.Hosts {
		p.Names = append(p.Names, h.Host)
		if slices.Contains(h.Answer.Addrs, k.server) {
			p.SNI = h.Host
		}
	}
	if len(p.Names) == 0 {
		p.Bar = "the recipient's domain takes no mail"
	}
	if len(o.verified) >= mostVerified {
		clear(o.verified)
	}
	o.verified[k] = &verifiedTerms{d, p}
	return p, nil
}

// Proof gives what a server must show to prove that it is the domain's.
func (o *onward) Proof(ctx context.Context, target netip.AddrPort, domain string) (*tlspolicy.Policy, error) {
	ctx, cancel := context.WithTimeout(ctx, termsWait)
	defer cancel()
	return o.finder.Proof(ctx, domain, target.Addr())
}

// Judge compares a connection with what a domain asks for.
func (o *onward) Judge(domain string, server netip.Addr, leg *tlspolicy.Leg) (tlspolicy.Report, bool) {
	if o.silent {
		return tlspolicy.Report{}, false
	}
	return o.finder.Judge(domain, server, leg)
}
