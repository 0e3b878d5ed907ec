package ladder

import (
	"testing"
	"time"

	"sluice/filter/policy"
)

// TestMore: from which probability on a message looks like more of what was found, by what else went on within the window.
func TestMore(t *testing.T) {
	t.Parallel()
	r := policy.Default().Lock
	for _, c := range []struct {
		name              string
		found, good       int
		likely            []uint8 // of those that went on
		from              uint8   // 0: never
		held, onProbation bool
	}{
		{"nothing was found", 0, 0, []uint8{95, 95, 95, 95}, 0, false, false},
		{"one was found, and nothing else is known", 1, 0, nil, 34, false, true},
		{"one among few", 1, 2, nil, 50, false, false},
		{"one among many", 1, 40, nil, 50, false, false},
		{"one, and one looked bad", 1, 0, []uint8{95}, 27, false, true},
		{"what looks good says nothing", 1, 0, []uint8{49}, 50, false, true},
		{"one, two looked bad, one did not", 1, 1, []uint8{95, 72}, 39, true, true},
		{"one, two looked bad, and more did not", 1, 3, []uint8{95, 72}, 50, false, false},
		{"one, two looked a little bad", 1, 0, []uint8{55, 55}, 38, false, true},
		{"three", 3, 0, nil, 20, true, true},
		{"three of seven", 3, 4, nil, 50, false, true},
		{"one of many that look bad", 1, 0, []uint8{99, 99, 99, 99, 99, 99, 99, 99, 99, 99}, 9, true, true},
	} {
		for _, probation := range []bool{false, true} {
			var s Sender
			now := noon
			if probation {
				s.Release(noon, &r)
			}
			for i := range c.found {
				s.Tell(now, Event{Kind: Spam, Print: uint64(i+1) * 0x9E3779B97F4A7C15}, &r)
			}
			for range c.good {
				s.Tell(now, Event{Kind: Good}, &r)
			}
			for _, p := range c.likely {
				s.Tell(now, Event{Kind: Good, Likely: p}, &r)
			}
			for p := uint8(0); p <= 100; p++ {
				if got, want := s.More(now, p, &r), c.from > 0 && p >= c.from; got != want {
					t.Errorf("%s: more of it by %d %%: %v, want %v", c.name, p, got, want)
				}
			}
			want := c.held
			if probation {
				want = c.onProbation
			}
			if rung, cause := s.Judge(now, &r); (rung >= Held) != want {
				t.Errorf("%s, on probation %v: %v (%s), held should be %v", c.name, probation, rung, cause.String(), want)
			} else if rung == Held && cause.Rule == "" {
				t.Errorf("%s: held for nothing", c.name)
			}
			now += r.Window + time.Minute
			if rung, _ := s.Judge(now, &r); s.More(now, 99, &r) || rung >= Held {
				t.Errorf("%s, after the window: %v", c.name, rung)
			}
		}
	}
	r.SpamCount = 0
	var s Sender
	s.Tell(noon, Event{Kind: Spam}, &r)
	if rung, _ := s.Judge(noon, &r); s.More(noon, 99, &r) || rung >= Held {
		t.Errorf("where spam never locks: %v", rung)
	}
}
