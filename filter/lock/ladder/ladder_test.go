package ladder

import (
	"strconv"
	"testing"
	"time"

	"sluice/filter/policy"
)

const noon = 20000 * 24 * time.Hour

func TestRungs(t *testing.T) {
	t.Parallel()
	r := policy.Default().Lock
	var s Sender
	for range 4 {
		s.Tell(noon, Event{Kind: Good}, &r)
	}
	for i, want := range []Rung{Watched, Watched, Throttled, Held, Locked} {
		s.Tell(noon, Event{Kind: Spam, Print: uint64(i+1) * 0x9E3779B97F4A7C15}, &r)
		if got, _ := s.Judge(noon, &r); got != want {
			t.Errorf("after %d spam messages: %v, want %v", i+1, got, want)
		}
	}
	if got, _ := s.Judge(noon+11*time.Minute, &r); got != Watched {
		t.Errorf("eleven minutes later: %v, want watched", got)
	}
	if got, _ := s.Judge(noon+25*time.Hour, &r); got != Free {
		t.Errorf("a day later: %v, want free", got)
	}
}

func TestCopiesCountOnce(t *testing.T) {
	t.Parallel()
	r := policy.Default().Lock
	var s, firm Sender
	for i := range 1000 {
		print := uint64(0xABCDEF0123456789) ^ 1<<(i%5) // copies differ a little
		s.Tell(noon, Event{Kind: Spam, Print: print}, &r)
		if i < 5 {
			firm.Tell(noon, Event{Kind: Spam, Print: print, Firm: true}, &r)
		}
	}
	if got, _ := s.Judge(noon, &r); got != Watched {
		t.Errorf("a thousand copies of one message: %v, want watched", got)
	}
	for range 1000 {
		firm.Tell(noon, Event{Kind: Good}, &r)
	}
	if got, c := firm.Judge(noon, &r); got != Locked || c.Rule != "firm" {
		t.Errorf("five copies against which a list speaks: %v by %q, want locked, whatever the share", got, c.Rule)
	}
}

// TestProbation: half is enough, and he sends slowly.
func TestProbation(t *testing.T) {
	t.Parallel()
	r := policy.Default().Lock
	var s Sender
	s.Release(noon, &r)
	for i := range r.ProbationRate {
		if s.Slow(noon, Free, &r) {
			t.Fatalf("slow after %d messages", i)
		}
		s.Tell(noon, Event{Kind: Good}, &r)
	}
	if !s.Slow(noon, Free, &r) || s.Slow(noon+2*time.Hour, Free, &r) {
		t.Error("the rate of the probation is not kept, or not given back")
	}
	later := noon + 2*time.Hour
	s.Tell(later, Event{Kind: Spam, Print: 1}, &r)
	s.Tell(later, Event{Kind: Spam, Print: ^uint64(0)}, &r)
	if got, _ := s.Judge(later, &r); got != Locked {
		t.Errorf("two spam messages on probation: %v, want locked", got)
	}
	if s.OnProbation(noon + 25*time.Hour) {
		t.Error("the probation does not end")
	}
}

// TestThrottled: near a lock a sender may send so much within the window.
// TestAverages: different messages that look bad on average lock, in ten minutes, an hour or a day, though each goes on; copies
// of one do not, nor do a few among many.
func TestAverages(t *testing.T) {
	t.Parallel()
	r := policy.Default().Lock
	for _, c := range []struct {
		name  string
		every time.Duration
		of    int // each so many-th is doubtful
		copy  bool
		want  string
	}{
		{"in minutes", time.Minute, 1, false, "score"},
		{"in an hour", 3 * time.Minute, 1, false, "score-hour"},
		{"in a day", 40 * time.Minute, 1, false, "score-day"},
		{"copies", time.Second, 1, true, ""},
		{"a few", time.Second, 3, false, ""},
	} {
		var s Sender
		now, rule := noon, ""
		for i := range 60 {
			e := Event{Kind: Good}
			if i%c.of == 0 {
				if e = (Event{Kind: Doubtful, Score: 90}); c.copy {
					e.Print = 7
				}
			}
			s.Tell(now, e, &r)
			if rung, cause := s.Judge(now, &r); rung == Locked && rule == "" {
				rule = cause.Rule
				if want := (map[string]string{"score": "10 minutes", "score-hour": "1 hour", "score-day": "24 hours"})[rule]; cause.String() != "sent "+strconv.Itoa(i+1)+" messages in "+want+" that look bad by "+strconv.Itoa(100*cause.Bad/(i+1))+" % on average" {
					t.Errorf("%s: %s", c.name, cause.String())
				}
			}
			now += c.every
		}
		if rule != c.want {
			t.Errorf("%s: %q locks, want %q", c.name, rule, c.want)
		}
	}
}

