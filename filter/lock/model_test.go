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

// modelled is the reference: what one sender's lock should be, kept as a plain list of all that he sent.
type modelled struct {
	sent      []sent
	probation time.Duration
	locked    bool
	auto      bool
	until     time.Duration // 0: no end
	unlocks   int
}

type sent struct {
	at           time.Duration
	body, origin string
	class        filter.Class
}

// model is all of them.
type model map[Scope]*modelled

func (m model) of(user uint32, identity string) *modelled {
	whom := Scope{user, identity}
	if m[whom] == nil {
		m[whom] = &modelled{}
	}
	return m[whom]
}

// pass lets time go on to now.
func (m model) pass(now time.Duration, s *policy.Lock) {
	for _, u := range m {
		if u.locked && u.until > 0 && u.until <= now {
			u.release(u.until, s)
			if u.auto {
				u.unlocks++
			}
		}
	}
}

func (u *modelled) release(at time.Duration, s *policy.Lock) {
	u.locked, u.sent, u.probation = false, nil, 0
	if u.auto {
		u.probation = at + s.Probation
	}
}

func (u *modelled) lock(auto bool, until time.Duration) {
	u.locked, u.auto, u.until, u.sent, u.probation = true, auto, until, nil, 0
}

// meets is the rule book, for these messages: five bad ones in ten minutes and 20 %, or a virus; half of it on probation.
func (u *modelled) meets(now time.Duration, s *policy.Lock) bool {
	half := func(n int) int {
		if now < u.probation {
			return n / 2
		}
		return n
	}
	texts, origins := map[string]sent{}, map[string]bool{}
	good := 0
	for _, x := range u.sent {
		if x.class == filter.Clean {
			if slot := s.Window / 16; int64(x.at/slot) >= int64(now/slot)-16 { // a good message counts until its slot has left the window
				good++
			}
			continue
		}
		texts[x.body] = x // of copies the latest
	}
	for _, x := range texts {
		if x.class == filter.Spam && x.at > now-time.Hour && x.origin != "" {
			origins[x.origin] = true
		}
	}
	bad, viruses := 0, 0
	for _, x := range texts {
		if x.origin != "" && len(origins) < s.Origins {
			continue
		}
		if x.class == filter.Virus && x.at > now-24*time.Hour {
			viruses++
		}
		if x.class == filter.Spam && x.at > now-s.Window {
			bad++
		}
	}
	return viruses > 0 || bad >= half(s.SpamCount) && 100*bad >= int(100*s.SpamShare)*(bad+good)
}

func (m model) send(now time.Duration, s *policy.Lock, user uint32, identity, body string, c filter.Class) {
	all, own := m.of(user, ""), m.of(user, identity)
	if all.locked || own.locked {
		return
	}
	if identity != "" {
		own.sent = append(own.sent, sent{now, body, "", c})
	}
	all.sent = append(all.sent, sent{now, body, identity, c})
	if c == filter.Clean {
		return
	}
	for _, u := range []*modelled{own, all} { // the smaller first
		if u.meets(now, s) {
			u.lock(true, 0)
			if u.unlocks < s.MaxUnlocks {
				u.until = now + s.Time
			}
			return
		}
	}
}

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
	m := model{}
	clock := func() time.Duration { return time.Duration(time.Now().UnixNano()) }
	for step := range 400 {
		user, identity := uint32(rnd.IntN(users))+1, []string{"", "", "a", "b", "c", "d"}[rnd.IntN(6)]
		what := ""
		switch n := rnd.IntN(100); {
		case n < 42:
			what = "spam"
			body := fmt.Sprint("spam ", rnd.IntN(9))
			m.send(clock(), &s, user, identity, body, filter.Spam)
			w.sendAs(user, identity, body, filter.Spam)
		case n < 65:
			what = "good"
			m.send(clock(), &s, user, identity, "", filter.Clean)
			w.sendAs(user, identity, "good", filter.Clean)
		case n < 67:
			what = "virus"
			m.send(clock(), &s, user, identity, "virus", filter.Virus)
			w.sendAs(user, identity, "virus", filter.Virus)
		case n < 85:
			d := time.Duration(rnd.Int64N(int64(4 * time.Minute)))
			if rnd.IntN(10) == 0 {
				d *= 20
			}
			what = fmt.Sprint("sleep ", d)
			time.Sleep(d)
		case n < 90:
			what = "unlock"
			u := m.of(user, identity)
			if _, err := w.keeper.UnlockIn(Scope{user, identity}, "op", "r"); (err == nil) != u.locked {
				t.Fatalf("step %d: unlock of %d %q says %v, the model is locked %v", step, user, identity, err, u.locked)
			}
			if u.locked {
				u.release(clock(), &s)
			}
		case n < 94:
			d := time.Duration(rnd.IntN(2)) * 30 * time.Minute
			what = fmt.Sprint("lock ", d)
			if _, err := w.keeper.Lock(flow.User{ID: user}, Request{Who: "op", Reason: "r", Time: d, Only: identity}); err != nil {
				t.Fatal(err)
			}
			m.of(user, identity).lock(false, 0)
			if d > 0 {
				m.of(user, identity).until = clock() + d
			}
		case n < 96:
			what = "reset"
			for whom, u := range m {
				if whom.User == user {
					u.unlocks = 0
				}
			}
			if err := w.keeper.Reset(user, "op"); err != nil {
				t.Fatal(err)
			}
		default:
			what = "restart"
			w.keeper.Close()
			time.Sleep(time.Duration(rnd.IntN(2)) * 45 * time.Minute)
			w.start(t)
		}
		synctest.Wait() // for locks that ended at this very moment
		m.pass(clock(), &s)
		w.compare(t, m, fmt.Sprintf("seed %d, step %d (%s of %d %q)", seed, step, what, user, identity))
	}
	w.keeper.Close()
}

// compare holds the keeper, and the kernel, to the model.
func (w *world) compare(t *testing.T, m model, when string) {
	t.Helper()
	kernel := w.inKernel()
	for whom, u := range m {
		lk, found := w.keeper.FindIn(whom)
		if found != u.locked || found && lk.Until.IsZero() != (u.until == 0) {
			t.Fatalf("%s: %v has lock %+v, the model %+v", when, whom, lk, u)
		}
		if whom.Identity != "" {
			if ticket, locked := w.keeper.LockedIdentity(whom.User, whom.Identity); locked != u.locked || ticket != lk.Ticket {
				t.Fatalf("%s: %v: ticket %q, the model %+v", when, whom, ticket, u)
			}
			continue
		}
		if w.keeper.Unlocks(whom.User) != u.unlocks {
			t.Fatalf("%s: %v had %d unlocks, the model says %d", when, whom, w.keeper.Unlocks(whom.User), u.unlocks)
		}
		if ticket, inKernel := kernel[whom.User]; inKernel != u.locked || ticket != lk.Ticket || w.locked(whom.User) != u.locked {
			t.Fatalf("%s: kernel %v, the model of %v %+v", when, kernel, whom, u)
		}
	}
}
