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
