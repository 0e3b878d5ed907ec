package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The rules of the guard (AUT6). A mail program that keeps sending one outdated password is no guesser: the same wrong
// pair counts once.
const (
	guessTime  = 30 * time.Minute // a wrong pair counts that long
	slowAfter  = 2                // different wrong pairs; each further one doubles the wait
	slowFirst  = time.Second
	slowMost   = 16 * time.Second
	shutAfter  = 10 // different wrong pairs, unless set
	shutFirst  = time.Hour
	shutMost   = 24 * time.Hour
	goodLogins = 5                  // and an address counts as a customer's
	goodMemory = 7 * 24 * time.Hour // since the last of them
	placesRoom = 1 << 16            // addresses; about 300 bytes each
	loginsRoom = 1 << 14            // logins that are guessed at
	loginAfter = 50                 // wrong pairs of one login from wherever; then strangers wait
	loginWait  = 8 * time.Second
)

// Guard remembers who tried wrong passwords. It is safe for concurrent use.
type Guard struct {
	now    func() time.Time
	seed   maphash.Seed
	mu     sync.Mutex
	places map[netip.Prefix]*place
	logins map[string]*aimed
	turns  map[netip.Prefix]*turn
	after  int // different wrong pairs that shut an address out
}

// turn is that of the attempts from one place.
type turn struct {
	free    chan struct{}
	waiting int // those that have it included
}

// place is an IPv4 address or an IPv6 /64.
type place struct {
	pairs  []uint64 // keyed hashes of wrong pairs within guessTime
	last   time.Time
	shut   time.Time // until when
	times  int       // how often it was shut
	good   int       // logins
	goodAt time.Time
	login  string // the last that was tried
}

// aimed is a login that is guessed at.
type aimed struct {
	wrong int
	since time.Time
}

// NewGuard makes a guard that knows nobody.
func NewGuard() *Guard {
	return &Guard{now: time.Now, seed: maphash.MakeSeed(), places: make(map[netip.Prefix]*place), logins: make(map[string]*aimed), turns: make(map[netip.Prefix]*turn), after: shutAfter}
}

// ShutAfter sets after how many different wrong pairs within half an hour an address is shut out.
func (g *Guard) ShutAfter(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.after = max(n, slowAfter+1)
}