func TestThrottled(t *testing.T) {
	t.Parallel()
	r := policy.Default().Lock
	var s Sender
	for range r.Throttled - 1 {
		s.Tell(noon, Event{Kind: Good}, &r)
	}
	if s.Slow(noon, Throttled, &r) || s.Slow(noon, Watched, &r) {
		t.Error("slow too early")
	}
	s.Tell(noon, Event{Kind: Good}, &r)
	if !s.Slow(noon, Throttled, &r) || s.Slow(noon, Watched, &r) {
		t.Error("who is throttled, and nobody else, is slow from here on")
	}
}

// TestOneOfSeveralIsNotTheUser: what one identity does is not its user's doing, what three do is.
func TestOneOfSeveralIsNotTheUser(t *testing.T) {
	t.Parallel()
	r := policy.Default().Lock
	var s Sender
	for i := range 50 {
		s.Tell(noon, Event{Kind: Spam, Print: uint64(i) * 0x9E3779B97F4A7C15, Origin: 1 + uint32(i)%2}, &r)
	}
	if got, _ := s.Judge(noon, &r); got != Watched {
		t.Errorf("two identities: %v, want watched", got)
	}
	s.Tell(noon, Event{Kind: Spam, Origin: 3}, &r)
	if got, _ := s.Judge(noon, &r); got != Locked {
		t.Errorf("three identities: %v, want locked", got)
	}
}

func TestDamagedStateIsNoPanic(t *testing.T) {
	t.Parallel()
	r := policy.Default().Lock
	var s Sender
	for i := range 3 {
		s.Tell(noon, Event{Kind: Spam, Print: uint64(i), Firm: true}, &r)
		s.Tell(noon, Event{Kind: Good}, &r)
	}
	text := s.Append(nil)
	for i := range text {
		var back Sender
		if err := back.Restore(text[:i], noon); err == nil {
			t.Errorf("the first %d of %d bytes are taken for whole", i, len(text))
		}
		odd := append([]byte(nil), text...)
		odd[i] ^= 0xff
		_ = back.Restore(odd, noon) // any result but a panic
		back.Judge(noon, &r)
	}
}

// TestQuietSendersAreForgotten: nothing is kept of one of whom nothing counts.
func TestQuietSendersAreForgotten(t *testing.T) {
	t.Parallel()
	r := policy.Default().Lock
	for k := range kinds {
		var s Sender
		s.Tell(noon, Event{Kind: k}, &r)
		if s.Quiet(noon+59*time.Minute, &r) || !s.Quiet(noon+26*time.Hour, &r) {
			t.Errorf("kind %d: quiet after an hour %v, after a day %v", k, s.Quiet(noon+59*time.Minute, &r), s.Quiet(noon+26*time.Hour, &r))
		}
	}
}

// BenchmarkJudge: the most marks that a sender can have.
func BenchmarkJudge(b *testing.B) {
	r := policy.Default().Lock
	var s Sender
	for i := range Keep {
		s.Tell(noon, Event{Kind: Spam, Print: uint64(i) * 0x9E3779B97F4A7C15, Origin: 1}, &r)
	}
	b.ReportAllocs()
	for i := range b.N {
		s.Tell(noon, Event{Kind: Spam, Print: uint64(i%Keep) * 0x9E3779B97F4A7C15, Origin: 1}, &r)
		s.Judge(noon, &r)
	}
}
