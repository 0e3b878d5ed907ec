package store

import (
	"database/sql"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

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
