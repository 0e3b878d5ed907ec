package distrust

import "time"

// slots divide the hour; what is in the oldest one counts until it is wholly over, so that the bound errs on the strict
// side.
const (
	slots    = 12
	slotTime = window / slots
)

// use is what passed unread.
type use struct{ connections, bytes int }

// budget counts what passed unread of one source in the last hour.
type budget struct {
	slots [slots + 1]use
	at    int64 // number of the newest slot since 1970
	told  time.Time
}

// turn empties the slots that are over.
func (b *budget) turn(now time.Time) {
	n := now.UnixNano() / int64(slotTime)
	if n <= b.at { // a clock that was set back frees nothing
		return
	}
	for i := range min(n-b.at, int64(len(b.slots))) {
		b.slots[(n-i)%int64(len(b.slots))] = use{}
	}
	b.at = n
}

// used is what passed in the last hour.
func (b *budget) used(now time.Time) (sum use) {
	b.turn(now)
	for _, s := range b.slots {
		sum.connections += s.connections
		sum.bytes += s.bytes
	}
	return sum
}

// left tells whether one more connection may begin.
func (b *budget) left(now time.Time) bool {
	u := b.used(now)
	return u.connections < Connections && u.bytes < Bytes
}

func (b *budget) newest() *use { return &b.slots[b.at%int64(len(b.slots))] }

// connect books a connection.
func (b *budget) connect(now time.Time) bool {
	ok := b.left(now)
	if ok {
		b.newest().connections++
	}
	return ok
}

// spend books n bytes, where there is room for all of them; else nothing is left, as somebody is told.
func (b *budget) spend(now time.Time, n int) bool {
	room := Bytes - b.used(now).bytes
	b.newest().bytes += min(n, room)
	return n <= room
}

// spent is what somebody is to hear of an entry where there was no room: once in an hour.
func (b *budget) spent(room bool, e *Entry, now time.Time) []Event {
	if room || !b.told.IsZero() && now.Sub(b.told) < window {
		return nil
	}
	b.told = now
	return []Event{{Spent, *e}}
}
