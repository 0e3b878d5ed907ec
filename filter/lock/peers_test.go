package lock

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/filter"
)

// pair is two keepers on one kernel and one disk, each of which hears what the other does.
func pair(t *testing.T) (older, newer *world) {
	older = newWorld(t)
	newer = &world{kernel: older.kernel, saved: older.saved, unlocks: older.unlocks, table: older.table}
	newer.start(t)
	older.keeper.d.Events = func(e Event) { newer.keeper.Heard(e.Lock) }
	newer.keeper.d.Events = func(e Event) { older.keeper.Heard(e.Lock) }
	older.keeper.Follow()
	return older, newer
}

func TestLocksAreKnownToBothGenerations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		older, newer := pair(t)
		defer older.keeper.Close()
		defer newer.keeper.Close()
		older.send(1, "v", filter.Virus)
		a, _ := older.keeper.Locked(1)
		b, _ := newer.keeper.Locked(1)
		if a == "" || a != b || newer.kernel[1] != a {
			t.Fatalf("locked by the older: tickets %q and %q, kernel %q", a, b, newer.kernel[1])
		}
		if _, err := newer.keeper.Unlock(1, "op", "r"); err != nil {
			t.Fatal(err)
		}
		if older.locked(1) || len(newer.kernel) != 0 {
			t.Fatalf("unlocked by the newer: older says locked %v, kernel %v", older.locked(1), newer.kernel)
		}
		newer.send(2, "v", filter.Virus)
		if !older.locked(2) {
			t.Fatal("a lock of the newer is not known to the older")
		}
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		if older.locked(2) || newer.locked(2) || newer.keeper.Unlocks(2) != 1 || older.unlocks[Scope{User: 2}] != 1 {
			t.Errorf("after its time: locked %v and %v, unlocks %d", older.locked(2), newer.locked(2), newer.keeper.Unlocks(2))
		}
	})
}

func TestBothGenerationsLockAtOnce(t *testing.T) {
	t.Parallel()
	older, newer := pair(t)
	defer older.keeper.Close()
	defer newer.keeper.Close()
	var first, second Event
	older.keeper.d.Events = func(e Event) { first = e }
	newer.keeper.d.Events = func(e Event) { second = e }
	older.send(1, "v", filter.Virus)
	newer.send(1, "w", filter.Virus)
	older.keeper.Heard(second.Lock)
	newer.keeper.Heard(first.Lock)
	a, _ := older.keeper.Locked(1)
	b, _ := newer.keeper.Locked(1)
	if want := min(first.Lock.Ticket, second.Lock.Ticket); a != want || b != want {
		t.Fatalf("tickets %q and %q, want %q", a, b, want)
	}
	active := 0
	for _, l := range older.saved {
		if l.Ended.IsZero() {
			active++
		}
	}
	if active != 1 || len(older.saved) != 2 {
		t.Errorf("%d of %d saved locks are in force, want 1 of 2", active, len(older.saved))
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	older, newer := pair(t)
	defer older.keeper.Close()
	defer newer.keeper.Close()
	older.send(3, "v", filter.Virus)
	older.keeper.d.Events = nil // nobody is told
	older.send(1, "v", filter.Virus)
	if _, err := older.keeper.Unlock(3, "op", "r"); err != nil {
		t.Fatal(err)
	}
	if newer.locked(1) || !newer.locked(3) {
		t.Fatal("the newer knew before it asked")
	}
	if err := newer.keeper.Refresh(); err != nil {
		t.Fatal(err)
	}
	if !newer.locked(1) || newer.locked(3) {
		t.Errorf("after Refresh: locked %v and %v, want true and false", newer.locked(1), newer.locked(3))
	}
	newer.fail(false, true)
	newer.send(4, "v", filter.Virus)
	newer.fail(false, false)
	if err := newer.keeper.Refresh(); err != nil || !newer.locked(4) {
		t.Errorf("a lock that the disk has not got is gone: %v", err)
	}
}
