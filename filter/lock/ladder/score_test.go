package ladder

import (
	"testing"
	"time"

	"sluice/filter/policy"
)

// TestScore: what conduct earns which reputation, and what that brings (REP2).
func TestScore(t *testing.T) {
	t.Parallel()
	r := policy.Default().Lock
	for _, c := range []struct {
		name        string
		good, spam  int
		more        map[Kind]int
		least, most int
		rung        Rung
	}{
		{"nobody", 0, 0, nil, 0, 0, Free},
		{"a shop with two in a hundred misjudged", 1000, 20, nil, 1, 14, Free},
		{"a newsletter", 20000, 1, nil, 0, 0, Free},
		{"three bad texts of ten", 7, 3, nil, 15, 54, Throttled},
		{"ten bad texts of twenty", 10, 10, nil, 55, 79, Held},
		{"a virus", 100, 0, map[Kind]int{Virus: 1}, 55, 79, Held},
		{"a complaint", 100, 0, map[Kind]int{Complaint: 1}, 15, 54, Throttled},
		{"spam and complaints", 10, 10, map[Kind]int{Complaint: 3}, 80, 100, Held},
		{"few unknown recipients", 100, 0, map[Kind]int{Unknown: 19, Known: 19}, 0, 0, Free},
		{"half of the recipients unknown", 100, 0, map[Kind]int{Unknown: 50, Known: 50}, 15, 54, Throttled},
		{"guessing", 0, 0, map[Kind]int{Guess: 20}, 15, 54, Throttled},
		{"everything", 0, 20, map[Kind]int{Complaint: 3, Virus: 1, Trap: 1, Guess: 30, Unknown: 60, Remote: 20}, 100, 100, Held},
	} {
		var s Sender
		for range c.good {
			s.Tell(noon, Event{Kind: Good}, &r)
		}
		for i := range c.spam {
			s.Tell(noon, Event{Kind: Spam, Print: Spread(uint64(i + 1))}, &r)
		}
		for k, n := range c.more {
			for range n {
				s.Tell(noon, Event{Kind: k}, &r)
			}
		}
		score, of := s.Score(noon, &r)
		sum := 0
		for _, f := range of {
			sum += f.Points
		}
		if score < c.least || score > c.most || ByScore(score, &r) != c.rung || min(100, sum) != score {
			t.Errorf("%s: %d (%v), want %d to %d and %v", c.name, score, of, c.least, c.most, c.rung)
		}
		if score, _ := s.Score(noon+26*time.Hour, &r); score != 0 {
			t.Errorf("%s: %d after a day, want 0", c.name, score)
		}
	}
}
