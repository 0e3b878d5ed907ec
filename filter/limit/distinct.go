package limit

import (
	"encoding/binary"
	"math"
	"math/bits"
	"sync"
	"time"
)

// Exact is up to how many different recipients are counted one by one. Above, registers estimate (HyperLogLog).
const Exact = 10_000

const (
	registerBits = 12
	registers    = 1 << registerBits
	ranks        = 64 - registerBits + 1
	// topRank bounds the ranks that are kept apart; with 4096 registers it is reached by some ten thousand million recipients.
	topRank = 24
	never   = math.MinInt32
)

// ErrorOfMany is the standard error of the estimate above Exact, as a share: 1.04/√4096.
const ErrorOfMany = 0.01625

// distincts count how many different recipients stand in sliding windows.
type distincts struct {
	most   int // keys per shard
	shards [shards]distinctShard
}

type distinctShard struct {
	mu    sync.Mutex
	keys  map[Key]*distinct
	swept time.Duration
}

// distinct is one window: for each recipient the last slot in which he got something, or, when these became too many, for
// each register and rank the last slot in which it was met. Twelve bytes for a recipient and some room, about 100 KB for
// the registers.
type distinct struct {
	base     int64            // slots count from here, in 32 bits
	last     map[uint64]int32 // nil once there are registers
	slot     int64            // of the last expiry
	many     *[registers][topRank]int32
	best     []uint8 // greatest rank of each register within the window
	guess    int     // the estimate from best; -1: to be made
	first    int32   // the oldest slot at the last look, while the map is exact
	looked   int64   // the slot of that look
	reserved int
}

func (d *distincts) init(most int) {
	d.most = most
	for i := range d.shards {
		d.shards[i].keys = map[Key]*distinct{}
	}
}

func (d *distincts) shard(k Key) *distinctShard { return &d.shards[(k.User*0x9E3779B1>>26)%shards] }

// entry returns what is counted of k, at the time now. The shard is locked.
func (d *distincts) entry(s *distinctShard, k Key, now time.Duration) *distinct {
	if now-s.swept > sweepEvery {
		s.swept = now
		for k, e := range s.keys {
			if e.expire(now, k.Window); e.reserved == 0 && e.size() == 0 {
				delete(s.keys, k)
			}
		}
	}
	e, ok := s.keys[k]
	if !ok {
		if len(s.keys) >= d.most {
			s.evict(now)
		}
		e = &distinct{base: slotOf(now, k.Window), last: map[uint64]int32{}, slot: slotOf(now, k.Window)}
		s.keys[k] = e
	}
	e.expire(now, k.Window)
	return e
}

// evict makes room: of a few keys the one with the smallest count goes.
func (s *distinctShard) evict(now time.Duration) {
	var victim Key
	least, left := -1, 16
	for k, e := range s.keys {
		if n := e.size() + e.reserved; least < 0 || n < least {
			victim, least = k, n
		}
		if left--; left == 0 {
			break
		}
	}
	delete(s.keys, victim)
}

func (d *distincts) reserve(k Key, hash uint64, limit int, now time.Duration) (wait time.Duration, taken, ok bool) {
	s := d.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := d.entry(s, k, now)
	if e.last != nil {
		if _, known := e.last[hash]; known {
			return 0, false, true
		}
	}
	if e.size()+e.reserved+1 <= limit {
		e.reserved++
		return 0, true, true
	}
	return e.wait(now, k.Window), false, false
}

func (d *distincts) settle(k Key, reserved int, booked []uint64, now time.Duration) {
	s := d.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := d.entry(s, k, now)
	e.reserved = max(0, e.reserved-reserved)
	at := int32(slotOf(now, k.Window) - e.base)
	for _, h := range booked {
		e.add(h, at)
	}
}

func (d *distincts) count(k Key, now time.Duration) (n int, wrong float64) {
	s := d.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.keys[k]
	if !ok {
		return 0, 0
	}
	e.expire(now, k.Window)
	if e.many != nil {
		wrong = ErrorOfMany
	}
	return e.size(), wrong
}

// add counts one recipient in a slot.
func (e *distinct) add(hash uint64, at int32) {
	if e.many != nil {
		e.register(hash, at)
		return
	}
	if had, ok := e.last[hash]; !ok || had < at {
		e.last[hash] = at
	}
	if len(e.last) > Exact {
		e.toRegisters()
	}
}

// toRegisters begins to estimate.
func (e *distinct) toRegisters() {
	e.many, e.best, e.guess = new([registers][topRank]int32), make([]uint8, registers), -1
	for i := range e.many {
		for r := range e.many[i] {
			e.many[i][r] = never
		}
	}
	for h, at := range e.last {
		e.register(h, at)
	}
	e.last = nil
}

