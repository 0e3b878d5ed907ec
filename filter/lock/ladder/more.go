package ladder

import (
	"time"

	"sluice/filter/policy"
)

// evenly is from how many percent on a message is likelier bad than good by what it says alone.
const evenly = 50

// look notes how a message looks that goes on.
func (s *Sender) look(now time.Duration, e Event, r *policy.Lock) {
	if e.Likely < evenly {
		return
	}
	if s.likely == nil {
		s.likely = &ring{}
	}
	s.likely.add(now, r.Window, int(min(e.Likely, 100)))
}

// looks is how much of a sender's mail within the window was found bad or went on and is likelier bad than good, in percent of a
// message, of how many. Where nothing was found it is nothing.
func (s *Sender) looks(now time.Duration, r *policy.Lock, n *numbers) (bad, all int) {
	found := n.short[Spam] + n.short[Phish]
	if found == 0 || r.SpamCount == 0 {
		return 0, 0
	}
	bad, all = 100*found, found+s.short.sum(now, r.Window)
	if s.likely != nil {
		bad += s.likely.sum(now, r.Window)
	}
	return min(bad, 100*all), all
}

// More tells whether a message that is bad by so many percent looks like more of what was found bad of its sender within the
// window, if anything was. Its text says nothing of him: so its odds are multiplied by those of his other mail there, with one
// bad and one good message more; they never speak for it.
func (s *Sender) More(now time.Duration, likely uint8, r *policy.Lock) bool {
	if likely == 0 {
		return false
	}
	n := s.numbers(now, r)
	bad, all := s.looks(now, r, &n)
	return bad > 0 && int(likely) >= min(evenly, 100-(100+bad)/(all+2))
}

// mostly tells whether at least half of a sender's mail within the window is bad or looks so, and that is half as much as locks:
// then the rest of it is not good because nothing is found in it.
func (s *Sender) mostly(now time.Duration, r *policy.Lock, probation bool, n *numbers) (Cause, bool) {
	bad, all := s.looks(now, r, n)
	c := Cause{Rule: "looks", Bad: (bad + 50) / 100, All: all, Share: true, Over: r.Window}
	return c, bad > 0 && 2*bad >= 100*few(r.SpamCount, probation) && Enough(bad, 100*all, 0.5)
}
