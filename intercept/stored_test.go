package intercept

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/intercept/control"
)

func TestStoredComesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if s, err := loadStored(dir); err != nil || len(s.Sources)+len(s.Locks) != 0 {
		t.Fatalf("an empty folder: %+v %v", s, err)
	}
	until := time.Now().Add(time.Hour)
	want := stored{
		Version: storedVersion,
		Sources: []control.Source{{Prefix: prefix("2001:db8::/64"), User: 3, Mode: control.Reject, Fail: control.Closed}},
		Locks:   []control.Lock{{User: 3, Until: until, PerMinute: 10, Prefixes: []netip.Prefix{prefix("192.0.2.0/29")}}},
	}
	for range 2 {
		if err := want.save(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := loadStored(dir)
	if err != nil || len(got.Sources) != 1 || got.Sources[0] != want.Sources[0] || len(got.Locks) != 1 || !got.Locks[0].Until.Equal(until) {
		t.Errorf("%+v %v", got, err)
	}
	if files, err := os.ReadDir(dir); len(files) != 1 || err != nil {
		t.Errorf("left behind: %v %v", files, err)
	}
	// What a crash in the middle of a write leaves is removed, too.
	if err := os.WriteFile(filepath.Join(dir, storedName+".123"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := removeStored(dir); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(dir); len(files) != 0 || err != nil {
		t.Errorf("left behind: %v %v", files, err)
	}
}

func TestFailedWriteLeavesTheOldState(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := stored{Version: storedVersion, Locks: []control.Lock{{User: 1}}}
	// A folder stands where the file should go: the rename fails.
	if err := os.MkdirAll(filepath.Join(dir, storedName, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.save(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("err = %v", err)
	}
	if files, err := os.ReadDir(dir); len(files) != 1 || err != nil {
		t.Errorf("left behind: %v %v", files, err)
	}
	if err := s.save(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("err = %v", err)
	}
}

func TestBrokenStateIsNamed(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "{", `{"version":9}`, `{"version":1,"sources":[{"prefix":"x"}]}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, storedName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadStored(dir); err == nil || !strings.Contains(err.Error(), storedName) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestReturnedListenerIsChecked(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // a listener, but neither transparent nor on our port
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = checkListener(f, 1)
	if err == nil || !strings.Contains(err.Error(), "not transparent") || !strings.Contains(err.Error(), "instead of 1") {
		t.Errorf("err = %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := checkListener(r, 1); err == nil || !strings.Contains(err.Error(), "not listening") {
		t.Errorf("a pipe: %v", err)
	}
}
