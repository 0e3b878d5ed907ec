package lock

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/filter"
	"sluice/filter/lock/ladder"
	"sluice/filter/reputation/trap"
	"sluice/intercept/flow"
)

// TestIdentityBeforeUser: the identity that sends spam is locked, and the others of its user go on (LCK6); spam of three
// identities is their user's (ATT4).
func TestIdentityBeforeUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 5 {
		w.sendAs(1, "shop", fmt.Sprint("spam ", i), filter.Spam)
	}
	ticket, locked := w.keeper.LockedIdentity(1, "shop")
	if !locked || w.locked(1) || len(w.kernel) != 0 || w.saved[ticket].Identity != "shop" {
		t.Fatalf("shop locked %v, its user %v, kernel %v, saved %+v; want shop alone, and nothing in the kernel", locked, w.locked(1), w.kernel, w.saved)
	}
	v := w.sendAs(1, "shop", "good", filter.Clean)
	if h := v.Decisive(); h == nil || h.Code != CodeLocked || h.SMTP != 451 || v.Ticket != ticket || !strings.Contains(h.Text, ticket) {
		t.Errorf("the locked identity's good mail: %+v", v)
	}
	if v := w.sendAs(1, "shop", "bad", filter.Spam); v.Decisive().Class != filter.Spam {
		t.Errorf("the locked identity's bad mail: %+v", v)
	}
	for _, other := range []string{"", "office", "newsletter"} {
		if v := w.sendAs(1, other, "good", filter.Clean); v.Refused() {
			t.Errorf("%q is refused: %+v", other, v)
		}
	}
	w.sendAs(1, "office", "spam a", filter.Spam)
	if w.locked(1) {
		t.Fatal("two identities locked their user")
	}
	w.sendAs(1, "newsletter", "spam b", filter.Spam)
	if !w.locked(1) || w.kernel[1] == "" {
		t.Error("spam of three identities did not lock their user")
	}
}

// TestForwardedSpam: who forwards some is not its sender (ATT10); who forwards hardly anything else is.
func TestForwardedSpam(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 300 {
		user := uint32(1 + i%2)
		m := mail(user, fmt.Sprint("spam ", i))
		m.Forwarded = true
		w.keeper.Judged(m, verdict(filter.Spam))
		for range 3 * (2 - user) {
			w.send(user, "good", filter.Clean)
		}
	}
	lk, _ := w.keeper.Find(2)
	if w.locked(1) || !w.locked(2) || lk.Rule != "forwarded" {
		t.Errorf("a quarter of it spam: locked %v; all of it: locked %v by %q", w.locked(1), w.locked(2), lk.Rule)
	}
}

// TestForwardedVirus: who forwards one, or many, and nothing else, is not locked for it (VIR3); who sends one is.
func TestForwardedVirus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 300 {
		m := mail(1, fmt.Sprint("virus ", i))
		m.Forwarded = true
		w.keeper.Judged(m, verdict(filter.Virus))
	}
	w.send(2, "virus", filter.Virus)
	if w.locked(1) || !w.locked(2) {
		t.Errorf("forwarded viruses: locked %v; one of his own: locked %v", w.locked(1), w.locked(2))
	}
}

// TestNearALock: slow, then held, then free again.
func TestNearALock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.keeper.Close()
		for range 4 {
			w.send(1, "good", filter.Clean)
		}
		for i := range 3 {
			w.send(1, fmt.Sprint("spam ", i), filter.Spam)
		}
		slow := 0
		for range 8 {
			if v := w.sendAs(1, "", "good", filter.Clean); v.Refused() {
				slow++
			}
		}
		if st := w.keeper.Standing(Scope{User: 1}); slow != 0 || st.Rung != ladder.Throttled {
			t.Errorf("%d of 8 messages were slowed, %+v", slow, st)
		}
		w.send(1, "spam 3", filter.Spam)
		v := w.sendAs(1, "", "good", filter.Clean)
		if h := v.Decisive(); h == nil || h.Code != CodeHeld || v.Action != filter.Defer {
			t.Errorf("held: %+v", v)
		}
		time.Sleep(11 * time.Minute)
		if v := w.sendAs(1, "", "good", filter.Clean); v.Refused() {
			t.Errorf("after the window: %+v", v)
		}
	})
}

