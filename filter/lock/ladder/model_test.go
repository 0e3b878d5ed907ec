package ladder

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sluice/filter/policy"
)

// model is what should be true of a sender: a plain list of all that happened, looked at as a whole each time.
type model struct {
	all       []told
	probation time.Duration
}

type told struct {
	at time.Duration
	e  Event
}

// marks is what speaks against a sender in a window: of the copies of one text the latest.
func (m *model) marks(now, over time.Duration) (all []Event) {
	texts := map[string]bool{}
	for i := len(m.all) - 1; i >= 0; i-- {
		t := m.all[i]
		if t.at <= now-over || t.e.Kind == Good || t.e.Kind == Doubtful || t.e.Kind == Known || t.e.Kind == Unknown {
			continue
		}
		key := fmt.Sprint(t.e.Kind, t.e.Print, t.e.Firm)
		if t.e.Print == 0 || !texts[key] {
			all = append(all, t.e)
		}
		texts[key] = true
	}
	return all
}

// ring is how many of a kind count in a window that forgets a slot at a time.
func (m *model) ring(now, over time.Duration, k Kind) (n int) {
	for _, t := range m.all {
		if (t.e.Kind == k || k == Good && t.e.Kind == Doubtful) && slotOf(t.at, over) >= slotOf(now, over)-slots {
			n++
		}
	}
	return n
}

// doubtful is what the scores of a window come to, in percent.
func (m *model) doubtful(now, over time.Duration) (n int) {
	for _, t := range m.all {
		if t.e.Kind == Doubtful && slotOf(t.at, over) >= slotOf(now, over)-slots {
			n += int(t.e.Score)
		}
	}
	return n
}

func (m *model) origins(now time.Duration) int {
	seen := map[uint32]bool{}
	for _, e := range m.marks(now, time.Hour) {
		if (e.Kind == Spam || e.Kind == Phish) && e.Origin != 0 {
			seen[e.Origin] = true
		}
	}
	return len(seen)
}

// judge is the rule book in its plainest words.
func (m *model) judge(now time.Duration, r *policy.Lock) Rung {
	half := func(n int) int {
		if now < m.probation {
			return max(1, n/2)
		}
		return n
	}
	several := m.origins(now) >= r.Origins
	count := func(over time.Duration, take func(Event) bool) (n int) {
		for _, e := range m.marks(now, over) {
			if (several || e.Origin == 0) && take(e) {
				n++
			}
		}
		return n
	}
	is := func(ks ...Kind) func(Event) bool {
		return func(e Event) bool {
			for _, k := range ks {
				if e.Kind == k {
					return true
				}
			}
			return false
		}
	}
	share := func(n, others int, s float64) bool { return float64(n)+1e-9 >= s*float64(n+others) }
	spam := is(Spam, Phish)
	firm := func(e Event) bool { return e.Firm && spam(e) }
	n, d, h := count(r.Window, spam), count(24*time.Hour, spam), count(time.Hour, is(Remote))
	nShare, dShare := share(n, m.ring(now, r.Window, Good), r.SpamShare), share(d, m.ring(now, 24*time.Hour, Good), r.DayShare)
	hShare := share(h, m.ring(now, time.Hour, Good), r.SpamShare)
	f := count(r.Window, is(Passed))
	fShare := share(f, m.ring(now, r.Window, Good), r.ForwardedShare)
	u := m.ring(now, time.Hour, Unknown)
	if count(24*time.Hour, is(Virus)) >= r.Viruses || count(24*time.Hour, is(Trap)) >= half(r.Traps) || count(24*time.Hour, is(Phish)) >= half(r.Phish) ||
		count(r.Window, firm) >= half(r.SpamCount) || nShare && n >= half(r.SpamCount) || dShare && d >= half(r.DayCount) ||
		count(24*time.Hour, is(Complaint)) >= half(r.Complaints) || hShare && h >= half(r.RemoteSpam) ||
		u >= half(r.Unknown) && share(u, m.ring(now, time.Hour, Known), r.UnknownShare) || count(time.Hour, is(Guess)) >= half(r.Guesses) ||
		fShare && f >= half(4*r.SpamCount) {
		return Locked
	}
	near, scored := 0.0, false
	for i, over := range []time.Duration{r.Window, time.Hour, 24 * time.Hour} {
		bad := count(over, spam)
		n, all := 100*bad+m.doubtful(now, over), bad+m.ring(now, over, Good)
		if n > 100*bad && float64(n)+1e-9 >= 100*r.Average*float64(all) {
			if scored = scored || n >= 100*half(r.AverageCount)<<i; i == 0 {
				near = float64(n) / float64(100*half(r.AverageCount))
			}
		}
	}
	if scored {
		return Locked
	}
	for _, c := range []struct {
		n, need int
		ok      bool
	}{
		{count(r.Window, firm), half(r.SpamCount), true}, {n, half(r.SpamCount), nShare}, {d, half(r.DayCount), dShare},
		{count(24*time.Hour, is(Complaint)), half(r.Complaints), true}, {h, half(r.RemoteSpam), hShare},
	} {
		if c.ok {
			near = max(near, float64(c.n)/float64(c.need))
		}
	}
	switch all := n + m.ring(now, r.Window, Good); {
	case n > 0 && 2*n >= half(r.SpamCount) && 2*n >= all: // nothing looks bad here and is not found
		return Held
	case near >= 0.8-1e-9:
		return Held
	case near >= 0.6-1e-9:
		return Throttled
	case len(m.marks(now, 24*time.Hour)) > 0:
		return Watched
	}
	return Free
}

