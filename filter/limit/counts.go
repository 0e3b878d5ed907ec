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
}

// Counts is the Counter of one gateway, in memory. It forgets keys that have nothing in their window and holds at most
// a fixed number. Safe for concurrent use.
type Counts struct {
	start  time.Time     // only differences of the monotonic clock are used
	epoch  time.Duration // from 1970 to start, so that the slots of windows are the same after a restart
	booked atomic.Bool   // since the last Save
	most   int           // keys per shard
	shards [shards]shard

	distinct distincts
}

const (
	shards = 64
	// DefaultKeys bounds the keys in memory: half a million users in one window with two quantities, about 150 MB if all
	// of them send in every slot and a tenth of that as users are.
	DefaultKeys = 1 << 20
	sweepEvery  = time.Minute
)

type shard struct {
	mu    sync.Mutex
	keys  map[Key]*count
	swept time.Duration
	_     [64]byte // keeps neighbours' locks off one cache line
}

type count struct {
	window   Window
	reserved int
}

// NewCounts returns a counter that holds at most maxKeys keys; 0 means DefaultKeys.
func NewCounts(maxKeys int) *Counts {
	if maxKeys <= 0 {
		maxKeys = DefaultKeys
	}
	c := &Counts{start: time.Now(), most: max(1, maxKeys/shards)}
	c.epoch = time.Duration(c.start.UnixNano())
	for i := range c.shards {
		c.shards[i].keys = map[Key]*count{}
	}
	c.distinct.init(max(1, maxKeys/shards/16))
	return c
}

// now is the time since 1970 by the clock of the start.
func (c *Counts) now() time.Duration { return c.epoch + time.Since(c.start) }

// Reserve implements Counter.
func (c *Counts) Reserve(k Key, n, limit int) (time.Duration, bool) {
	s, now := c.shard(k), c.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	e := c.entry(s, k, now)
	over := e.window.Sum(now, k.Window) + e.reserved + n - limit
	if over <= 0 {
		e.reserved += n
		return 0, true
	}
	return e.window.Wait(now, k.Window, over), false
}

// Settle implements Counter.
func (c *Counts) Settle(k Key, reserved, booked int) {
	s, now := c.shard(k), c.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	e := c.entry(s, k, now)
	e.reserved = max(0, e.reserved-reserved)
	if booked > 0 {
		e.window.Add(now, k.Window, booked)
		if !c.booked.Load() {
			c.booked.Store(true)
		}
	}
}

// Count implements Counter.
func (c *Counts) Count(k Key) (booked, reserved int) {
	s, now := c.shard(k), c.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.keys[k]; ok {
		return e.window.Sum(now, k.Window), e.reserved
	}
	return 0, 0
}

// ReserveNew implements Counter.
func (c *Counts) ReserveNew(k Key, hash uint64, limit int) (wait time.Duration, taken, ok bool) {
	return c.distinct.reserve(k, hash, limit, c.now())
}

// SettleNew implements Counter.
func (c *Counts) SettleNew(k Key, reserved int, booked []uint64) {
	c.distinct.settle(k, reserved, booked, c.now())
	if len(booked) > 0 {
		c.booked.Store(true)
	}
}

// Different returns how many different recipients stand in the window of k, and by how much the figure may be wrong, as a
// share: 0 up to Exact of them.
func (c *Counts) Different(k Key) (n int, wrong float64) { return c.distinct.count(k, c.now()) }

// Len returns how many keys are held.
func (c *Counts) Len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += len(s.keys)
		s.mu.Unlock()
	}
	return n
}

func (c *Counts) shard(k Key) *shard {
	return &c.shards[k.User*0x9E3779B1>>26%shards] // Fibonacci hashing: user ids are consecutive
}

// entry returns the count of k, making it, and room for it, where it is missing. The shard is locked.
func (c *Counts) entry(s *shard, k Key, now time.Duration) *count {
	if now-s.swept > sweepEvery {
		s.sweep(now)
	}
	e, ok := s.keys[k]
	if !ok {
		if len(s.keys) >= c.most {
			s.evict(now)
		}
		e = &count{}
		s.keys[k] = e
	}
	return e
}

// sweep forgets what counts nothing any more.
func (s *shard) sweep(now time.Duration) {
	s.swept = now
	for k, e := range s.keys {
		if e.reserved == 0 && e.window.Sum(now, k.Window) == 0 {
			delete(s.keys, k)
		}
	}
}

// evict makes room when the shard is full: of a few keys met at random the one with the smallest count goes, so that
// a flood of new users does not wash out those who are near their limit.
func (s *shard) evict(now time.Duration) {
	const tries = 16
	var victim Key
	least, left := -1, tries
	for k, e := range s.keys {
		if n := e.window.Sum(now, k.Window) + e.reserved; least < 0 || n < least {
			victim, least = k, n
		}
		if left--; left == 0 {
			break
		}
	}
	delete(s.keys, victim)
}
