package pool

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what Choices remember.
const (
	choicesRoom = 1 << 16        // about 100 bytes each
	choicesUser = 256            // of one user: who mails from and to more domains is spread as the pool says
	choiceLife  = 24 * time.Hour // after its last mail: the retries of a greylisted one have come by then
	choiceTouch = time.Hour      // a use is noted so often
)

// Choices remember mails that left from another address than the pool would choose, so that the same key leaves from
// there again (DIP2). That happens when a session from the user's first address stands already, opened before the domains
// were known, to a destination of which nothing else was known. They are safe for concurrent use; the zero value is empty.
type Choices struct {
	n       atomic.Int64 // entries, for those who look without the lock
	changed atomic.Bool
	version atomic.Uint64 // another one with each change
	mu      sync.Mutex
	m       map[uint64]choice
	users   map[uint32]int
	swept   int64
}

// choice is where the mail of one key leaves from.
type choice struct {
	ip   netip.Addr
	user uint32
	used int64 // unix seconds
}

// Choose returns the remembered address for k in the family of to if the pool still has it, else what the pool chooses.
func (c *Choices) Choose(p *Pool, k Key, to netip.Addr, now time.Time) (Address, bool) {
	if p == nil || c.n.Load() == 0 || len(p.family(to)) < 2 {
		return p.Choose(k, to)
	}
	if ip, ok := c.recall(k.in(to), now.Unix()); ok {
		if helo, ok := p.all[ip]; ok {
			return Address{IP: ip, Helo: helo}, true
		}
	}
	return p.Choose(k, to)
}

// Adopt tells whether the mail of k may leave from the user's first address for the family of to, and if so remembers it:
// not where k is remembered to leave from elsewhere, and not for a user who has as many such keys as one may have.
func (c *Choices) Adopt(p *Pool, k Key, to netip.Addr, now time.Time) bool {
	first, ok := p.Default(k.User, to)
	if !ok {
		return false
	}
	if own, _ := p.Choose(k, to); own.IP == first.IP {
		ip, elsewhere := c.recall(k.in(to), now.Unix())
		return !elsewhere || ip == first.IP || !p.holds(ip)
	}
	key, at := k.in(to), now.Unix()
	c.mu.Lock()
	defer c.mu.Unlock()
	if o, ok := c.m[key]; ok && o.fresh(at) && p.holds(o.ip) {
		return o.ip == first.IP
	}
	c.drop(key)
	if len(c.m) >= choicesRoom || c.users[k.User] >= choicesUser {
		c.sweep(at)
	}
	if len(c.m) >= choicesRoom || c.users[k.User] >= choicesUser {
		return false
	}
	c.put(key, choice{first.IP, k.User, at})
	return true
}

// recall returns the address remembered for a key, and notes that it is used.
func (c *Choices) recall(key uint64, at int64) (netip.Addr, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.m[key]
	if !ok || !o.fresh(at) {
		return netip.Addr{}, false
	}
	if at-o.used > int64(choiceTouch/time.Second) {
		o.used = at
		c.m[key] = o
		c.changed.Store(true)
	}
	return o.ip, true
}

// fresh tells whether a choice still holds; one from the future, by a clock that was set back, does.
func (o *choice) fresh(at int64) bool { return at-o.used <= int64(choiceLife/time.Second) }

// put remembers; c.mu is held.
func (c *Choices) put(key uint64, o choice) {
	if c.m == nil {
		c.m, c.users = make(map[uint64]choice), make(map[uint32]int)
	}
	c.m[key] = o
	c.users[o.user]++
	c.version.Add(1)
	c.n.Store(int64(len(c.m)))
	c.changed.Store(true)
}

// drop forgets; c.mu is held.
func (c *Choices) drop(key uint64) {
	o, ok := c.m[key]
	if !ok {
		return
	}
	delete(c.m, key)
	if c.users[o.user]--; c.users[o.user] <= 0 {
		delete(c.users, o.user)
	}
	c.version.Add(1)
	c.n.Store(int64(len(c.m)))
	c.changed.Store(true)
}

// sweep forgets what has expired, at most once a minute; c.mu is held.
func (c *Choices) sweep(at int64) {
	if at-c.swept < 60 && at >= c.swept {
		return
	}
	c.swept = at
	for key, o := range c.m {
		if !o.fresh(at) {
			c.drop(key)
		}
	}
}

// in is the key's number for the family of an address.
func (k Key) in(to netip.Addr) uint64 {
	h := k.hash()
	if to.Unmap().Is4() {
		return h
	}
	return mix(h ^ prime)
}