// Turn waits until no other attempt from the same place is under way: who guesses in parallel waits for all his waits one
// after another. Places with regular good logins need not. The error is that of ctx; else done is called at the end of the attempt.
func (g *Guard) Turn(ctx context.Context, a netip.Addr) (done func(), err error) {
	k := placeOf(a)
	g.mu.Lock()
	if g.places[k].trusted(g.now()) {
		g.mu.Unlock()
		return func() {}, nil
	}
	t := g.turns[k]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		t.free <- struct{}{}
		g.turns[k] = t
	}
	t.waiting++
	g.mu.Unlock()
	leave := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(g.turns, k)
		}
	}
	select {
	case <-t.free:
		return func() { t.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

func placeOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// Admit tells how long an address has to wait before its attempt at login is looked at, or that it is shut out, until
// when.
func (g *Guard) Admit(a netip.Addr, login string) (wait time.Duration, until time.Time, shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	p := g.places[placeOf(a)]
	if p != nil && now.Before(p.shut) {
		return 0, p.shut, true
	}
	if p != nil && now.Sub(p.last) < guessTime && len(p.pairs) > slowAfter {
		wait = min(slowFirst<<min(len(p.pairs)-slowAfter-1, 10), slowMost)
	}
	if l := g.logins[login]; l != nil && now.Sub(l.since) < guessTime && l.wrong >= loginAfter && !p.trusted(now) {
		wait = max(wait, loginWait)
	}
	return wait, time.Time{}, false
}

// trusted tells whether good logins come from there again and again.
func (p *place) trusted(now time.Time) bool {
	return p != nil && p.good >= goodLogins && now.Sub(p.goodAt) < goodMemory
}

// Succeeded notes a good login.
func (g *Guard) Succeeded(a netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	p := g.place(placeOf(a), now)
	if now.Sub(p.goodAt) >= goodMemory {
		p.good = 0
	}
	p.good++
	p.goodAt, p.pairs = now, nil
}

// Failed notes a wrong pair, and tells whether the address is shut out from now on. One with regular good logins never is.
func (g *Guard) Failed(a netip.Addr, login, password string) (shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	p := g.place(placeOf(a), now)
	if now.Sub(p.last) >= guessTime {
		p.pairs = nil
	}
	p.last, p.login = now, clip(login)
	pair := g.pair(login, password)
	if slices.Contains(p.pairs, pair) {
		return false
	}
	p.pairs = append(p.pairs, pair)
	g.aim(login, now)
	if len(p.pairs) < g.after || p.trusted(now) {
		if len(p.pairs) > g.after {
			p.pairs = p.pairs[1:]
		}
		return false
	}
	p.pairs = nil
	p.shut = now.Add(min(shutFirst<<min(p.times, 5), shutMost))
	p.times++
	return true
}

// clip bounds what a stranger has us remember.
func clip(login string) string { return string([]byte(login[:min(len(login), 80)])) }

// aim notes that somebody guesses at a login.
func (g *Guard) aim(login string, now time.Time) {
	login = clip(login)
	l := g.logins[login]
	if l == nil {
		if len(g.logins) >= loginsRoom {
			for old := range g.logins {
				delete(g.logins, old)
				break
			}
		}
		l = &aimed{since: now}
		g.logins[login] = l
	}
	if now.Sub(l.since) >= guessTime {
		*l = aimed{since: now}
	}
	l.wrong++
}

func (g *Guard) pair(login, password string) uint64 {
	var h maphash.Hash
	h.SetSeed(g.seed)
	h.WriteString(login)
	h.WriteByte(0)
	h.WriteString(password)
	return h.Sum64()
}

// place returns what is known of k, made where nothing is. Where there is no room, one gives way that is neither shut out
// nor good, if a few looks find one.
func (g *Guard) place(k netip.Prefix, now time.Time) *place {
	if p := g.places[k]; p != nil {
		return p
	}
	if len(g.places) >= placesRoom {
		looks := 0
		var victim netip.Prefix
		for old, p := range g.places {
			victim = old
			if looks++; looks == 16 || !now.Before(p.shut) && !p.trusted(now) {
				break
			}
		}
		delete(g.places, victim)
	}
	p := new(place)
	g.places[k] = p
	return p
}

// Offender is an address that is shut out, or slowed down.
type Offender struct {
	Place  netip.Prefix
	Until  time.Time // zero: not shut out, only slowed down
	Wrong  int       // different wrong pairs, lately
	Times  int       // how often it was shut out
	Last   time.Time
	Login  string // the last that was tried
	Exempt bool   // good logins come from there, too
}

// List returns the addresses that are shut out or slowed down, those shut out longest first.
func (g *Guard) List() (all []Offender) {
	g.mu.Lock()
	now := g.now()
	for k, p := range g.places {
		o := Offender{Place: k, Times: p.times, Last: p.last, Login: p.login, Exempt: p.trusted(now)}
		if now.Before(p.shut) {
			o.Until = p.shut
		}
		if now.Sub(p.last) < guessTime {
			o.Wrong = len(p.pairs)
		}
		if !o.Until.IsZero() || o.Wrong > slowAfter {
			all = append(all, o)
		}
	}
	g.mu.Unlock()
	slices.SortFunc(all, func(a, b Offender) int {
		return cmp.Or(b.Until.Compare(a.Until), b.Last.Compare(a.Last), a.Place.Addr().Compare(b.Place.Addr()))
	})
	return all
}

// Forgive forgets what is known of an address, and tells whether there was anything.
func (g *Guard) Forgive(a netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	k := placeOf(a)
	_, was := g.places[k]
	delete(g.places, k)
	return was
}

// Restore shuts out again those who were when the list was taken, as after a restart.
func (g *Guard) Restore(list []Offender) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	for _, o := range list {
		if o.Place.IsValid() && now.Before(o.Until) && len(g.places) < placesRoom {
			g.places[placeOf(o.Place.Addr())] = &place{shut: o.Until, times: o.Times, last: o.Last, login: clip(o.Login)}
		}
	}
}

// NewPassword makes a random one of 20 letters and digits, some 100 bits, without those that look alike.
func NewPassword() string {
	const letters = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
	out := make([]byte, 0, 20)
	var b [64]byte
	for len(out) < cap(out) {
		rand.Read(b[:]) // never fails (crypto/rand)
		for _, c := range b {
			if i := int(c & 63); i < len(letters) && len(out) < cap(out) {
				out = append(out, letters[i])
			}
		}
	}
	return string(out)
}