// TestProbationIsSlow: after a lock a sender has a small budget.
func TestProbationIsSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.keeper.Close()
		w.send(1, "v", filter.Virus)
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		passed := 0
		for range 150 {
			if v := w.sendAs(1, "", "good", filter.Clean); !v.Refused() {
				passed++
			} else if v.Decisive().Code != CodeSlow {
				t.Fatalf("refused by %+v", v.Decisive())
			}
		}
		if passed != 100 || !w.keeper.Standing(Scope{User: 1}).Probation {
			t.Errorf("%d messages passed on probation, want 100", passed)
		}
	})
}

// TestMailThatLooksBad: who sends different messages that look bad, and are delivered all the same, is held, and locked if that
// goes on, and he alone; not who sends copies of one, nor for what the filter may not act on, nor for what was only forwarded.
func TestMailThatLooksBad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.keeper.Close() }()
		send := func(user uint32, identity, text string, h filter.Hit) *filter.Verdict {
			m, v := mail(user, text), filter.Judge([]filter.Hit{{Code: "SPEAKS", Score: 0.1}, h, {Code: "LEARNED"}})
			m.Identity = identity
			m.Forwarded = strings.HasPrefix(text, "forwarded")
			w.keeper.Judged(m, &v)
			return &v
		}
		unsure := filter.Hit{Check: "learned", Code: "UNSURE", Score: 0.9}
		held := 0
		for i := range 45 {
			if h := send(1, "shop", fmt.Sprint(i), unsure).Decisive(); h != nil && h.Code == CodeHeld {
				held++
			}
			send(2, "", "a newsletter", unsure)
			send(3, "", fmt.Sprint(i), filter.Hit{Code: "UNSURE", Points: 0.9})
			send(4, "", fmt.Sprint("forwarded ", i), unsure)
			send(5, "", fmt.Sprint(i), filter.Hit{Check: "learned", Code: "SPAM", Class: filter.Spam, Score: 0.99}) // delivered by setting
			w.send(6, "good", filter.Clean)
			w.send(6, "good", filter.Clean)
			send(6, "", fmt.Sprint(i), unsure)
			if i == 10 {
				_ = w.keeper.Close()
				w.start(t) // what was seen before a restart counts
			}
			time.Sleep(time.Minute)
		}
		lk, _ := w.keeper.FindIn(Scope{1, "shop"})
		if held == 0 || lk.Rule != "score-hour" || lk.Code != "UNSURE" || !strings.Contains(lk.Reason, " messages in 1 hour that look bad by ") || len(lk.Evidence) == 0 {
			t.Errorf("an identity all of whose messages look bad: %d held, then %+v", held, lk)
		}
		for user, want := range map[uint32]bool{1: false, 2: false, 3: false, 4: false, 5: true, 6: false} {
			if w.locked(user) != want {
				lk, _ := w.keeper.Find(user)
				t.Errorf("user %d: locked %t (%s), want %t", user, w.locked(user), lk.Reason, want)
			}
		}
	})
}

// TestClear: a user is clear until something bad is found in his mail, and again once that does not count any more.
func TestClear(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.keeper.Close()
		w.send(1, "good", filter.Clean)
		if !w.keeper.Clear(1) || !w.keeper.Clear(2) {
			t.Error("a user of whom nothing or only good is known is not clear")
		}
		w.sendAs(1, "shop", "spam", filter.Spam)
		w.send(2, "v", filter.Virus)
		if w.keeper.Clear(1) || w.keeper.Clear(2) || !w.locked(2) {
			t.Error("a user who sent spam, or is locked, is clear")
		}
		time.Sleep(time.Hour + time.Second) // the lock has ended
		synctest.Wait()
		if w.locked(2) || w.keeper.Clear(2) {
			t.Error("a user on probation is clear")
		}
		time.Sleep(60 * 24 * time.Hour)
		synctest.Wait()
		if !w.keeper.Clear(1) || !w.keeper.Clear(2) {
			t.Error("what speaks against a user never passes")
		}
	})
}

