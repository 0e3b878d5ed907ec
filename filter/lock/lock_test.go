package lock

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// world is the kernel, the disk and the audience of a keeper under test.
type world struct {
	mu       sync.Mutex
	kernel   map[uint32]string // user -> ticket
	saved    map[string]Lock   // ticket -> lock
	unlocks  map[Scope]int
	events   []Event
	order    []string // who heard of changes, in order
	noKernel bool
	noDisk   bool
	table    *policy.Table
	keeper   *Locks
}

func (w *world) Block(l *Lock) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.order = append(w.order, "kernel")
	if w.noKernel {
		return errors.New("kernel is away")
	}
	w.kernel[l.User.ID] = l.Ticket
	return nil
}

func (w *world) Unblock(user uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.noKernel {
		return errors.New("kernel is away")
	}
	delete(w.kernel, user)
	return nil
}

func (w *world) SaveLock(l *Lock) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.order = append(w.order, "disk")
	if w.noDisk {
		return errors.New("disk is full")
	}
	w.saved[l.Ticket] = *l
	return nil
}

func (w *world) SaveUnlocks(user Scope, n int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.noDisk {
		return errors.New("disk is full")
	}
	w.unlocks[user] = n
	return nil
}

func (w *world) LoadLocks() ([]Lock, map[Scope]int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var active []Lock
	for _, l := range w.saved {
		if l.Ended.IsZero() {
			active = append(active, l)
		}
	}
	return active, maps.Clone(w.unlocks), nil
}

func (w *world) inKernel() map[uint32]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.kernel)
}

func (w *world) hear(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

func (w *world) kinds() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var s []string
	for _, e := range w.events {
		s = append(s, e.Kind.String())
	}
	return strings.Join(s, " ")
}

func (w *world) tries() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.order, " ")
}

func (w *world) fail(kernel, disk bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noKernel, w.noDisk = kernel, disk
}

func (w *world) start(t *testing.T) {
	t.Helper()
	l, err := New(Deps{Settings: w.table, Blocker: w, Store: w, Events: w.hear})
	if err != nil {
		t.Fatal(err)
	}
	if w.keeper != nil { // a restart
		if err := l.Restore(w.keeper.Append(nil)); err != nil {
			t.Fatal(err)
		}
	}
	w.keeper = l
}

func newTable(automatic bool) *policy.Table {
	s := policy.Default()
	s.Lock.Automatic = automatic
	return policy.NewTable(s)
}

func newWorld(t *testing.T) *world {
	w := &world{kernel: map[uint32]string{}, saved: map[string]Lock{}, unlocks: map[Scope]int{}, table: newTable(true)}
	w.start(t)
	return w
}

func mail(user uint32, body string) *message.Message {
	return &message.Message{
		ID:       "abc.1",
		Flow:     &flow.Flow{ID: 1, User: flow.User{ID: user, Name: fmt.Sprint("user", user)}},
		Envelope: message.Envelope{From: "a@example.org"},
		Data:     []byte("Subject: x\r\n\r\n" + body),
	}
}

func verdict(c filter.Class) *filter.Verdict {
	if c == filter.Clean {
		v := filter.Judge(nil)
		return &v
	}
	v := filter.Judge([]filter.Hit{{Check: "content", Code: strings.ToUpper(c.String()), Class: c, Action: filter.Reject, Evidence: "byte 7"}})
	return &v
}

func (w *world) send(user uint32, body string, c filter.Class) {
	w.keeper.Judged(mail(user, body), verdict(c))
}

func (w *world) sendAs(user uint32, identity, body string, c filter.Class) *filter.Verdict {
	m, v := mail(user, body), verdict(c)
	m.Identity = identity
	w.keeper.Judged(m, v)
	return v
}

func (w *world) locked(user uint32) bool {
	_, ok := w.keeper.Locked(user)
	return ok
}

func TestFiveSpamLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 4 {
		w.send(1, fmt.Sprint("spam ", i), filter.Spam)
	}
	w.send(1, "spam 0", filter.Spam) // a copy counts once
	w.send(1, "a rule's refusal", filter.Policy)
	if w.locked(1) {
		t.Fatal("locked after four different spam")
	}
	opinion := filter.Judge([]filter.Hit{{Code: "OPINION", Class: filter.Spam}})
	w.keeper.Judged(mail(1, "opinion"), &opinion)
	if w.locked(1) {
		t.Fatal("locked by an opinion that refuses nothing")
	}
	w.send(1, "spam 5", filter.Spam)
	ticket, ok := w.keeper.Locked(1)
	if !ok || !regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}$`).MatchString(ticket) {
		t.Fatalf("after five spam: ticket %q, locked %v", ticket, ok)
	}
	if w.kernel[1] != ticket || w.saved[ticket].Ticket != ticket || strings.Join(w.order, " ") != "kernel disk" {
		t.Errorf("kernel %v, disk %v, order %v: want the lock in the kernel, then on disk, before Judged returns", w.kernel, w.saved, w.order)
	}
	lk, _ := w.keeper.Find(1)
	if want := "sent 5 spam messages in 10 minutes, 100 % of all"; lk.Reason != want || lk.Code != "SPAM" || !lk.Automatic {
		t.Errorf("lock is %+v, want reason %q", lk, want)
	}
	if len(lk.Evidence) != 5 || lk.Evidence[0].Message != "abc.1" || lk.Evidence[0].Detail != "byte 7" || lk.Evidence[0].Check != "content" {
		t.Errorf("evidence is %+v", lk.Evidence)
	}
	if lk.Until.Sub(lk.Since) != time.Hour || lk.PerMinute != 10 {
		t.Errorf("lock runs %v and explains %d", lk.Until.Sub(lk.Since), lk.PerMinute)
	}
	if w.locked(2) {
		t.Error("another user is locked")
	}
	if got := w.kinds(); got != "locked" {
		t.Errorf("events are %q", got)
	}
}

func TestShareOfAllMessages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		good   int
		locked bool
	}{{20, true}, {21, false}} { // 5 of 25 are 20 %
		w := newWorld(t)
		for i := range c.good {
			w.send(1, fmt.Sprint("good ", i), filter.Clean)
		}
		for i := range 5 {
			w.send(1, fmt.Sprint("spam ", i), filter.Spam)
		}
		if w.locked(1) != c.locked {
			t.Errorf("5 spam beside %d good messages: locked %v, want %v", c.good, w.locked(1), c.locked)
		}
	}
}

func TestVirusLocksAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.send(1, "v", filter.Virus)
	if lk, ok := w.keeper.Find(1); !ok || lk.Reason != "sent a virus (VIRUS)" {
		t.Errorf("lock is %+v, %v", lk, ok)
	}
}

func TestAlarmOnceWhereNothingLocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.keeper.Close()
		s := policy.Default()
		w.table.SetDefault(s) // automatic locks off
		for i := range 20 {
			w.send(1, fmt.Sprint("spam ", i), filter.Spam)
		}
		w.send(1, "virus", filter.Virus)
		if w.locked(1) || w.kinds() != "alarm" {
			t.Errorf("locked %v, events %q; want one alarm", w.locked(1), w.kinds())
		}
		if e := w.events[0]; e.Lock.User.ID != 1 || e.Lock.Ticket != "" || len(e.Lock.Evidence) != 5 {
			t.Errorf("alarm is %+v", e)
		}
		time.Sleep(10 * time.Minute)
		for i := range 5 {
			w.send(1, fmt.Sprint("spam ", i), filter.Spam)
		}
		if w.kinds() != "alarm alarm" {
			t.Errorf("events after a window are %q", w.kinds())
		}
		s.Lock.Automatic = true
		w.table.SetDefault(s)
		never := true
		w.table.Override(99, policy.Overrides{LockNever: &never})
		w.send(99, "virus", filter.Virus)
		if w.locked(99) || w.kinds() != "alarm alarm alarm" {
			t.Errorf("locked %v, events %q", w.locked(99), w.kinds())
		}
		if _, err := w.keeper.Lock(flow.User{ID: 99}, Request{Who: "op", Reason: "r"}); err == nil {
			t.Error("a never-locked user was locked by hand")
		}
	})
}

func TestUnlocksByItselfThreeTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for n := 1; n <= 3; n++ {
			w.send(1, "v", filter.Virus)
			time.Sleep(time.Hour - time.Second)
			if !w.locked(1) {
				t.Fatalf("lock %d ended early", n)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if w.locked(1) || len(w.kernel) != 0 || w.keeper.Unlocks(1) != n {
				t.Fatalf("lock %d: locked %v, kernel %v, unlocks %d", n, w.locked(1), w.kernel, w.keeper.Unlocks(1))
			}
		}
		w.send(1, "v", filter.Virus)
		time.Sleep(100 * time.Hour)
		if !w.locked(1) {
			t.Fatal("the fourth lock ended by itself")
		}
		if err := w.keeper.Reset(1, "op"); err != nil || w.unlocks[Scope{User: 1}] != 0 {
			t.Errorf("Reset: %v, saved %d", err, w.unlocks[Scope{User: 1}])
		}
		lk, err := w.keeper.Unlock(1, "op", "cleaned up")
		if err != nil || lk.EndedBy != "op" || lk.EndedWhy != "cleaned up" || !w.saved[lk.Ticket].Ended.Equal(lk.Ended) {
			t.Errorf("Unlock: %+v, %v", lk, err)
		}
		if _, err := w.keeper.Unlock(1, "op", "again"); !errors.Is(err, ErrNotLocked) {
			t.Errorf("a second Unlock: %v", err)
		}
		w.send(1, "v", filter.Virus)
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		if w.locked(1) {
			t.Error("after the reset the lock did not end by itself")
		}
		w.keeper.Close()
	})
}

func TestLockByHand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := flow.User{ID: 7, Name: "u7"}
		for _, r := range []Request{{}, {Who: "op"}, {Reason: "r"}, {Who: "op", Reason: "r", Time: -1}} {
			if _, err := w.keeper.Lock(u, r); err == nil {
				t.Errorf("%+v was accepted", r)
			}
		}
		if _, err := w.keeper.Lock(flow.User{}, Request{Who: "op", Reason: "r"}); err == nil {
			t.Error("nobody was locked")
		}
		w.send(7, "v", filter.Virus)
		first, _ := w.keeper.Locked(7)
		lk, err := w.keeper.Lock(u, Request{Who: "op", Reason: "stolen password"})
		if err != nil || lk.Ticket != first || lk.Code != "MANUAL" || !lk.Until.IsZero() {
			t.Errorf("Lock over a lock: %+v, %v; want the ticket %s and no end", lk, err, first)
		}
		time.Sleep(48 * time.Hour)
		if !w.locked(7) {
			t.Error("a lock by hand without an end ended")
		}
		if _, err := w.keeper.Lock(u, Request{Who: "op", Reason: "r", Time: time.Minute}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if w.locked(7) || w.keeper.Unlocks(7) != 0 {
			t.Errorf("locked %v, unlocks %d; a lock by hand does not count", w.locked(7), w.keeper.Unlocks(7))
		}
	})
}

func TestFailuresHoldInMemoryAndAreRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.keeper.Close()
		w.fail(true, true)
		w.send(1, "v", filter.Virus)
		if !w.locked(1) || w.kinds() != "failed locked" {
			t.Fatalf("locked %v, events %q", w.locked(1), w.kinds())
		}
		if err := w.events[0].Err.Error(); !strings.Contains(err, "kernel is away") || !strings.Contains(err, "disk is full") {
			t.Errorf("the failure says %q", err)
		}
		for range 3 { // mail of the locked user neither tries again nor alarms again
			w.send(1, "v", filter.Virus)
		}
		time.Sleep(2 * retryAfter)
		synctest.Wait()
		if w.kinds() != "failed locked" || w.tries() != "kernel disk kernel disk kernel disk" {
			t.Fatalf("events %q, tries %q; want one alarm and two more tries", w.kinds(), w.tries())
		}
		time.Sleep(retellAfter)
		synctest.Wait()
		if w.kinds() != "failed locked failed" {
			t.Fatalf("after a minute the events are %q", w.kinds())
		}
		w.fail(false, true)
		time.Sleep(retryAfter)
		synctest.Wait()
		if w.kernel[1] == "" || len(w.saved) != 0 {
			t.Fatalf("kernel %v, disk %v: want the kernel to have it", w.kernel, w.saved)
		}
		if _, err := w.keeper.Unlock(1, "op", "r"); err != nil {
			t.Fatal(err)
		}
		w.fail(false, false)
		time.Sleep(retryAfter)
		synctest.Wait()
		if len(w.kernel) != 0 || len(w.saved) != 1 {
			t.Errorf("kernel %v, disk %v: want the ended lock on disk only", w.kernel, w.saved)
		}
		for _, l := range w.saved {
			if l.EndedBy != "op" {
				t.Errorf("saved %+v", l)
			}
		}
	})
}

func TestConcurrentVerdictsWaitForTheLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var wg sync.WaitGroup
	for s := range 8 {
		wg.Go(func() {
			for i := range 50 {
				w.send(1, fmt.Sprint(s, " ", i), filter.Spam)
				if ticket, ok := w.keeper.Locked(1); ok {
					w.mu.Lock()
					if w.kernel[1] != ticket || w.saved[ticket].Ticket != ticket {
						t.Errorf("a verdict returned before the lock was in force: kernel %v, disk %v", w.kernel, w.saved)
					}
					w.mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if len(w.saved) != 1 || w.kinds() != "locked" {
		t.Errorf("%d locks, events %q; want one", len(w.saved), w.kinds())
	}
}

func TestReapply(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.send(1, "v", filter.Virus)
	w.send(2, "v", filter.Virus)
	clear(w.kernel)
	w.keeper.Reapply()
	if len(w.kernel) != 2 {
		t.Errorf("kernel has %v, want both locks", w.kernel)
	}
	if all := w.keeper.List(); len(all) != 2 || all[0].Since.Before(all[1].Since) {
		t.Errorf("List is %+v", all)
	}
}

func BenchmarkLocked(b *testing.B) {
	var t tickets
	for i := range uint32(1000) {
		t.set(i*7, "T")
	}
	b.ReportAllocs()
	for i := range b.N {
		t.get(uint32(i & 8191))
	}
}

func BenchmarkJudgedGood(b *testing.B) {
	w := &world{table: policy.NewTable(policy.Default())}
	l, err := New(Deps{Settings: w.table, Blocker: w, Store: w})
	if err != nil {
		b.Fatal(err)
	}
	m, v := mail(1, "good"), verdict(filter.Clean)
	b.ReportAllocs()
	for i := range b.N {
		m.Flow.User.ID = uint32(i&1023) + 1
		l.Judged(m, v)
	}
}
