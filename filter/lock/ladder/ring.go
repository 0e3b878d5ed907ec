package ladder

import "time"

// slots is into how many parts a window is cut. What is in a ring counts for good: one that forgets late spares a sender.
const slots = 16

// ring counts in one sliding window. Its length must be the same in each call, else it begins anew.
type ring struct {
	last   int64 // the newest slot
	length time.Duration
	n      [slots + 1]uint32
	total  int
}

func (r *ring) add(now, length time.Duration, n int) {
	r.move(now, length)
	r.n[r.last%(slots+1)] += uint32(n)
	r.total += n
}

// sum returns how many count at the time now.
func (r *ring) sum(now, length time.Duration) int {
	if r.total == 0 {
		return 0
	}
	r.move(now, length)
	return r.total
}

// move lets time go on to now.
func (r *ring) move(now, length time.Duration) {
	slot := slotOf(now, length)
	if r.length != length {
		*r = ring{last: slot, length: length}
		return
	}
	if slot-r.last > slots {
		*r = ring{last: slot, length: length}
		return
	}
	for r.last < slot {
		r.last++
		old := &r.n[r.last%(slots+1)]
		r.total -= int(*old)
		*old = 0
	}
}

// slotOf returns the number of the slot that holds now.
func slotOf(now, length time.Duration) int64 { return int64(now / max(1, (length+slots-1)/slots)) }
