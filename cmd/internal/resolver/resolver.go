// Package resolver asks the DNS with strict time-outs, and remembers the answers for a while.
package resolver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/idna"
)

// Backend asks the DNS; *net.Resolver is one.
type Backend interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

// Options of a Resolver. The zero value asks the servers of /etc/resolv.conf.
type Options struct {
	Backend Backend
	Timeout time.Duration // of one question; 0 means 5 s
	Keep    time.Duration // how long an answer, or that there is none, is remembered; 0 means 10 minutes
	Most    int           // answers remembered; 0 means 20,000
}

// failedKeep is how long a question that got no answer is not asked again.
const failedKeep = 30 * time.Second

// Resolver is a Backend that remembers. Several callers with one question share its answer. Safe for concurrent use.
type Resolver struct {
	o     Options
	mu    sync.Mutex
	known map[question]*answer
}

type question struct{ kind, name string }

// answer is complete once done is closed.
type answer struct {
	done  chan struct{}
	value any
	err   error
	until time.Time
}

// New returns a resolver that knows nothing yet.
func New(o Options) *Resolver {
	if o.Backend == nil {
		o.Backend = &net.Resolver{PreferGo: true}
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Keep <= 0 {
		o.Keep = 10 * time.Minute
	}
	if o.Most <= 0 {
		o.Most = 20_000
	}
	return &Resolver{o: o, known: map[question]*answer{}}
}

// LookupTXT returns the texts of a name.
func (r *Resolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return ask(ctx, r, "TXT", rooted(name), r.o.Backend.LookupTXT)
}

// LookupMX returns the mail exchangers of a domain.
func (r *Resolver) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return ask(ctx, r, "MX", rooted(name), r.o.Backend.LookupMX)
}

// LookupIPAddr returns the addresses of a host, both families.
func (r *Resolver) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	return ask(ctx, r, "ADDR", rooted(host), r.o.Backend.LookupIPAddr)
}

// Remembered tells whether a host has an address, by what was answered lately. It asks nobody and does not wait.
func (r *Resolver) Remembered(host string) (has, known bool) {
	r.mu.Lock()
	a := r.known[question{"ADDR", rooted(host)}]
	r.mu.Unlock()
	if a == nil || a.old() {
		return false, false
	}
	select {
	case <-a.done:
		return a.err == nil, a.err == nil || NotFound(a.err)
	default:
		return false, false
	}
}

// LookupA returns the IPv4 addresses of a name, of which nothing else is asked: so lists are asked (RFC 5782).
func (r *Resolver) LookupA(ctx context.Context, name string) ([]netip.Addr, error) {
	return ask(ctx, r, "A", rooted(name), r.fourth)
}

// fourth asks for the A records alone where the backend can.
func (r *Resolver) fourth(ctx context.Context, name string) ([]netip.Addr, error) {
	if b, ok := r.o.Backend.(interface {
		LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	}); ok {
		return b.LookupNetIP(ctx, "ip4", name)
	}
	all, err := r.o.Backend.LookupIPAddr(ctx, name)
	var as []netip.Addr
	for _, a := range all {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap().Is4() {
			as = append(as, ip.Unmap())
		}
	}
	return as, err
}

// Fresh is a resolver that remembers nothing.
type Fresh struct{ Resolver *net.Resolver }

// LookupA is that of Resolver.
func (f Fresh) LookupA(ctx context.Context, name string) ([]netip.Addr, error) {
	return f.Resolver.LookupNetIP(ctx, "ip4", rooted(name))
}

// LookupAddr returns the names of an address.
func (r *Resolver) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return ask(ctx, r, "PTR", addr, r.o.Backend.LookupAddr)
}

// Exchangers returns the addresses that take mail for a domain: those of its mail exchangers, else its own (RFC 5321
// 5.1), or the one that an address literal names, with the names of those hosts. A domain that takes no mail has none,
// which is no error.
func (r *Resolver) Exchangers(ctx context.Context, domain string) (hosts []string, addrs []netip.Addr, err error) {
	if l, ok := strings.CutPrefix(domain, "["); ok {
		a, err := netip.ParseAddr(strings.TrimPrefix(strings.TrimSuffix(l, "]"), "IPv6:"))
		if err != nil {
			return nil, nil, nil
		}
		return nil, []netip.Addr{a}, nil
	}
	domain, err = idna.Lookup.ToASCII(domain)
	if err != nil {
		return nil, nil, nil // no host has such a name
	}
	mxs, err := r.LookupMX(ctx, domain)
	if err != nil && !NotFound(err) {
		return nil, nil, err
	}
	hosts = []string{domain}
	if len(mxs) > 0 {
		hosts = hosts[:0]
		for _, mx := range mxs {
			hosts = append(hosts, mx.Host)
		}
	}
	addrs, err = r.addresses(ctx, hosts)
	return hosts, addrs, err
}

// addresses returns the addresses of all hosts; a host that has none is passed over.
func (r *Resolver) addresses(ctx context.Context, hosts []string) (all []netip.Addr, err error) {
	for _, h := range hosts {
		if strings.Trim(h, ".") == "" {
			continue // "." says that there is no mail here (RFC 7505)
		}
		as, err := r.LookupIPAddr(ctx, h)
		if err != nil && !NotFound(err) {
			return nil, err
		}
		for _, a := range as {
			if ip, ok := netip.AddrFromSlice(a.IP); ok {
				all = append(all, ip.Unmap())
			}
		}
	}
	return all, nil
}

// NotFound reports whether err says that the DNS has no such record, rather than that it could not be asked.
func NotFound(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}

// rooted keeps the search list of /etc/resolv.conf out of it.
func rooted(name string) string {
	name = strings.ToLower(name)
	if strings.HasSuffix(name, ".") {
		return name
	}
	return name + "."
}

// ask returns what is known, or asks once for all who want to know.
func ask[T any](ctx context.Context, r *Resolver, kind, name string, lookup func(context.Context, string) (T, error)) (none T, err error) {
	q := question{kind, name}
	r.mu.Lock()
	a, ok := r.known[q]
	if ok && a.old() {
		ok = false
	}
	if !ok {
		a = &answer{done: make(chan struct{})}
		r.makeRoom()
		r.known[q] = a
	}
	r.mu.Unlock()
	if !ok {
		go func() {
			// Not the caller's context: others wait for the same answer.
			ctx, cancel := context.WithTimeout(context.Background(), r.o.Timeout)
			defer cancel()
			a.value, a.err = lookup(ctx, name)
			a.until = time.Now().Add(r.o.Keep)
			if a.err != nil && !NotFound(a.err) {
				a.until = time.Now().Add(failedKeep)
			}
			close(a.done)
		}()
	}
	select {
	case <-a.done:
		v, _ := a.value.(T)
		return v, a.err
	case <-ctx.Done():
		return none, &net.DNSError{Err: "no answer in time", Name: name, IsTimeout: true, IsTemporary: true}
	}
}

// old reports whether an answer has been remembered for long enough.
func (a *answer) old() bool {
	select {
	case <-a.done:
		return time.Now().After(a.until)
	default:
		return false
	}
}

// makeRoom forgets what is old and, where that is not enough, whatever comes first. r.mu is held.
func (r *Resolver) makeRoom() {
	if len(r.known) < r.o.Most {
		return
	}
	for q, a := range r.known {
		if a.old() {
			delete(r.known, q)
		}
	}
	for q := range r.known {
		if len(r.known) < r.o.Most-r.o.Most/8 {
			return
		}
		delete(r.known, q)
	}
}
