package ladder

import "time"

// slots is into how many parts a window is cut. What is in a ring counts for good: one that forgets late spares a sender.
const slots = 16

// ring counts in one sliding window. Its length must be the same in each call, else it begins anew. What is counted in the present
// slot stands in it, and older slots apart, where nearly nobody looks: so all rings of a sender are next to each other.
type ring struct {
	last    int64 // the newest slot
	length  time.Duration
	total   uint32
	present uint32         // in the newest slot
	older   *[slots]uint32 // in those before, each at its number modulo slots; nil: nothing
}

func (r *ring) add(now, length time.Duration, n int) {
	r.move(now, length)
	r.present += uint32(n)
	r.total += uint32(n)
}

// sum returns how many count at the time now.
func (r *ring) sum(now, length time.Duration) int {
	if r.total == 0 {
		return 0
	}
	r.move(now, length)
	return int(r.total)
}

// move lets time go on to now.
func (r *ring) move(now, length time.Duration) {
	slot := slotOf(now, length)
	if r.length != length || slot-r.last > slots {
		*r = ring{last: slot, length: length, older: r.older}
		if r.older != nil {
			*r.older = [slots]uint32{}
		}
		return
	}
	for ; r.last < slot; r.last++ {
		r.shift()
	}
}

// shift begins another slot.
func (r *ring) shift() {
	if r.older == nil {
		if r.present == 0 {
			return
		}
		r.older = new([slots]uint32)
	}
	leaves := &r.older[r.last%slots] // for it has the number of the one that is older than all
	r.total -= *leaves
	*leaves, r.present = r.present, 0
}

// at returns what is counted in a slot, one of the last.
func (r *ring) at(slot int64) uint32 {
	switch {
	case slot == r.last:
		return r.present
	case r.older == nil || slot < 0:
		return 0
	}
	return r.older[slot%slots]
}

// slotOf returns the number of the slot that holds now.
func slotOf(now, length time.Duration) int64 { return int64(now / max(1, (length+slots-1)/slots)) }
