package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"sluice/filter/lock"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

func TestLocks(t *testing.T) {
	t.Parallel()
	path := temp(t)
	s := open(t, path)
	since := time.Date(2026, 3, 1, 12, 0, 0, 1000, time.UTC)
	l := lock.Lock{
		Ticket: "4K7M-2QXB", User: flow.User{ID: 7, Name: "alice", Prefix: pfx("192.0.2.0/29")}, Code: "GTUBE", Reason: "sent 5 spam",
		Automatic: true, Since: since, Until: since.Add(time.Hour), PerMinute: 10,
		Evidence: []lock.Evidence{{Message: "abc.1", At: since, From: "a@example.org", Check: "content", Code: "GTUBE", Class: "spam", Detail: "byte 7"}},
	}
	old := lock.Lock{Ticket: "0000-0000", User: flow.User{ID: 7}, Since: since.Add(-time.Hour), Ended: since.Add(-time.Minute), EndedBy: "op"}
	other := lock.Lock{Ticket: "1111-1111", User: flow.User{ID: 8}, Since: since.Add(time.Minute)}
	for _, l := range []lock.Lock{l, old, other} {
		if err := s.SaveLock(&l); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.SaveUnlocks(lock.Scope{User: 7}, 2), s.SaveUnlocks(lock.Scope{User: 7, Identity: "web"}, 1), s.SaveUnlocks(lock.Scope{User: 8}, 1), s.SaveUnlocks(lock.Scope{User: 8}, 0)); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	s = open(t, path)
	defer shut(t, s)
	active, unlocks, err := s.LoadLocks()
	if err != nil || len(active) != 2 || !reflect.DeepEqual(active[0], l) || !reflect.DeepEqual(unlocks, map[lock.Scope]int{{User: 7}: 2, {User: 7, Identity: "web"}: 1}) {
		t.Fatalf("LoadLocks: %+v, %v, %v; want %+v first", active, unlocks, err, l)
	}
	l.Ended, l.EndedBy, l.EndedWhy = since.Add(time.Minute), "op", "cleaned up"
	if err := s.SaveLock(&l); err != nil {
		t.Fatal(err)
	}
	if active, _, err = s.LoadLocks(); err != nil || len(active) != 1 || active[0].Ticket != other.Ticket {
		t.Errorf("after the end of %s: %+v, %v", l.Ticket, active, err)
	}
	history, err := s.LockHistory(7, 10)
	if err != nil || len(history) != 2 || !reflect.DeepEqual(history[0], l) || history[1].EndedBy != "op" {
		t.Errorf("history of 7: %+v, %v", history, err)
	}
	if all, err := s.LockHistory(0, 2); err != nil || len(all) != 2 || all[0].Ticket != other.Ticket {
		t.Errorf("history of all: %+v, %v", all, err)
	}
}

type noKernel struct{}

func (noKernel) Block(*lock.Lock) error { return nil }
func (noKernel) Unblock(uint32) error   { return nil }

// TestLocksSurviveARestart lets the lock keeper work on a real database.
func TestLocksSurviveARestart(t *testing.T) {
	t.Parallel()
	path := temp(t)
	s := open(t, path)
	deps := lock.Deps{Settings: policy.NewTable(policy.Default()), Blocker: noKernel{}, Store: s}
	l, err := lock.New(deps)
	if err != nil {
		t.Fatal(err)
	}
	stays, err := l.Lock(flow.User{ID: 1, Name: "alice"}, lock.Request{Who: "op", Reason: "stolen password", Time: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Lock(flow.User{ID: 2, Name: "bob"}, lock.Request{Who: "op", Reason: "short", Time: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil { // as if killed before bob's time was over
		t.Fatal(err)
	}
	shut(t, s)
	s = open(t, path)
	defer shut(t, s)
	deps.Store = s
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if l, err = lock.New(deps); err != nil {
			t.Fatal(err)
		}
		if _, locked := l.Locked(2); !locked {
			break
		}
		if err := l.Close(); err != nil || time.Now().After(deadline) {
			t.Fatalf("bob's lock did not end (%v)", err)
		}
	}
	defer l.Close()
	if got, ok := l.Find(1); !ok || !reflect.DeepEqual(got, stays) {
		t.Errorf("alice's lock came back as %+v, %v; want %+v", got, ok, stays)
	}
	history, err := s.LockHistory(2, 1)
	if err != nil || len(history) != 1 || history[0].Ended.IsZero() || history[0].EndedWhy != "its time was over" {
		t.Errorf("bob's history is %+v, %v", history, err)
	}
}

func BenchmarkSaveLock(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "s.db"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for i := range b.N {
		if err := s.SaveLock(&lock.Lock{Ticket: fmt.Sprint(i), Since: time.Now()}); err != nil {
			b.Fatal(err)
		}
	}
}
