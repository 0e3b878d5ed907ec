package limit

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/filter/policy"
)

// Quantity is what a limit counts.
type Quantity uint8

// The quantities.
const (
	Messages Quantity = iota
	Recipients
	Bytes
	Distinct // recipients, each once
	Invalid  // recipients that a destination refused as unknown
	Failed   // deliveries
	Null     // messages with the null sender
	Queued   // messages that wait for delivery; the queue counts them
)

// Key names one count: whose, of what, in which window.
type Key struct {
	User   uint32 // or the account's or plan's id
	What   Quantity
	Scope  policy.Scope `json:",omitempty"`
	Window time.Duration
	Of     uint64 `json:",omitempty"` // hash of the identity's name, in that scope
}

// Counter counts with reservations, so that no message slips past a limit between the question and the answer (LIM6).
type Counter interface {
	// Reserve takes n of the budget of k when what is booked and reserved with n stays within limit. Otherwise it takes
	// nothing and returns after what time n would fit, if nothing else were sent.
	Reserve(k Key, n, limit int) (wait time.Duration, ok bool)
	// Settle gives back n reserved of k and books what was really sent.
	Settle(k Key, reserved, booked int)
	// Count returns what stands in the window of k.
	Count(k Key) (booked, reserved int)
	// ReserveNew takes one of the budget of k for a recipient, by the hash of his address, unless he is counted already.
	ReserveNew(k Key, hash uint64, limit int) (wait time.Duration, taken, ok bool)
	// SettleNew gives back n reserved of k and books the recipients that were really sent to.
	SettleNew(k Key, reserved int, booked []uint64)
	// ReserveHour takes n of a user's hour where all of it stays within most, and what became of his mail there within bad;
	// else it takes nothing and returns false. It is Reserve and Count for the limits that nearly everybody has, at once.
	ReserveHour(user uint32, n, most Hour, bad Past) bool
	// SettleHour gives back what is reserved of a user's hour and books what was really sent.
	SettleHour(user uint32, reserved, booked Hour)
}

// Hour is so much of what a user sends in an hour.
type Hour struct{ Messages, Recipients int }

// Past is what became of so much of it: both are less.
type Past struct{ Invalid, Failed int }

// Counts is the Counter of one gateway, in memory. It forgets who has nothing in his windows and holds at most a fixed number
// of users, identities and budgets. Safe for concurrent use.
type Counts struct {
	start  time.Time     // only differences of the monotonic clock are used
	epoch  time.Duration // from 1970 to start, so that the slots of windows are the same after a restart
	booked atomic.Bool   // since the last Save
	most   int           // accounts per shard
	shards [shards]shard

	distinct distincts
}

const (
	shards = 64
	// DefaultAccounts bounds what is in memory: half a million users with the limits of an hour, about 100 MB, and a gigabyte if
	// all of them send in every slot.
	DefaultAccounts = 1 << 19
	sweepEvery      = time.Minute
)

type shard struct {
	mu       sync.Mutex
	accounts map[whose]*account
	swept    time.Duration
	_        [64]byte // keeps neighbours' locks off one cache line
}

// NewCounts returns a counter that holds at most so many accounts; 0 means DefaultAccounts.
func NewCounts(most int) *Counts {
	if most <= 0 {
		most = DefaultAccounts
	}
	c := &Counts{start: time.Now(), most: max(1, most/shards)}
	c.epoch = time.Duration(c.start.UnixNano())
	for i := range c.shards {
		c.shards[i].accounts = map[whose]*account{}
	}
	c.distinct.init(max(1, most/shards/8))
	return c
}

// now is the time since 1970 by the clock of the start.
func (c *Counts) now() time.Duration { return c.epoch + time.Since(c.start) }

// Reserve implements Counter.
func (c *Counts) Reserve(k Key, n, limit int) (time.Duration, bool) {
	s, now := c.shard(k.User), c.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	e := c.account(s, k.whose(), now).open(k)
	over := e.window.Sum(now, k.Window) + e.reserved + n - limit
	if over <= 0 {
		e.reserved += n
		return 0, true
	}
	return e.window.Wait(now, k.Window, over), false
}