func (e *distinct) register(hash uint64, at int32) {
	i := hash >> (64 - registerBits)
	r := min(bits.LeadingZeros64(hash<<registerBits|1<<(registerBits-1))+1, ranks, topRank)
	e.many[i][r-1] = max(at, e.many[i][r-1])
	if e.best[i] < uint8(r) {
		e.best[i], e.guess = uint8(r), -1
	}
}

// expire forgets what has left the window.
func (e *distinct) expire(now, length time.Duration) {
	slot := slotOf(now, length)
	if slot <= e.slot {
		return
	}
	e.slot = slot
	oldest := int32(slot - Slots - e.base)
	if e.many == nil {
		for h, at := range e.last {
			if at < oldest {
				delete(e.last, h)
			}
		}
		return
	}
	empty := true
	e.guess = -1
	for i := range e.many {
		e.best[i] = 0
		for r := topRank; r > 0; r-- {
			if e.many[i][r-1] >= oldest {
				e.best[i], empty = uint8(r), false
				break
			}
		}
	}
	if empty {
		e.many, e.best, e.last = nil, nil, map[uint64]int32{}
	}
}

// size is how many different recipients are in the window; with registers an estimate.
func (e *distinct) size() int {
	if e.many == nil {
		return len(e.last)
	}
	if e.guess >= 0 {
		return e.guess
	}
	sum, zero := 0.0, 0
	for _, r := range e.best {
		sum += 1 / float64(uint64(1)<<r)
		if r == 0 {
			zero++
		}
	}
	const m = float64(registers)
	n := 0.7213 / (1 + 1.079/m) * m * m / sum
	if n <= 2.5*m && zero > 0 {
		n = m * math.Log(m/float64(zero))
	}
	e.guess = int(n + 0.5)
	return e.guess
}

// wait is how long it takes until something leaves the window.
func (e *distinct) wait(now, length time.Duration) time.Duration {
	if len(e.last) == 0 {
		return width(length)
	}
	if e.looked != e.slot {
		e.first, e.looked = math.MaxInt32, e.slot
		for _, at := range e.last {
			e.first = min(e.first, at)
		}
	}
	return max(time.Second, time.Duration(int64(e.first)+e.base+Slots+1)*width(length)-now)
}

// append writes every window that holds something. Slots are absolute there.
func (d *distincts) append(dst []byte, now time.Duration) []byte {
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.Lock()
		for k, e := range s.keys {
			if e.expire(now, k.Window); e.size() > 0 {
				dst = appendDistinct(dst, k, e)
			}
		}
		s.mu.Unlock()
	}
	return dst
}

func appendDistinct(dst []byte, k Key, e *distinct) []byte {
	dst = appendKey(dst, k)
	if e.many == nil {
		dst = binary.AppendUvarint(dst, uint64(len(e.last))<<1)
		for h, at := range e.last {
			dst = binary.LittleEndian.AppendUint64(dst, h)
			dst = binary.AppendUvarint(dst, uint64(int64(at)+e.base))
		}
		return dst
	}
	n := 0
	for i := range e.many {
		for _, at := range e.many[i] {
			if at != never {
				n++
			}
		}
	}
	dst = binary.AppendUvarint(dst, uint64(n)<<1|1)
	for i := range e.many {
		for r, at := range e.many[i] {
			if at != never {
				dst = binary.AppendUvarint(dst, uint64(i*topRank+r))
				dst = binary.AppendUvarint(dst, uint64(int64(at)+e.base))
			}
		}
	}
	return dst
}

// restore adds a window as append wrote it; head is its number of parts and its form.
func (d *distincts) restore(k Key, head uint64, r *reader, now time.Duration) {
	s := d.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := d.entry(s, k, now)
	present := slotOf(now, k.Window)
	if head&1 == 1 && e.many == nil {
		e.toRegisters()
	}
	for range head >> 1 {
		var part uint64
		if head&1 == 1 {
			part = r.next()
		} else {
			part = r.whole()
		}
		at := int32(min(int64(r.next()), present) - e.base) // a clock that was set back: on the strict side
		switch {
		case r.bad || head&1 == 1 && part >= registers*topRank:
			r.bad = true
			return
		case head&1 == 0:
			e.add(part, at)
		default:
			i, rank := part/topRank, part%topRank
			e.many[i][rank] = max(at, e.many[i][rank])
			e.best[i], e.guess = max(e.best[i], uint8(rank+1)), -1
		}
	}
	e.slot-- // what was old already leaves now
	e.expire(now, k.Window)
}
