package tlspolicy

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/idna"
)

// Host is one mail exchanger of a domain.
type Host struct {
	MX
	Answer Answer  // its addresses
	Policy *Policy // what a connection to it must be, where the domain's wish is followed; not nil unless Err is set
	Proof  *Policy // what it must be to prove that it may take the domain's mail; nil where nothing vouches for that
	Wish   *Policy // what MTA-STS asks for in testing mode: it is only told how that would end; else nil
	Err    error   // no mail may go there now: what DNSSEC vouches for could not be had (RFC 7672 2.1.1, 2.2)
}

// Domain is what a domain asks of those who send it mail. It is not changed once it is made.
type Domain struct {
	Name   string
	Secure bool   // DNSSEC vouches for the list of exchangers
	Null   bool   // it takes no mail (RFC 7505)
	Hosts  []Host // by preference
	STS    *Kept  // its MTA-STS policy in force; nil is none
	STSWhy string // why there is none, or not the newest; "" where none is announced or all is well
	Until  time.Time
}

// Options make a Finder.
type Options struct {
	DNS   DNS
	Fetch Fetcher
	Roots *x509.CertPool   // trusted for MTA-STS and settings; nil is the system's
	Now   func() time.Time // nil is time.Now
	Store Store            // keeps MTA-STS policies; may be nil
}

// Store keeps MTA-STS policies over a restart.
type Store interface {
	Load() ([]Kept, error)
	Save([]Kept) error
}

// Bounds of the Finder.
const (
	mostDomains = 20_000
	mostHosts   = 20               // exchangers of one domain that are looked at
	shortest    = time.Minute      // that an answer is remembered
	longest     = time.Hour        // as much
	afterError  = 30 * time.Second // before a question that got no answer is asked again
	patience    = 60 * time.Second // for everything about one domain
	atOnce      = 16               // domains looked up in the background
)

// Finder finds out what domains ask for, and remembers it. It is safe for concurrent use.
type Finder struct {
	o     Options
	book  *book
	slots chan struct{} // of the background
	names nameTable
	seen  judged

	mu      sync.Mutex
	domains map[string]*question
}

// question is one look-up; it is complete once done is closed.
type question struct {
	done  chan struct{}
	d     *Domain
	err   error
	until time.Time
}

// NewFinder returns a Finder that knows what the store has. The error is the store's; the Finder can be used all the same.
func NewFinder(o Options) (*Finder, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	f := &Finder{o: o, book: newBook(o.DNS, o.Fetch, o.Now), slots: make(chan struct{}, atOnce), domains: map[string]*question{}}
	if o.Store == nil {
		return f, nil
	}
	all, err := o.Store.Load()
	f.book.restore(all)
	return f, err
}

// Save writes the policies down where they changed.
func (f *Finder) Save() error {
	if f.o.Store == nil {
		return nil
	}
	all, changed := f.book.save()
	if !changed {
		return nil
	}
	err := f.o.Store.Save(all)
	if err != nil {
		f.book.mu.Lock()
		f.book.changed = true
		f.book.mu.Unlock()
	}
	return err
}

// Refresh fetches the policies again that have had half of their time, one by one, until ctx ends.
func (f *Finder) Refresh(ctx context.Context) {
	for _, d := range f.book.stale() {
		if ctx.Err() != nil {
			return
		}
		one, cancel := context.WithTimeout(ctx, patience)
		_, _, _ = f.book.policy(one, d) // what failed is in the book, and the old one stays
		cancel()
	}
}

// Domain tells what a domain asks for. It waits for the answer until ctx ends. The error says that it could not be found
// out: mail must wait.
func (f *Finder) Domain(ctx context.Context, name string) (*Domain, error) {
	name = canonical(name)
	if !hostName(name) {
		return nil, fmt.Errorf("%q is no domain on the internet", clean(name))
	}
	q, mine := f.ask(name)
	if mine {
		go f.answer(name, q)
	}
	select {
	case <-q.done:
		return q.d, q.err
	case <-ctx.Done():
		return nil, fmt.Errorf("could not find out in time how mail for %s is to be protected: %w", name, ctx.Err())
	}
}

// canonical is the form in which a domain is asked for; one that is not ASCII is encoded (RFC 5891).
func canonical(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if strings.IndexFunc(name, func(r rune) bool { return r > '~' }) >= 0 {
		if ascii, err := idna.Lookup.ToASCII(name); err == nil {
			return ascii
		}
	}
	return name
}

func (q *question) old(now time.Time) bool {
	select {
	case <-q.done:
		return now.After(q.until)
	default:
		return false
	}
}

// ask gives the question about a domain; mine tells that the caller has to answer it.
func (f *Finder) ask(name string) (q *question, mine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q = f.domains[name]; q != nil && !q.old(f.o.Now()) {
		return q, false
	}
	makeRoom(f.domains, mostDomains)
	q = &question{done: make(chan struct{})}
	f.domains[name] = q
	return q, true
}