// TestAgainstModel tells random histories to a sender and to the model.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	seen := map[Rung]int{}
	for seed := range uint64(150) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		r := policy.Default().Lock
		if seed%2 == 1 {
			r.Window, r.SpamCount, r.Viruses, r.Phish, r.Traps = time.Hour, 9, 2, 6, 3
		}
		weights := make([]int, kinds)
		for k := range weights {
			weights[k] = rnd.IntN(4)
		}
		weights[Good] *= 10
		weights[Known] *= 5
		var s Sender
		var m model
		now := time.Duration(rnd.Int64N(1e18))
		for step := range 500 {
			switch n := rnd.IntN(20); {
			case n == 0:
				now += time.Duration(rnd.Int64N(int64(8 * time.Hour)))
			case n < 6:
				now += time.Duration(rnd.Int64N(int64(5 * time.Minute)))
			}
			var back Sender
			if err := back.Restore(s.Append(nil), now); err != nil {
				t.Fatalf("seed %d, step %d: Restore: %v", seed, step, err)
			}
			s = back
			got, cause := s.Judge(now, &r)
			if want := m.judge(now, &r); got != want {
				t.Fatalf("seed %d, step %d at %v: %v (%s), the model says %v", seed, step, now, got, cause.String(), want)
			}
			seen[got]++
			if got == Locked && rnd.IntN(4) > 0 {
				s.Release(now, &r)
				m = model{probation: now + r.Probation}
				continue
			}
			e := Event{Kind: pick(rnd, weights)}
			switch e.Kind {
			case Good, Known, Unknown:
			case Doubtful:
				e.Score = uint8(80 + rnd.IntN(20))
			default:
				if rnd.IntN(3) > 0 { // prints far apart
					e.Print = 0x9E3779B97F4A7C15 * uint64(1+rnd.IntN(12))
				}
				e.Firm = rnd.IntN(6) == 0
				e.Origin = uint32(max(0, rnd.IntN(8)-3))
			}
			s.Tell(now, e, &r)
			m.all = append(m.all, told{now, e})
		}
	}
	for _, r := range []Rung{Free, Watched, Throttled, Held, Locked} {
		if seen[r] < 40 {
			t.Errorf("%v was met %d times only", r, seen[r])
		}
	}
}

func pick(rnd *rand.Rand, weights []int) Kind {
	sum := 1
	for _, w := range weights {
		sum += w
	}
	n := rnd.IntN(sum)
	for k, w := range weights {
		if n -= w; n < 0 {
			return Kind(k)
		}
	}
	return Good
}
