package ladder

import (
	"time"

	"sluice/filter/policy"
)

// doubts are the scores of a sender's messages that went on although they looked bad, in percent. A text counts once as long
// as it is among the latest: one newsletter that looks bad is one message that does.
type doubts struct {
	short ring
	hour  ring
	day   ring
	seen  [16]uint64 // prints
	next  uint8
}

// doubtsTell is the sum of scores, five messages or so, from which on they are worth to be kept over a restart.
const doubtsTell = 400

func (s *Sender) doubt(now time.Duration, e Event, r *policy.Lock) {
	if s.doubts == nil {
		s.doubts = &doubts{}
	}
	d := s.doubts
	if e.Print != 0 {
		for _, p := range d.seen {
			if p != 0 && Alike(p, e.Print) {
				return
			}
		}
		d.seen[d.next%uint8(len(d.seen))] = e.Print
		d.next++
	}
	n := int(min(e.Score, 100))
	d.short.add(now, r.Window, n)
	d.hour.add(now, hour, n)
	d.day.add(now, day, n)
}

// doubtful is what the scores of each window come to, in percent.
func (s *Sender) doubtful(now time.Duration, r *policy.Lock) (short, hours, days int) {
	if s.doubts == nil {
		return 0, 0, 0
	}
	d := s.doubts
	return d.short.sum(now, r.Window), d.hour.sum(now, hour), d.day.sum(now, day)
}
