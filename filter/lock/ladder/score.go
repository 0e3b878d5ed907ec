package ladder

import (
	"fmt"
	"time"

	"sluice/filter/policy"
)

// Factor is one part of a score.
type Factor struct {
	Name   string // as it stands in API and history
	Points int
	Why    string // what it rests on
}

// fewBad is from how many bad texts on their share counts in full.
const fewBad = 10

// leastUnknown is from how many unknown recipients on their share counts (LIM3).
const leastUnknown = 20

// Score returns what speaks against a sender, from 0 (nothing) to 100, and of what it is made (REP2). It rests on shares, so
// that who sends much is not worse for that.
func (s *Sender) Score(now time.Duration, r *policy.Lock) (score int, of []Factor) {
	s.expire(now)
	n := s.numbers(now, r)
	add := func(name string, most, part float64, why string) {
		if p := int(most*min(1, part) + 0.5); p > 0 {
			of = append(of, Factor{name, p, why})
			score += p
		}
	}
	if bad := n.day[Spam] + n.day[Phish]; bad > 0 {
		share := float64(bad) / float64(bad+s.day.sum(now, day))
		add("spam", 60, min(1, share/0.25)*min(1, float64(bad)/fewBad), fmt.Sprintf("%d bad texts within a day, %.1f %% of all", bad, 100*share))
	}
	add("phish", 60, float64(n.day[Phish])/2, plural(n.day[Phish], "phishing message", "phishing messages")+" within a day")
	add("virus", 60, float64(n.day[Virus]), plural(n.day[Virus], "virus", "viruses")+" within a day")
	add("trap", 60, float64(n.day[Trap]), plural(n.day[Trap], "message", "messages")+" within a day to an address that nobody has")
	add("complaints", 60, float64(n.day[Complaint])/3, plural(n.day[Complaint], "complaint", "complaints")+" within a day")
	if seen := n.hour[Remote]; seen > 0 && r.RemoteSpam > 0 && Enough(seen, seen+s.hour.sum(now, hour), r.SpamShare) {
		add("remote", 40, float64(seen)/float64(r.RemoteSpam), fmt.Sprintf("%d messages within an hour that destinations took for spam", seen))
	}
	if lost := n.hour[Unknown]; lost >= leastUnknown && r.UnknownShare > 0 {
		share := float64(lost) / float64(lost+s.known.sum(now, hour))
		add("recipients", 40, share/r.UnknownShare, fmt.Sprintf("%d recipients within an hour that do not exist, %.0f %% of all", lost, 100*share))
	}
	if r.Guesses > 0 {
		add("guessing", 30, float64(n.hour[Guess])/float64(r.Guesses), fmt.Sprintf("%d logins within an hour that destinations refused", n.hour[Guess]))
	}
	if s.OnProbation(now) {
		add("locked lately", 10, 1, "a lock ended lately")
	}
	return min(100, score), of
}

// ByScore is the rung that a score alone puts a sender on.
func ByScore(score int, r *policy.Lock) Rung {
	switch {
	case r.ScoreHeld > 0 && score >= r.ScoreHeld:
		return Held
	case r.ScoreSlow > 0 && score >= r.ScoreSlow:
		return Throttled
	}
	return Free
}