// Settle implements Counter.
func (c *Counts) Settle(k Key, reserved, booked int) {
	s, now := c.shard(k.User), c.now()
	s.mu.Lock()
	c.account(s, k.whose(), now).open(k).settle(now, k.Window, reserved, booked)
	s.mu.Unlock()
	if booked > 0 {
		c.touch()
	}
}

// touch notes that something was booked, where that is not noted yet: all users share it.
func (c *Counts) touch() {
	if !c.booked.Load() {
		c.booked.Store(true)
	}
}

// Count implements Counter.
func (c *Counts) Count(k Key) (booked, reserved int) {
	s, now := c.shard(k.User), c.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.accounts[k.whose()]; ok {
		if e := a.find(k.What, k.Window); e != nil {
			return e.window.Sum(now, k.Window), e.reserved
		}
	}
	return 0, 0
}

// ReserveHour implements Counter.
func (c *Counts) ReserveHour(user uint32, n, most Hour, bad Past) bool {
	s, now := c.shard(user), c.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	a := c.account(s, whose{user: user}, now)
	messages, recipients := &a.hour[Messages], &a.hour[Recipients]
	if messages.window.Sum(now, time.Hour)+messages.reserved+n.Messages > most.Messages ||
		recipients.window.Sum(now, time.Hour)+recipients.reserved+n.Recipients > most.Recipients ||
		len(a.more) > 0 && (a.sum(now, Invalid) >= bad.Invalid || a.sum(now, Failed) >= bad.Failed) {
		return false
	}
	messages.reserved += n.Messages
	recipients.reserved += n.Recipients
	return true
}

// SettleHour implements Counter.
func (c *Counts) SettleHour(user uint32, reserved, booked Hour) {
	s, now := c.shard(user), c.now()
	s.mu.Lock()
	a := c.account(s, whose{user: user}, now)
	a.hour[Messages].settle(now, time.Hour, reserved.Messages, booked.Messages)
	a.hour[Recipients].settle(now, time.Hour, reserved.Recipients, booked.Recipients)
	s.mu.Unlock()
	if booked.Messages+booked.Recipients > 0 {
		c.touch()
	}
}

// ReserveNew implements Counter.
func (c *Counts) ReserveNew(k Key, hash uint64, limit int) (wait time.Duration, taken, ok bool) {
	return c.distinct.reserve(k, hash, limit, c.now())
}

// SettleNew implements Counter.
func (c *Counts) SettleNew(k Key, reserved int, booked []uint64) {
	c.distinct.settle(k, reserved, booked, c.now())
	if len(booked) > 0 {
		c.touch()
	}
}

// Different returns how many different recipients stand in the window of k, and by how much the figure may be wrong, as a
// share: 0 up to Exact of them.
func (c *Counts) Different(k Key) (n int, wrong float64) { return c.distinct.count(k, c.now()) }

// Len returns how many accounts are held.
func (c *Counts) Len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += len(s.accounts)
		s.mu.Unlock()
	}
	return n
}

func (c *Counts) shard(user uint32) *shard {
	return &c.shards[user*0x9E3779B1>>26%shards] // Fibonacci hashing: user ids are consecutive
}

// account returns what is counted of one, making it, and room for it, where it is missing. The shard is locked.
func (c *Counts) account(s *shard, w whose, now time.Duration) *account {
	if now-s.swept > sweepEvery {
		s.sweep(now)
	}
	a, ok := s.accounts[w]
	if !ok {
		if len(s.accounts) >= c.most {
			s.evict(now)
		}
		a = &account{}
		s.accounts[w] = a
	}
	return a
}

// sweep forgets what counts nothing any more.
func (s *shard) sweep(now time.Duration) {
	s.swept = now
	for w, a := range s.accounts {
		if a.tidy(now) {
			delete(s.accounts, w)
		}
	}
}

// evict makes room when the shard is full: of a few accounts met at random the one that counts least goes, so that a flood of
// new users does not wash out those who are near their limit.
func (s *shard) evict(now time.Duration) {
	const tries = 16
	var victim whose
	least, left := -1, tries
	for w, a := range s.accounts {
		if n := a.weight(now); least < 0 || n < least {
			victim, least = w, n
		}
		if left--; left == 0 {
			break
		}
	}
	delete(s.accounts, victim)
}