// TestBrake: a check that locks too many users stops locking, and what it did can be undone (LCK12).
func TestBrake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.keeper.Close()
		for u := range uint32(9) {
			w.send(u+1, "v", filter.Virus)
		}
		if n := len(w.keeper.List()); n != 5 || w.kinds() != "locked locked locked locked locked brake alarm alarm alarm" {
			t.Fatalf("%d locks, events %q", n, w.kinds())
		}
		if v := w.sendAs(9, "", "good", filter.Clean); v.Decisive() == nil || v.Decisive().Code != CodeHeld {
			t.Errorf("whom the brake spared goes on sending: %+v", v)
		}
		other := filter.Judge([]filter.Hit{{Check: "clamav", Code: "VIRUS", Class: filter.Virus, Action: filter.Reject}})
		w.keeper.Judged(mail(8, "w"), &other)
		if !w.locked(8) {
			t.Error("another check is held up, too")
		}
		if undone := w.keeper.Undo("content", time.Now().Add(-time.Minute), "op"); len(undone) != 5 || len(w.keeper.List()) != 1 {
			t.Errorf("%d undone, %d left", len(undone), len(w.keeper.List()))
		}
		time.Sleep(11 * time.Minute)
		w.send(20, "v", filter.Virus)
		if !w.locked(20) {
			t.Error("the brake is not let go")
		}
	})
}

// TestOtherTriggers: complaints, refused logins, recipients that do not exist, what destinations took for spam, and what
// other parts ask for.
func TestOtherTriggers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := func(id uint32) flow.User { return flow.User{ID: id, Name: fmt.Sprint("user", id)} }
	ev := Evidence{Check: "x", Code: "X"}
	for range 3 {
		w.keeper.Tell(u(1), "", ladder.Event{Kind: ladder.Complaint}, ev)
	}
	for range 30 {
		w.keeper.Tell(u(2), "web", ladder.Event{Kind: ladder.Guess}, ev)
	}
	for range 100 {
		w.keeper.Tell(u(3), "", ladder.Event{Kind: ladder.Known}, Evidence{})
		w.keeper.Tell(u(4), "", ladder.Event{Kind: ladder.Known}, Evidence{})
	}
	for range 50 {
		w.keeper.Tell(u(3), "", ladder.Event{Kind: ladder.Unknown}, ev)
	}
	for range 40 {
		w.keeper.Tell(u(4), "", ladder.Event{Kind: ladder.Unknown}, ev)
	}
	for i := range 10 {
		w.keeper.Tell(u(5), "", ladder.Event{Kind: ladder.Remote, Print: uint64(i) * 0x9E3779B97F4A7C15}, ev)
	}
	w.keeper.Tell(u(6), "", ladder.Event{Kind: ladder.Trap}, ev)
	trappedPhish := filter.Judge([]filter.Hit{{Check: "traps", Code: trap.Code, Class: filter.Spam, Action: filter.Reject}, {Check: "learned", Code: "PHISH", Class: filter.Phish, Action: filter.Reject}})
	w.keeper.Judged(mail(11, "w"), &trappedPhish)
	trapped := filter.Judge([]filter.Hit{{Check: "traps", Code: trap.Code, Class: filter.Spam, Action: filter.Reject}})
	w.keeper.Judged(mail(8, "w"), &trapped)
	w.send(9, "one phish", filter.Phish)
	w.send(10, "one phish", filter.Phish)
	w.send(10, "another", filter.Phish)
	w.keeper.Demand(u(7), "bulk", Evidence{Check: "limit", Code: "RATE-MSG"}, "reached a limit that locks")
	for id, want := range map[Scope]bool{{1, ""}: true, {2, ""}: false, {2, "web"}: true, {3, ""}: true, {4, ""}: false, {5, ""}: true, {6, ""}: true, {7, ""}: false, {7, "bulk"}: true, {8, ""}: true, {9, ""}: false, {10, ""}: true, {11, ""}: true} {
		if _, locked := w.keeper.FindIn(id); locked != want {
			t.Errorf("%v: locked %v, want %v", id, locked, want)
		}
	}
	for _, lk := range w.keeper.List() {
		t.Log(lk.Name(), "-", lk.Reason)
	}
}

