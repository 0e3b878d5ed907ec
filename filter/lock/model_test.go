package lock

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"sluice/filter"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// modelUser is the reference: what one user's lock should be, kept as plain lists.
type modelUser struct {
	good    []time.Duration // slot ends are not modelled: the test's good mail comes at multiples of the slot
	bad     map[string]time.Duration
	locked  bool
	auto    bool
	until   time.Duration // 0: no end
	unlocks int
}

func (m *modelUser) forget() { m.good, m.bad = nil, map[string]time.Duration{} }

// pass lets time go on to now.
func (m *modelUser) pass(now time.Duration) {
	if m.locked && m.until > 0 && m.until <= now {
		m.locked = false
		if m.auto {
			m.unlocks++
		}
		m.forget()
	}
}

func (m *modelUser) send(now time.Duration, s *policy.Lock, body string, c filter.Class) {
	if m.locked {
		return
	}
	if !c.Bad() {
		m.good = append(m.good, now)
		return
	}
	for b, at := range m.bad {
		if at <= now-s.Window {
			delete(m.bad, b)
		}
	}
	if _, seen := m.bad[body]; !seen {
		m.bad[body] = now
	}
	good := 0
	for _, at := range m.good {
		// A good message counts until its slot has left the window.
		if int64(at/slot) >= int64(now/slot)-64 {
			good++
		}
	}
	n := len(m.bad)
	if c == filter.Virus || n >= s.SpamCount && 100*n >= int(100*s.SpamShare)*(n+good) {
		m.lock(true, 0)
		if m.unlocks < s.MaxUnlocks {
			m.until = now + s.Time
		}
	}
}

func (m *modelUser) lock(auto bool, until time.Duration) {
	m.locked, m.auto, m.until = true, auto, until
	m.forget()
}

const slot = 10 * time.Minute / 64

// TestAgainstModel sends random sequences of events to the keeper and to the model.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { runModel(t, seed) })
		})
	}
}

func runModel(t *testing.T, seed uint64) {
	const users = 3
	rnd := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(t)
	s := w.table.Settings(1).Lock
	model := map[uint32]*modelUser{}
	for u := range uint32(users) {
		model[u+1] = &modelUser{}
		model[u+1].forget()
	}
	began, tallied := time.Now(), time.Now()
	for step := range 400 {
		user := uint32(rnd.IntN(users)) + 1
		m := model[user]
		// The tallies of keeper and model start their slots at the same moment.
		now := time.Since(tallied)
		what := ""
		switch n := rnd.IntN(100); {
		case n < 40:
			what = "spam"
			body := fmt.Sprint("spam ", rnd.IntN(8))
			m.send(now, &s, body, filter.Spam)
			w.send(user, body, filter.Spam)
		case n < 65:
			what = "good"
			m.send(now, &s, "", filter.Clean)
			w.send(user, "good", filter.Clean)
		case n < 67:
			what = "virus"
			m.send(now, &s, "virus", filter.Virus)
			w.send(user, "virus", filter.Virus)
		case n < 85:
			d := time.Duration(rnd.Int64N(int64(4 * time.Minute)))
			if rnd.IntN(10) == 0 {
				d *= 20
			}
			what = fmt.Sprint("sleep ", d)
			time.Sleep(d)
			synctest.Wait()
			now = time.Since(tallied)
		case n < 90:
			what = "unlock"
			_, err := w.keeper.Unlock(user, "op", "r")
			if (err == nil) != m.locked {
				t.Fatalf("step %d: Unlock of user %d says %v, the model is locked %v", step, user, err, m.locked)
			}
			if m.locked {
				m.locked = false
				m.forget()
			}
		case n < 94:
			d := time.Duration(rnd.IntN(2)) * 30 * time.Minute
			what = fmt.Sprint("lock ", d)
			if _, err := w.keeper.Lock(flow.User{ID: user}, Request{Who: "op", Reason: "r", Time: d}); err != nil {
				t.Fatal(err)
			}
			until := time.Duration(0)
			if d > 0 {
				until = now + d
			}
			m.lock(false, until)
		case n < 96:
			what = "reset"
			m.unlocks = 0
			if err := w.keeper.Reset(user, "op"); err != nil {
				t.Fatal(err)
			}
		default:
			what = "restart"
			w.keeper.Close()
			time.Sleep(time.Duration(rnd.IntN(2)) * 45 * time.Minute)
			w.start(t)
			shift := time.Since(tallied)
			for _, other := range model {
				other.pass(shift)
				other.forget()
				other.until = max(0, other.until-shift)
			}
			tallied, now = time.Now(), 0
		}
		synctest.Wait() // for locks that ended at this very moment
		kernel := w.inKernel()
		for u, m := range model {
			m.pass(now)
			if w.locked(u) != m.locked || w.keeper.Unlocks(u) != m.unlocks {
				t.Fatalf("seed %d, step %d (%s of user %d) after %v: user %d is locked %v with %d unlocks, the model %v with %d",
					seed, step, what, user, time.Since(began), u, w.locked(u), w.keeper.Unlocks(u), m.locked, m.unlocks)
			}
			lk, found := w.keeper.Find(u)
			if found != m.locked || found && lk.Until.IsZero() != (m.until == 0) || (kernel[u] == lk.Ticket) != m.locked && lk.Ticket != "" {
				t.Fatalf("seed %d, step %d (%s): user %d has lock %+v, kernel %v, the model %+v", seed, step, what, u, lk, kernel, m)
			}
			if _, inKernel := kernel[u]; inKernel != m.locked {
				t.Fatalf("seed %d, step %d (%s): kernel %v, the model %+v", seed, step, what, kernel, m)
			}
		}
	}
	w.keeper.Close()
}
