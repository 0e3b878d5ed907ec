// Package limit counts what users send in sliding windows and refuses what goes over their limits.
package limit

import "time"

// Slots is into how many parts a window is cut. An event stops counting between one window and one window and a slot
// after it happened, so a limit errs on the strict side by at most 1/64 of its window (LIM6).
const Slots = 64

// Window counts the events of one sliding window. Its zero value is empty. It keeps one mark for each slot in which
// something happened, the newest in itself, so that counting more in the present slot touches nothing else: a user who sends
// little costs a few words, none more than Slots+1 marks. Not safe for concurrent use.
type Window struct {
	newest mark   // n is 0 where the window is empty
	older  []mark // by slot, oldest first
	sum    int
}

// mark is what happened in one slot.
type mark struct {
	slot int64
	n    int
}

// Add counts n events at the time now, which is a monotonic time since any fixed start, in windows of the given length.
func (w *Window) Add(now, length time.Duration, n int) {
	slot := w.expire(now, length)
	w.sum += n
	switch {
	case w.newest.n == 0:
		w.newest = mark{slot, n}
	case w.newest.slot >= slot:
		w.newest.n += n
	default:
		w.older = append(w.older, w.newest)
		w.newest = mark{slot, n}
	}
}

// Sum returns how many events count at the time now.
func (w *Window) Sum(now, length time.Duration) int {
	w.expire(now, length)
	return w.sum
}

// Wait returns how long it takes from now until n of the events that count have left the window.
func (w *Window) Wait(now, length time.Duration, n int) time.Duration {
	w.expire(now, length)
	for m := range w.marks {
		if n -= m.n; n <= 0 {
			return time.Duration(m.slot+Slots+1)*width(length) - now
		}
	}
	return length
}

// marks goes over the marks, oldest first.
func (w *Window) marks(yield func(mark) bool) {
	for _, m := range w.older {
		if !yield(m) {
			return
		}
	}
	if w.newest.n != 0 {
		yield(w.newest)
	}
}

// len is how many marks there are.
func (w *Window) len() int {
	if w.newest.n == 0 {
		return 0
	}
	return len(w.older) + 1
}

// expire drops the marks that have left the window, and returns the present slot. The rest moves down, so that the slice never
// grows past its bound. As long as the newest slot lasts nothing leaves.
func (w *Window) expire(now, length time.Duration) (slot int64) {
	slot = slotOf(now, length)
	if w.newest.n == 0 || w.newest.slot >= slot {
		return slot
	}
	oldest := slot - Slots
	if w.newest.slot < oldest {
		*w = Window{older: w.older[:0]}
		return slot
	}
	gone := 0
	for gone < len(w.older) && w.older[gone].slot < oldest {
		w.sum -= w.older[gone].n
		gone++
	}
	if gone > 0 {
		w.older = w.older[:copy(w.older, w.older[gone:])]
	}
	return slot
}

// slotOf returns the number of the slot that holds now.
func slotOf(now, length time.Duration) int64 { return int64(now / width(length)) }

// width returns the length of one slot, rounded up so that Slots of them never fall short of the window.
func width(length time.Duration) time.Duration { return max(1, (length+Slots-1)/Slots) }
