package tlspolicy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Kept is one MTA-STS policy as it is remembered, and as it stands on disk.
type Kept struct {
	Domain  string    `json:"domain"`
	ID      string    `json:"id"`
	Mode    Mode      `json:"mode"`
	MX      []string  `json:"mx,omitempty"`
	Fetched time.Time `json:"fetched"`
	Until   time.Time `json:"until"` // RFC 8461 3.2: it counts until then, whatever cannot be fetched meanwhile
}

// Bounds of the book.
const (
	mostKept    = 20_000
	refetch     = 5 * time.Minute // between two fetches of one domain's policy, at least (RFC 8461 3.3)
	mostRefetch = 24 * time.Hour  // between two attempts while it fails, at most
)

// book remembers MTA-STS policies. It is safe for concurrent use.
type book struct {
	dns   DNS
	fetch Fetcher
	now   func() time.Time

	mu      sync.Mutex
	kept    map[string]Kept
	tries   map[string]try // of domains whose policy could not be fetched
	changed bool           // since the last save
}

// try is how the last attempts to fetch a policy went.
type try struct {
	next time.Time // not before
	n    int
	why  string
}

func newBook(dns DNS, fetch Fetcher, now func() time.Time) *book {
	return &book{dns: dns, fetch: fetch, now: now, kept: map[string]Kept{}, tries: map[string]try{}}
}

// policy returns the domain's policy that is in force, or why there is none; ErrNoSTS where none is announced. With a
// policy, why tells what is wrong with its successor, "" for nothing.
func (b *book) policy(ctx context.Context, domain string) (k Kept, why string, err error) {
	id, err := b.announced(ctx, domain)
	now := b.now()
	b.mu.Lock()
	old, known := b.kept[domain]
	t := b.tries[domain]
	b.mu.Unlock()
	known = known && now.Before(old.Until)
	if err != nil {
		if known { // RFC 8461 5.1: a policy that is kept counts also while the record is away
			return old, err.Error(), nil
		}
		return Kept{}, "", err
	}
	fresh := known && old.ID == id && now.Before(old.Fetched.Add(old.Until.Sub(old.Fetched)/2))
	if fresh {
		return old, "", nil
	}
	if now.Before(t.next) {
		return b.instead(old, known, errors.New(t.why))
	}
	got, err := b.get(ctx, domain, id, now)
	if err != nil {
		b.failed(domain, t, err, now)
		return b.instead(old, known, err)
	}
	b.put(got)
	return got, "", nil
}

// instead gives the policy that stays in force where a newer one cannot be had.
func (b *book) instead(old Kept, known bool, err error) (Kept, string, error) {
	if known {
		return old, err.Error(), nil
	}
	return Kept{}, "", err
}

// announced gives the id in the domain's record.
func (b *book) announced(ctx context.Context, domain string) (string, error) {
	a, err := b.dns.Look(ctx, "_mta-sts."+domain, Texts)
	if err != nil {
		return "", fmt.Errorf("could not ask for the MTA-STS record: %w", err)
	}
	return ParseSTSRecord(a.Texts)
}

// get fetches the policy.
func (b *book) get(ctx context.Context, domain, id string, now time.Time) (Kept, error) {
	file, err := b.fetch.Fetch(ctx, domain)
	if err != nil {
		return Kept{}, fmt.Errorf("could not fetch the MTA-STS policy: %w", err)
	}
	p, err := ParseSTS(file)
	if err != nil {
		return Kept{}, fmt.Errorf("could not read the MTA-STS policy: %w", err)
	}
	return Kept{Domain: domain, ID: id, Mode: p.Mode, MX: p.MX, Fetched: now, Until: now.Add(max(p.MaxAge, refetch))}, nil
}

// failed has the next attempt wait, longer each time.
func (b *book) failed(domain string, t try, err error, now time.Time) {
	wait := min(refetch<<min(t.n, 16), mostRefetch)
	b.mu.Lock()
	defer b.mu.Unlock()
	makeRoom(b.tries, mostKept)
	b.tries[domain] = try{next: now.Add(wait), n: t.n + 1, why: err.Error()}
}

func (b *book) put(k Kept) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.tries, k.Domain)
	if _, there := b.kept[k.Domain]; !there {
		makeRoom(b.kept, mostKept)
	}
	b.kept[k.Domain] = k
	b.changed = true
}

// restore takes policies from disk; what is too old or makes no sense is left out.
func (b *book) restore(all []Kept) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range all {
		if len(b.kept) < mostKept && hostName(k.Domain) && now.Before(k.Until) && k.Until.Sub(now) <= mostAge {
			b.kept[k.Domain] = k
		}
	}
}

// save gives what is to be written down, in order, where it changed since it was last asked for.
func (b *book) save() (all []Kept, changed bool) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.changed {
		return nil, false
	}
	b.changed = false
	for d, k := range b.kept {
		if now.After(k.Until) {
			delete(b.kept, d)
			continue
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(x, y Kept) int { return strings.Compare(x.Domain, y.Domain) })
	return all, true
}

// stale lists the domains whose policy has had half of its time, for a refresh before it ends (RFC 8461 3.3).
func (b *book) stale() (domains []string) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for d, k := range b.kept {
		if now.After(k.Fetched.Add(k.Until.Sub(k.Fetched)/2)) && now.Before(k.Until) && !now.Before(b.tries[d].next) {
			domains = append(domains, d)
		}
	}
	return domains
}

// makeRoom drops an eighth of a map that is full; map order is as good as random.
func makeRoom[K comparable, V any](m map[K]V, most int) {
	if len(m) < most {
		return
	}
	for k := range m {
		delete(m, k)
		if len(m) < most-most/8 {
			return
		}
	}
}
