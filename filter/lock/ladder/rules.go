package ladder

import (
	"fmt"
	"math/bits"
	"time"

	"sluice/filter/policy"
)

// alikeBits is in how many of 64 bits the prints of two copies of one text may differ. Of 2,000 letters made out to ten
// names each all copies are within it, but for letters of fewer than 20 words; of 500,000 pairs of different spam 4 in 1,000.
const alikeBits = 16

// Alike tells whether two prints are of one text.
func Alike(a, b uint64) bool { return bits.OnesCount64(a^b) <= alikeBits }

// rule is one that can lock.
type rule struct {
	name  string
	what  Kind // Spam: phishing, too
	firm  bool // of these what is firm
	over  time.Duration
	need  int     // 0: never met
	share float64 // of all messages, or recipients, in the window
	steps bool    // coming near it already has consequences
}

// rules are those of a sender with the settings r. On probation half is enough.
func rules(r *policy.Lock, probation bool) [14]rule {
	few := func(n int) int { return few(n, probation) }
	return [...]rule{
		{"virus", Virus, false, day, r.Viruses, 0, false},
		{"trap", Trap, false, day, few(r.Traps), 0, false},
		{"phish", Phish, false, day, few(r.Phish), 0, false},
		{"firm", Spam, true, r.Window, few(r.SpamCount), 0, true},
		{"spam", Spam, false, r.Window, few(r.SpamCount), r.SpamShare, true},
		{"spam-day", Spam, false, day, few(r.DayCount), r.DayShare, true},
		{"complaints", Complaint, false, day, few(r.Complaints), 0, true},
		{"remote", Remote, false, hour, few(r.RemoteSpam), r.SpamShare, true},
		{"recipients", Unknown, false, hour, few(r.Unknown), r.UnknownShare, false},
		{"guessing", Guess, false, hour, few(r.Guesses), 0, false},
		{"forwarded", Passed, false, r.Window, few(r.SpamCount * passedMore), r.ForwardedShare, false},
		{"score", Doubtful, false, r.Window, few(r.AverageCount), r.Average, true},
		{"score-hour", Doubtful, false, hour, 2 * few(r.AverageCount), r.Average, false},
		{"score-day", Doubtful, false, day, 4 * few(r.AverageCount), r.Average, false},
	}
}

// few is how many of what locks after so many are enough.
func few(n int, probation bool) int {
	if probation && n > 0 {
		return max(1, n/2)
	}
	return n
}

// passedMore is how many times more forwarded spam locks: everybody's mailbox gets some.
const passedMore = 4

// From which part of the number that locks a sender is throttled and held.
const (
	throttledFrom = 0.6
	heldFrom      = 0.8
)

// Judge returns how far a sender has come, and the rule that speaks most against him. Of a larger sender, in which
// others are told apart (Event.Origin), it counts only what no single one of them answers for: what comes from nobody
// known, and all as soon as several of them sent bad mail within an hour (ATT4).
func (s *Sender) Judge(now time.Duration, r *policy.Lock) (Rung, Cause) {
	s.expire(now)
	probation := s.OnProbation(now)
	rung, best, cause := Free, 0.0, Cause{}
	if len(s.marks) == 0 && s.unknown.total == 0 && s.doubts == nil {
		return rung, cause
	}
	if len(s.marks) > 0 {
		rung = Watched
	}
	n := s.numbers(now, r)
	for _, u := range rules(r, probation) {
		fill, c := s.fill(now, &u, r, &n)
		switch {
		case fill <= best:
			continue
		case fill >= 1:
			return Locked, c
		case !u.steps:
			continue
		}
		best, cause = fill, c
		switch {
		case fill >= heldFrom-1e-9:
			rung = Held
		case fill >= throttledFrom-1e-9:
			rung = max(rung, Throttled)
		}
	}
	if c, is := s.mostly(now, r, probation, &n); is && rung < Held {
		return Held, c
	}
	return rung, cause
}

// fill tells how much of what a rule asks for is there; 1 and above lock.
func (s *Sender) fill(now time.Duration, u *rule, r *policy.Lock, nums *numbers) (float64, Cause) {
	if u.need <= 0 {
		return 0, Cause{}
	}
	n := nums.of(u)
	c := Cause{Rule: u.name, Bad: n, All: n, Share: u.share > 0, Over: u.over}
	if u.what == Doubtful {
		return s.average(now, u, r, nums, c)
	}
	if n == 0 {
		return 0, c
	}
	if u.share > 0 {
		c.All = n + s.others(now, u, r)
		if !Enough(n, c.All, u.share) {
			return 0, c
		}
	}
	return float64(n) / float64(u.need), c
}

// average is fill of a rule about how bad messages look: what is found bad is certain, and the doubtful stand among the others.
func (s *Sender) average(now time.Duration, u *rule, r *policy.Lock, nums *numbers, c Cause) (float64, Cause) {
	w := nums.within(u)
	bad := w[Spam] + w[Phish]
	percent := 100*bad + w[Doubtful]
	c.Bad, c.All = (percent+50)/100, bad+s.others(now, u, r)
	if w[Doubtful] == 0 || !Enough(percent, 100*c.All, u.share) { // without doubts other rules say enough
		return 0, c
	}
	return float64(percent) / float64(100*u.need), c
}

