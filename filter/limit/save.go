package limit

import (
	"encoding/binary"
	"errors"
	"time"

	"sluice/filter/policy"
)

// What Append writes begins with one of these; another form gets another number. The first knew counts of users alone.
const (
	savedUsers = 0x4c494d31 // "LIM1"
	saved      = 0x4c494d32 // "LIM2"
)

// Changed tells whether anything was booked since the last Append.
func (c *Counts) Changed() bool { return c.booked.Load() }

// Append appends what is booked to dst, for Restore after a restart (LIM6). What is only reserved is not in it.
func (c *Counts) Append(dst []byte) []byte {
	c.booked.Store(false)
	dst = binary.LittleEndian.AppendUint32(dst, saved)
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		now := c.now()
		for whose, a := range s.accounts {
			for k, e := range a.all(whose) {
				if e.window.Sum(now, k.Window) > 0 {
					dst = appendCount(dst, k, &e.window)
				}
			}
		}
		s.mu.Unlock()
	}
	return c.distinct.append(dst, c.now())
}

func appendKey(dst []byte, k Key) []byte {
	dst = binary.AppendUvarint(dst, uint64(k.User))
	dst = binary.AppendUvarint(dst, uint64(k.What))
	dst = binary.AppendUvarint(dst, uint64(k.Window))
	dst = binary.AppendUvarint(dst, uint64(k.Scope))
	if k.Scope == policy.OfIdentity {
		dst = binary.AppendUvarint(dst, k.Of)
	}
	return dst
}

func appendCount(dst []byte, k Key, w *Window) []byte {
	dst = appendKey(dst, k)
	dst = binary.AppendUvarint(dst, uint64(w.len()))
	before := int64(0)
	for m := range w.marks {
		dst = binary.AppendUvarint(dst, uint64(m.slot-before))
		dst = binary.AppendUvarint(dst, uint64(m.n))
		before = m.slot
	}
	return dst
}

// errSaved says that bytes are not of Append.
var errSaved = errors.New("saved counts are damaged")

// Restore adds what an earlier process booked, as Append wrote it. Where the clock was set back since, it counts as of
// now, on the strict side. After an error a part may have been added.
func (c *Counts) Restore(b []byte) error {
	if len(b) < 4 {
		return errSaved
	}
	form := binary.LittleEndian.Uint32(b)
	if form != saved && form != savedUsers {
		return errSaved
	}
	r := reader{b: b[4:]}
	for len(r.b) > 0 && !r.bad {
		k := Key{User: uint32(r.next()), What: Quantity(r.next()), Window: time.Duration(r.next())}
		if form == saved {
			k.Scope = policy.Scope(r.next())
		}
		if k.Scope == policy.OfIdentity {
			k.Of = r.next()
		}
		n := r.next()
		if k.What == Distinct && k.Window > 0 && !r.bad {
			if c.distinct.restore(k, n, &r, c.now()); r.bad {
				return errSaved
			}
			continue
		}
		if r.bad || k.Window <= 0 || n > Slots+1 {
			return errSaved
		}
		c.restore(k, n, &r)
	}
	if r.bad {
		return errSaved
	}
	return nil
}

// restore adds the n marks that come next to the count of k.
func (c *Counts) restore(k Key, n uint64, r *reader) {
	s, now := c.shard(k.User), c.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	e := c.account(s, k.whose(), now).open(k)
	slot := int64(0)
	for range n {
		slot += int64(r.next())
		count := int(r.next())
		if r.bad || slot < 0 || count <= 0 {
			r.bad = true
			return
		}
		at := min(slot, slotOf(now, k.Window))
		e.window.Add(time.Duration(at)*width(k.Window), k.Window, count)
	}
}

// reader reads numbers until they end too early.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) next() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// whole reads a number of eight bytes.
func (r *reader) whole() uint64 {
	if len(r.b) < 8 {
		r.bad = true
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}
