package pool

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Leave is what SPF says of mail of a domain that leaves from an address (RFC 7208 2.6), the better the higher.
type Leave uint8

// The results, as far as they make a difference here.
const (
	Forbidden Leave = iota // fail, softfail, permerror
	Unasked                // not known yet
	Tolerated              // neutral
	Unsaid                 // none: the domain says nothing of any address
	Allowed                // pass
)

// OK tells whether nothing forbids the address.
func (l Leave) OK() bool { return l >= Tolerated }

// String returns the result's name.
func (l Leave) String() string {
	return [...]string{"fail", "unknown", "neutral", "none", "pass"}[min(l, Allowed)]
}

// SPFQuestion is one evaluation: what does the domain say of mail from this address?
type SPFQuestion struct {
	Domain string // in lower case
	From   netip.Addr
}

// Exchangers are the hosts that take mail for a domain.
type Exchangers struct {
	Addrs    []netip.Addr
	Provider string // the domain that their names have in common, "" where there is none
}

// Authority tells what the DNS says about where mail may leave from (DIP7, DIP9), and remembers it. It is safe for
// concurrent use.
type Authority struct {
	SPF        *Lookups[SPFQuestion, Leave]
	Exchangers *Lookups[string, Exchangers] // by domain, in lower case
	Wait       time.Duration                // for answers while a client waits; 2 s
	Ledger     Ledger                       // what left from where

	mu      sync.Mutex
	targets map[netip.Addr]*target
	counts  [whys]atomic.Uint64
}

// target is what was learnt of a destination.
type target struct {
	exchanger, relay time.Time // when it last was one, of the domain it was asked about
	relayed          int       // mails
	domain           string    // for which it was a relay last
}

const (
	targetsRoom = 1 << 16
	// targetLife is how long a destination is taken for what it last was.
	targetLife     = 24 * time.Hour
	authorityWait  = 2 * time.Second
	exchangersKeep = 10 * time.Minute // before a domain's exchangers are asked for again
	mostExchangers = 256              // addresses of a domain
)

// NewAuthority returns an Authority that asks by the two functions; each tells whether there was an answer.
func NewAuthority(spf func(context.Context, SPFQuestion) (Leave, bool), exchangers func(context.Context, string) (Exchangers, bool)) *Authority {
	a := &Authority{SPF: NewLookups(spf), Wait: authorityWait, targets: map[netip.Addr]*target{}}
	a.Exchangers = NewLookups(func(ctx context.Context, domain string) (Exchangers, bool) {
		x, known := exchangers(ctx, domain)
		if known {
			x.join(a.Exchangers.last(domain).Addrs)
		}
		return x, known
	})
	a.Exchangers.keep = exchangersKeep
	return a
}

// join adds addresses that were there before: large receivers answer with a few of many, and with others the next minute.
func (x *Exchangers) join(before []netip.Addr) {
	for _, a := range before {
		if len(x.Addrs) >= mostExchangers {
			return
		}
		if !x.Has(a) {
			x.Addrs = append(x.Addrs, a)
		}
	}
}

// Has tells whether an address is one of the exchangers'.
func (x *Exchangers) Has(to netip.Addr) bool {
	for _, a := range x.Addrs {
		if a == to {
			return true
		}
	}
	return false
}

// Near tells whether an address is close to one of the exchangers', and so probably one that the DNS names at other times.
func (x *Exchangers) Near(to netip.Addr) bool {
	bits := 48
	if to.Is4() {
		bits = 24
	}
	near, err := to.Prefix(bits)
	if err != nil {
		return false
	}
	for _, a := range x.Addrs {
		if near.Contains(a) {
			return true
		}
	}
	return false
}

// Seen tells what a destination was in the last 24 hours: an exchanger of some recipient's domain, a relay that takes mail
// for domains of others, or both.
func (a *Authority) Seen(to netip.Addr, now time.Time) (exchanger, relay bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.targets[to]
	if t == nil {
		return false, false
	}
	return now.Sub(t.exchanger) < targetLife, now.Sub(t.relay) < targetLife
}

// learn notes what a destination was for a domain.
func (a *Authority) learn(to netip.Addr, domain string, takes bool, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.targets[to]
	if t == nil {
		if len(a.targets) >= targetsRoom {
			makeRoom(a.targets, targetsRoom, func(t *target) bool { return now.Sub(t.exchanger) >= targetLife && now.Sub(t.relay) >= targetLife })
		}
		t = &target{}
		a.targets[to] = t
	}
	if takes {
		t.exchanger = now
		return
	}
	t.relay, t.domain = now, domain
	t.relayed++
}

// Relay is a destination that takes mail for domains of others.
type Relay struct {
	To     netip.Addr
	Mails  int
	Last   time.Time
	Domain string // of the last recipient
}

// Relays lists the destinations that were learnt as relays in the last 24 hours.
func (a *Authority) Relays(now time.Time) (all []Relay) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for to, t := range a.targets {
		if now.Sub(t.relay) < targetLife {
			all = append(all, Relay{to, t.relayed, t.relay, t.domain})
		}
	}
	return all
}

// Counts tells how many mails left as they did for each reason, by its short name.
func (a *Authority) Counts() map[string]uint64 {
	m := map[string]uint64{}
	for w := Exchanger; w < whys; w++ {
		m[w.Name()] = a.counts[w].Load()
	}
	return m
}

// Fits tells whether a mail may leave from an address that was not chosen for it: it may send to that provider now, and SPF
// is known not to forbid it or, unless must says that it has to be known, is not known.
func (a *Authority) Fits(k Key, from netip.Addr, must bool, now time.Time) bool {
	if a == nil {
		return true
	}
	if a.Ledger.Bounds() && !a.Ledger.May(from, a.provider(k.Recipient, now), now) {
		return false
	}
	if k.Sender == "" {
		return true
	}
	l := a.leave(strings.ToLower(k.Sender), from, now)
	return l.OK() || l == Unasked && !must
}

// Sent counts a message that left from one of our addresses for recipients of a domain.
func (a *Authority) Sent(from netip.Addr, domain string, now time.Time) {
	if a != nil && a.Ledger.Bounds() {
		a.Ledger.Sent(from, a.provider(domain, now), now)
	}
}

// provider is who takes the mail of a domain, as far as that is known.
func (a *Authority) provider(domain string, now time.Time) string {
	domain = strings.ToLower(domain)
	if x, known := a.Exchangers.Peek(domain, now); known && x.Provider != "" {
		return x.Provider
	}
	return domain
}

// Expect begins to find out what will be asked about a sender's mail to a destination.
func (a *Authority) Expect(p *Pool, sender string, to netip.Addr, now time.Time) {
	if a == nil || sender == "" {
		return
	}
	set, domain := p.family(to), strings.ToLower(sender)
	for i := range set[:min(len(set), mostExpected)] {
		if l, known := a.SPF.Peek(SPFQuestion{domain, set[i].IP}, now); known && i == 0 && l != Tolerated && l != Forbidden {
			return // decided, as nearly always
		}
	}
}

// mostExpected is how many addresses SPF is asked about at most before it is known which will do.
const mostExpected = 32