// answer completes a question. Not in the context of whoever asked: others wait for the same answer.
func (f *Finder) answer(name string, q *question) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer close(q.done)
	q.err = errors.New("a mistake of ours in reading what the domain publishes")
	q.until = f.o.Now().Add(afterError)
	defer func() { _ = recover() }() // mail must not end with it
	d, err := f.find(ctx, name)
	if err != nil {
		q.err, q.until = err, f.o.Now().Add(afterError)
		return
	}
	f.names.learn(d, f.o.Now())
	q.d, q.err, q.until = d, nil, d.Until
}

// find asks for everything.
func (f *Finder) find(ctx context.Context, name string) (*Domain, error) {
	var sts sync.WaitGroup
	d := &Domain{Name: name}
	sts.Go(func() { f.sts(ctx, d) })
	err := f.exchangers(ctx, d)
	sts.Wait()
	if err != nil {
		return nil, err
	}
	for i := range d.Hosts {
		f.settle(d, &d.Hosts[i])
	}
	return d, nil
}

// sts finds the MTA-STS policy.
func (f *Finder) sts(ctx context.Context, d *Domain) {
	k, why, err := f.book.policy(ctx, d.Name)
	switch {
	case errors.Is(err, ErrNoSTS):
	case err != nil:
		d.STSWhy = clean(err.Error())
	default:
		d.STS, d.STSWhy = &k, clean(why)
	}
}

// exchangers finds the hosts with their TLSA records (RFC 7672 2.2).
func (f *Finder) exchangers(ctx context.Context, d *Domain) error {
	a, err := f.o.DNS.Look(ctx, d.Name, MXs)
	if err != nil {
		return fmt.Errorf("could not ask for the mail exchangers of %s: %w", d.Name, err)
	}
	d.Secure = a.Secure
	ttl := a.TTL
	mxs := slices.Clone(a.MX)
	if len(mxs) == 0 {
		mxs = []MX{{Host: d.Name}} // RFC 5321 5.1
	}
	if len(mxs) == 1 && mxs[0].Host == "" {
		d.Null = true
	}
	mxs = slices.DeleteFunc(mxs, func(m MX) bool { return m.Host == "" }) // beside others it means nothing (RFC 7505 3)
	slices.SortStableFunc(mxs, func(x, y MX) int { return int(x.Preference) - int(y.Preference) })
	d.Hosts = make([]Host, min(len(mxs), mostHosts))
	var hosts sync.WaitGroup
	ttls := make([]time.Duration, len(d.Hosts))
	for i := range d.Hosts {
		d.Hosts[i].MX = mxs[i]
		hosts.Go(func() { ttls[i] = f.host(ctx, d, &d.Hosts[i]) })
	}
	hosts.Wait()
	for _, t := range ttls {
		ttl = min(ttl, t)
	}
	d.Until = f.o.Now().Add(min(max(ttl, shortest), longest))
	return nil
}

// settle joins what DANE and MTA-STS say of a host. DANE goes first (RFC 8461 2): who publishes usable records is
// protected by them; MTA-STS does not lift what they ask for.
func (f *Finder) settle(d *Domain, h *Host) {
	if h.Err != nil {
		return
	}
	if h.Policy == nil {
		h.Policy = &Policy{SNI: h.Host, Why: "nothing is published"}
	}
	if h.Policy.Level == DANE {
		h.Proof = h.Policy
		return
	}
	if d.Secure {
		h.Proof = &Policy{Level: Verify, Source: Signed, Names: []string{h.Host}, SNI: h.Policy.SNI, Why: "DNSSEC vouches for its name"}
	}
	if d.STS == nil || d.STS.Mode == ModeNone {
		return
	}
	p := &Policy{Level: Verify, Source: MTASTS, Names: []string{h.Host}, SNI: h.Host,
		Why: fmt.Sprintf("MTA-STS policy %s of %s, mode %s", clean(d.STS.ID), d.Name, d.STS.Mode)}
	if !(&STS{MX: d.STS.MX}).Lists(h.Host) {
		p.Bar = fmt.Sprintf("the MTA-STS policy of %s does not list %s", d.Name, h.Host)
	}
	if d.STS.Mode == ModeEnforce {
		h.Policy, h.Proof = p, p
	} else {
		h.Wish = p
	}
}

// Proof tells what a connection to server must be to prove that the server may take a domain's mail (RFC 8689 4.2.1): by
// DANE, by MTA-STS, or by a trusted certificate for a name that DNSSEC vouches for. nil means that nothing of the kind is
// published, or that the server is none of the domain's. It waits for the answer until ctx ends; the error says that there
// was none.
func (f *Finder) Proof(ctx context.Context, domain string, server netip.Addr) (*Policy, error) {
	d, err := f.Domain(ctx, domain)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(d.Hosts, func(h Host) bool { return slices.Contains(h.Answer.Addrs, server.Unmap()) })
	if i < 0 {
		for _, h := range d.Hosts {
			err = errors.Join(err, h.Err)
		}
		return nil, err
	}
	return d.Hosts[i].Proof, d.Hosts[i].Err
}