// TestMarksSurviveARestart: four bad messages before and one after it are five.
func TestMarksSurviveARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 4 {
		w.sendAs(1, "web", fmt.Sprint("spam ", i), filter.Spam)
	}
	if !w.keeper.Changed() {
		t.Error("nothing is to be saved")
	}
	w.start(t)
	w.sendAs(1, "web", "spam 4", filter.Spam)
	lk, locked := w.keeper.FindIn(Scope{1, "web"})
	if !locked || len(lk.Evidence) != 5 || lk.Evidence[0].Message == "" {
		t.Errorf("locked %v with %d pieces of evidence", locked, len(lk.Evidence))
	}
	text := w.keeper.Append(nil)
	for i := range text {
		fresh := newWorld(t)
		_ = fresh.keeper.Restore(text[:i]) // any result but a panic
		odd := append([]byte(nil), text...)
		odd[i] ^= 0xff
		_ = fresh.keeper.Restore(odd)
	}
}

// TestMarksOfBothProcessesCount: four bad messages of the process that goes, which the one that comes takes over after it has judged
// another one of the same sender, are five.
func TestMarksOfBothProcessesCount(t *testing.T) {
	t.Parallel()
	old, next := newWorld(t), newWorld(t)
	for i := range 4 {
		old.sendAs(1, "web", fmt.Sprint("spam ", i), filter.Spam)
	}
	old.send(2, "spam", filter.Spam)
	next.sendAs(1, "web", "spam of the next", filter.Spam)
	next.send(1, "good", filter.Clean)
	if err := next.keeper.Restore(old.keeper.Append(nil)); err != nil {
		t.Fatal(err)
	}
	if st := next.keeper.Standing(Scope{2, ""}); st.Rung != ladder.Watched {
		t.Errorf("who was judged by the older one alone stands at %s", st.Rung)
	}
	next.sendAs(1, "web", "one more", filter.Spam)
	lk, locked := next.keeper.FindIn(Scope{1, "web"})
	if !locked || len(lk.Evidence) != 6 || lk.Evidence[0].Message == "" {
		t.Errorf("locked %v with %d pieces of evidence, want 6", locked, len(lk.Evidence))
	}
}

// BenchmarkJudgedBad: the decision about a bad message of one of many identities.
func BenchmarkJudgedBad(b *testing.B) {
	w := &world{}
	w.table = newTable(false)
	l, err := New(Deps{Settings: w.table, Blocker: w, Store: w})
	if err != nil {
		b.Fatal(err)
	}
	m, v := mail(1, strings.Repeat("some words of a spam message that is not very long ", 40)), verdict(filter.Spam)
	b.ReportAllocs()
	for i := range b.N {
		m.Flow.User.ID, m.Identity = uint32(i&1023)+1, [...]string{"a", "b", "c", "d"}[i>>10&3]
		l.Judged(m, v)
	}
}

// TestAGuessLocksNobody: what a scanner only guesses is refused and counts for nothing, neither as bad nor as good (VIR3);
// what another check is sure of in the same message counts.
func TestAGuessLocksNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	guess := filter.Hit{Code: "VIRUS", Class: filter.Virus, Action: filter.Reject, NoLock: true}
	for i := range 50 {
		v := filter.Judge([]filter.Hit{guess})
		w.keeper.Judged(mail(1, fmt.Sprint("guess ", i)), &v)
	}
	if w.locked(1) {
		t.Fatal("guesses locked")
	}
	for i := range 5 { // all that counts is bad
		v := filter.Judge([]filter.Hit{guess, {Code: "SPAM", Class: filter.Spam, Action: filter.Reject}})
		w.keeper.Judged(mail(1, fmt.Sprint("spam ", i)), &v)
	}
	if !w.locked(1) {
		t.Error("spam in which a virus was guessed does not lock")
	}
	v := filter.Judge([]filter.Hit{{Code: "VIRUS", Class: filter.Virus, Action: filter.Reject}})
	w.keeper.Judged(mail(2, "certain"), &v)
	if !w.locked(2) {
		t.Error("a certain virus does not lock at once")
	}
}