// Enough tells whether n of all are at least a share.
func Enough(n, all int, share float64) bool {
	// The tiny allowance keeps 1 of 5 at a share of 20 % although 0.2 has no exact binary form.
	return float64(n) >= share*float64(all)-1e-9
}

// others is what stands beside that which a rule counts, in the rule's window.
func (s *Sender) others(now time.Duration, u *rule, r *policy.Lock) int {
	switch {
	case u.what == Unknown:
		return s.known.sum(now, hour)
	case u.over == r.Window:
		return s.short.sum(now, r.Window)
	case u.over == day:
		return s.day.sum(now, day)
	}
	return s.hour.sum(now, hour)
}

// numbers are how often what speaks against a sender stands in each window.
type numbers struct {
	window time.Duration
	short  [kinds + 1]int // the last one: firm spam
	hour   [kinds + 1]int
	day    [kinds + 1]int
}

// of is what a rule counts.
func (n *numbers) of(u *rule) int {
	w := n.within(u)
	switch {
	case u.firm:
		return w[kinds]
	case u.what == Spam:
		return w[Spam] + w[Phish]
	}
	return w[u.what]
}

// within is what stands in a rule's window.
func (n *numbers) within(u *rule) *[kinds + 1]int {
	switch u.over {
	case n.window:
		return &n.short
	case day:
		return &n.day
	}
	return &n.hour
}

// numbers counts the marks, in one pass, and what is counted without them.
func (s *Sender) numbers(now time.Duration, r *policy.Lock) numbers {
	n := numbers{window: r.Window}
	several := r.Origins > 0 && s.origins(now) >= r.Origins
	for i := range s.marks {
		m := &s.marks[i]
		if m.origin != 0 && !several {
			continue
		}
		n.add(&n.day, m)
		if m.at > now-hour {
			n.add(&n.hour, m)
		}
		if m.at > now-r.Window {
			n.add(&n.short, m)
		}
	}
	n.hour[Unknown] = s.unknown.sum(now, hour)
	n.short[Unknown], n.day[Unknown] = n.hour[Unknown], n.hour[Unknown]
	n.short[Doubtful], n.hour[Doubtful], n.day[Doubtful] = s.doubtful(now, r)
	return n
}

func (n *numbers) add(w *[kinds + 1]int, m *mark) {
	w[m.kind]++
	if m.firm && (m.kind == Spam || m.kind == Phish) {
		w[kinds]++
	}
}

// origins is how many of those told apart inside of a sender sent bad mail within an hour.
func (s *Sender) origins(now time.Duration) int {
	var seen [8]uint32
	n := 0
next:
	for i := len(s.marks) - 1; i >= 0 && s.marks[i].at > now-hour && n < len(seen); i-- {
		m := &s.marks[i]
		if m.origin == 0 || m.kind != Spam && m.kind != Phish {
			continue
		}
		for _, have := range seen[:n] {
			if have == m.origin {
				continue next
			}
		}
		seen[n] = m.origin
		n++
	}
	return n
}

// Slow tells whether a sender on a rung has sent all that he may for now.
func (s *Sender) Slow(now time.Duration, rung Rung, r *policy.Lock) bool {
	if rung == Throttled && r.Throttled > 0 && s.short.sum(now, r.Window) >= r.Throttled {
		return true
	}
	return r.ProbationRate > 0 && s.OnProbation(now) && s.hour.sum(now, hour) >= r.ProbationRate
}

// String tells what met the rule, in words that end "sent …".
func (c *Cause) String() string {
	over := words(c.Over)
	switch c.Rule {
	case "virus":
		return "sent a virus"
	case "trap":
		return fmt.Sprintf("wrote to %s that nobody has", plural(c.Bad, "address", "addresses"))
	case "phish":
		return fmt.Sprintf("sent %s in %s", plural(c.Bad, "phishing message", "phishing messages"), over)
	case "firm":
		return fmt.Sprintf("sent %d messages in %s against which lists or signatures speak", c.Bad, over)
	case "complaints":
		return fmt.Sprintf("brought %s in %s", plural(c.Bad, "complaint", "complaints"), over)
	case "remote":
		return fmt.Sprintf("had %d messages refused as spam by their destinations in %s, %d %% of all", c.Bad, over, percent(c))
	case "recipients":
		return fmt.Sprintf("wrote to %d recipients that do not exist in %s, %d %% of all", c.Bad, over, percent(c))
	case "forwarded":
		return fmt.Sprintf("forwarded %d spam messages in %s, %d %% of all", c.Bad, over, percent(c))
	case "score", "score-hour", "score-day":
		return fmt.Sprintf("sent %d messages in %s that look bad by %d %% on average", c.All, over, percent(c))
	case "looks":
		return fmt.Sprintf("sent %d messages in %s that were found bad or look so, %d %% of all", c.Bad, over, percent(c))
	case "guessing":
		return fmt.Sprintf("tried %d logins in %s that destinations refused", c.Bad, over)
	}
	return fmt.Sprintf("sent %d spam messages in %s, %d %% of all", c.Bad, over, percent(c))
}

func percent(c *Cause) int { return 100 * c.Bad / max(1, c.All) }

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func words(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return plural(int(d/time.Hour), "hour", "hours")
	case d%time.Minute == 0:
		return plural(int(d/time.Minute), "minute", "minutes")
	}
	return d.String()
}
