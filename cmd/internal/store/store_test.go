package store

import (
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/filter/lock"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

var _ lock.Store = (*Store)(nil)

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path, Options{Failed: func(err error) { t.Errorf("background write: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func shut(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func temp(t *testing.T) string { return filepath.Join(t.TempDir(), "sluice.db") }

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func listed(name string, prefixes ...string) policy.Listed {
	u := policy.Listed{Name: name, Contact: name + "@example.org"}
	for _, p := range prefixes {
		u.Prefixes = append(u.Prefixes, pfx(p))
	}
	return u
}

func TestIDsAreStableByName(t *testing.T) {
	t.Parallel()
	path := temp(t)
	s := open(t, path)
	first, err := s.EnsureConfigured([]policy.Listed{listed("alice", "192.0.2.0/29"), listed("bob", "192.0.2.8/29", "2001:db8:1::/64")})
	if err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	s = open(t, path)
	defer shut(t, s)
	// Bob's prefix moves to alice, carol is new and stands first, bob has none left.
	second, err := s.EnsureConfigured([]policy.Listed{listed("carol", "192.0.2.16/29"), listed("alice", "192.0.2.8/29")})
	if err != nil {
		t.Fatal(err)
	}
	if second[1].ID != first[0].ID || second[0].ID == first[0].ID || second[0].ID == first[1].ID || first[0].ID == 0 {
		t.Errorf("ids were %d, %d and are carol %d, alice %d", first[0].ID, first[1].ID, second[0].ID, second[1].ID)
	}
	users, err := s.Users()
	if err != nil || len(users) != 2 || users[0].Name != "alice" || users[0].Prefixes[0] != pfx("192.0.2.8/29") || users[0].Contact != "alice@example.org" {
		t.Errorf("users are %+v, %v", users, err)
	}
	if _, err := s.User("bob"); !errors.Is(err, ErrNoUser) {
		t.Errorf("bob, gone from the file: %v", err)
	}
	third, err := s.EnsureConfigured([]policy.Listed{listed("bob", "192.0.2.0/29")})
	if err != nil || third[0].ID != first[1].ID {
		t.Errorf("bob came back as %+v, %v; want id %d", third, err, first[1].ID)
	}
}

func TestUsersByCommand(t *testing.T) {
	t.Parallel()
	path := temp(t)
	s := open(t, path)
	if _, err := s.EnsureConfigured([]policy.Listed{listed("alice", "192.0.2.0/29")}); err != nil {
		t.Fatal(err)
	}
	dave, err := s.AddUser(listed("dave", "198.51.100.5/24"))
	if err != nil || dave.ID == 0 || dave.Prefixes[0] != pfx("198.51.100.0/24") {
		t.Fatalf("AddUser: %+v, %v", dave, err)
	}
	for want, u := range map[string]policy.Listed{
		"belongs to user alice": listed("eve", "192.0.2.0/29"),
		"taken by a user from":  listed("alice", "203.0.113.0/24"),
		"at least one prefix":   listed("eve"),
		"from command":          listed("dave", "203.0.113.0/24"),
	} {
		if _, err := s.AddUser(u); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("AddUser(%+v) said %v, want %q", u, err, want)
		}
	}
	if _, err := s.User("eve"); !errors.Is(err, ErrNoUser) {
		t.Errorf("a failed AddUser left its user: %v", err)
	}
	// A reload must not lose what was added by command, nor take its prefix.
	if _, err := s.EnsureConfigured([]policy.Listed{listed("alice", "198.51.100.0/24")}); err == nil || !strings.Contains(err.Error(), "belongs to user dave") {
		t.Errorf("the file took dave's prefix: %v", err)
	}
	shut(t, s)
	s = open(t, path)
	defer shut(t, s)
	if u, err := s.User("dave"); err != nil || u.ID != dave.ID || u.Origin != Command || u.Prefixes[0] != pfx("198.51.100.0/24") {
		t.Errorf("dave is %+v, %v", u, err)
	}
	if u, err := s.User("alice"); err != nil || len(u.Prefixes) != 1 || u.Prefixes[0] != pfx("192.0.2.0/29") {
		t.Errorf("a refused reload changed alice to %+v, %v", u, err)
	}
	if _, err := s.RemoveUser("alice"); err == nil || !strings.Contains(err.Error(), "configuration file") {
		t.Errorf("RemoveUser of a configured user: %v", err)
	}
	if u, err := s.RemoveUser("dave"); err != nil || u.ID != dave.ID || len(u.Prefixes) != 1 {
		t.Errorf("RemoveUser: %+v, %v", u, err)
	}
	if _, err := s.RemoveUser("dave"); !errors.Is(err, ErrNoUser) {
		t.Errorf("a second RemoveUser: %v", err)
	}
	if u, err := s.AddUser(listed("dave", "203.0.113.0/24")); err != nil || u.ID != dave.ID {
		t.Errorf("dave came back as %+v, %v", u, err)
	}
}

func TestMadeUsersKeepTheirIDs(t *testing.T) {
	t.Parallel()
	path := temp(t)
	s := open(t, path)
	a, err := s.MakeUser(pfx("192.0.2.7/32"))
	if err != nil || !a.Made || a.Name != "192.0.2.7/32" || a.ID == 0 || a.Prefix != pfx("192.0.2.7/32") {
		t.Fatalf("MakeUser: %+v, %v", a, err)
	}
	if again, err := s.MakeUser(pfx("192.0.2.7/32")); err != nil || again != a {
		t.Errorf("the same prefix made %+v, %v", again, err)
	}
	b, err := s.MakeUser(pfx("2001:db8::7/64"))
	if err != nil || b.ID == a.ID || b.Name != "2001:db8::/64" {
		t.Errorf("MakeUser: %+v, %v", b, err)
	}
	if u, err := s.User("2001:db8::/64"); err != nil || u.ID != b.ID || u.Origin != Template || u.Prefixes[0] != b.Prefix {
		t.Errorf("User: %+v, %v", u, err)
	}
	shut(t, s)
	s = open(t, path)
	if again, err := s.MakeUser(pfx("192.0.2.7/32")); err != nil || again != a {
		t.Errorf("after a restart %+v, %v; want %+v", again, err, a)
	}
	c, err := s.MakeUser(pfx("192.0.2.8/32"))
	if err != nil || c.ID != b.ID+1 {
		t.Errorf("after a clean restart the next id is %d, %v; want %d", c.ID, err, b.ID+1)
	}
	if _, err := s.RemoveUser(a.Name); err == nil || !strings.Contains(err.Error(), "template") {
		t.Errorf("RemoveUser of a made user: %v", err)
	}
	// Given a name of its own by command, the user keeps its history.
	if u, err := s.AddUser(listed("192.0.2.7/32", "192.0.2.7/32")); err != nil || u.ID != a.ID {
		t.Errorf("AddUser over a made user: %+v, %v; want id %d", u, err, a.ID)
	}
	shut(t, s)
}

func TestMadeUsersReachTheDiskByThemselves(t *testing.T) {
	t.Parallel()
	path := temp(t)
	const block = 64
	s, err := openWith(path, Options{}, block)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, s)
	const n = 5 * block
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < n; i += 4 {
				p := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 0, byte(i >> 8), byte(i)}), 64)
				for {
					if _, err := s.MakeUser(p); err == nil {
						break
					}
					if err := s.flushMade(); err != nil { // the next block is on its way
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	deadline := time.Now().Add(30 * time.Second)
	for stored := 0; stored != n; {
		if err := other.QueryRow(`SELECT count(*) FROM users`).Scan(&stored); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d made users reached the disk", stored, n)
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.made.mu.Lock()
	defer s.made.mu.Unlock()
	seen := map[uint32]bool{}
	for _, id := range s.made.ids {
		if seen[id] {
			t.Fatalf("id %d was given twice", id)
		}
		seen[id] = true
	}
}

func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	path := temp(t)
	stores := make([]*Store, 2)
	var wg sync.WaitGroup
	for i := range stores {
		wg.Go(func() {
			s, err := Open(path, Options{})
			if err != nil {
				t.Errorf("Open: %v", err)
			}
			stores[i] = s
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	p := pfx("192.0.2.7/32")
	ids := map[uint32]bool{}
	for i, s := range stores {
		u, err := s.MakeUser(p)
		if err != nil {
			t.Fatal(err)
		}
		other, err := s.MakeUser(pfx(fmt.Sprintf("198.51.100.%d/32", i)))
		if err != nil {
			t.Fatal(err)
		}
		ids[u.ID], ids[other.ID] = true, true
	}
	if len(ids) != 4 {
		t.Errorf("two processes gave the ids %v", ids)
	}
	for _, s := range stores {
		if err := s.flushMade(); err != nil {
			t.Fatal(err)
		}
	}
	a, errA := stores[0].MakeUser(p)
	b, errB := stores[1].MakeUser(p)
	if errA != nil || errB != nil || a != b {
		t.Errorf("once stored, the processes say %+v (%v) and %+v (%v)", a, errA, b, errB)
	}
	for i, s := range stores {
		wg.Go(func() {
			for n := range 50 {
				if err := s.Audit(Act{Who: fmt.Sprint(i), What: fmt.Sprint(n)}); err != nil {
					t.Errorf("Audit while the other writes: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if acts, err := stores[0].Acts(1000); err != nil || len(acts) != 100 {
		t.Errorf("%d acts, %v; want 100", len(acts), err)
	}
	for _, s := range stores {
		shut(t, s)
	}
}

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
	if err := errors.Join(s.SaveUnlocks(7, 2), s.SaveUnlocks(8, 1), s.SaveUnlocks(8, 0)); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	s = open(t, path)
	defer shut(t, s)
	active, unlocks, err := s.LoadLocks()
	if err != nil || len(active) != 2 || !reflect.DeepEqual(active[0], l) || !reflect.DeepEqual(unlocks, map[uint32]int{7: 2}) {
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

func TestOverridesAndAudit(t *testing.T) {
	t.Parallel()
	s := open(t, temp(t))
	defer shut(t, s)
	n, own := 7, policy.Own
	o := policy.Overrides{MessagesPerHour: &n, Delivery: &own}
	if err := s.SetOverrides(3, o); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Overrides(); err != nil || len(all) != 1 || !reflect.DeepEqual(all[3], o) {
		t.Errorf("Overrides: %+v, %v", all, err)
	}
	bad := -1
	if err := s.SetOverrides(3, policy.Overrides{MessagesPerHour: &bad}); err == nil {
		t.Error("an override out of bounds was stored")
	}
	if err := s.SetOverrides(3, policy.Overrides{}); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Overrides(); err != nil || len(all) != 0 {
		t.Errorf("after inheriting again: %+v, %v", all, err)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	want := Act{At: at, Who: "op", What: "unlock", Subject: "alice", Detail: "cleaned up"}
	if err := errors.Join(s.Audit(Act{Who: "op", What: "lock"}), s.Audit(want)); err != nil {
		t.Fatal(err)
	}
	if acts, err := s.Acts(1); err != nil || len(acts) != 1 || acts[0] != want {
		t.Errorf("Acts: %+v, %v", acts, err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer")
	shut(t, open(t, newer))
	db, err := sql.Open("sqlite", newer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "no", "folder"): "its folder is missing",
		filepath.Join(text, "below"):       "is not a folder",
		text:                               "not a database",
		newer:                              "a newer sluiced wrote it",
	} {
		s, err := Open(path, Options{})
		if err == nil {
			shut(t, s)
			t.Errorf("%s was opened", path)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("Open said %q, want it to name the path and %q", err, want)
		}
	}
	odd := filepath.Join(dir, "a?b%41 c#d.db")
	shut(t, open(t, odd))
	st, err := os.Stat(odd)
	if err != nil || st.Size() == 0 || st.Mode().Perm() != 0o600 {
		t.Errorf("a path with odd bytes: %v, %v", st, err)
	}
}

func TestFailedBackgroundWriteIsToldAndRetried(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 10)
	path := temp(t)
	s, err := Open(path, Options{Failed: func(err error) { failed <- err }})
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, s)
	if _, err := s.write.Exec(`ALTER TABLE users RENAME TO away`); err != nil {
		t.Fatal(err)
	}
	u, err := s.MakeUser(pfx("192.0.2.7/32"))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		if !strings.Contains(err.Error(), "could not store 1 made users") {
			t.Errorf("the failure says %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the failed write was not told")
	}
	if _, err := s.write.Exec(`ALTER TABLE away RENAME TO users`); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		var id uint32
		err := s.read.QueryRow(`SELECT id FROM users WHERE name = '192.0.2.7/32'`).Scan(&id)
		if err == nil && id == u.ID {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the write was not tried again: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func BenchmarkMakeUserKnown(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "s.db"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	for range b.N {
		if _, err := s.MakeUser(pfx("192.0.2.7/32")); err != nil {
			b.Fatal(err)
		}
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
