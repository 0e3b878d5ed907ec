package inflight

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var entry = Entry{
	ID: "k3x9.1", User: "alice", From: "a@example.org", To: strings.Repeat("x", 300), Rcpts: 3, Size: 10240,
	Client: netip.MustParseAddrPort("192.0.2.10:40000"), Target: netip.MustParseAddrPort("[2001:db8::25]:25"),
	Source: netip.MustParseAddr("203.0.113.16"), Sent: time.Unix(1_700_000_000, 5),
}

func TestEntriesOfAKilledProcessAreFound(t *testing.T) {
	if os.Getenv("INFLIGHT_CHILD") != "" {
		child(os.Getenv("INFLIGHT_CHILD"))
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run", t.Name())
	cmd.Env = append(os.Environ(), "INFLIGHT_CHILD="+dir)
	if err := cmd.Run(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child ended with %v, want killed", err)
	}
	full := errors.New("disk full")
	if _, err := Open(dir, func([]Entry) error { return full }); !errors.Is(err, full) {
		t.Fatalf("entries that could not be recorded gave error %v, want %v", err, full)
	}
	var left []Entry
	keep := func(e []Entry) error { left = append(left, e...); return nil }
	j, err := Open(dir, keep)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	want := entry
	want.To = want.To[:100]
	if len(left) != 1 || left[0] != want {
		t.Fatalf("left behind:\n%+v\nwant only\n%+v", left, want)
	}
	other, err := Open(dir, keep)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if len(left) != 1 {
		t.Errorf("a second look found %v too: our own file is locked, the dead one's is gone", left[1:])
	}
}

func none([]Entry) error { return nil }

// child leaves one message unanswered and one answered, and is killed.
func child(dir string) {
	j, err := Open(dir, none)
	if err != nil {
		os.Exit(3)
	}
	j.Answered(j.Sent(&Entry{ID: "answered"}))
	j.Sent(&entry)
	self, _ := os.FindProcess(os.Getpid())
	self.Kill()
	select {}
}

func TestManyStartAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stale := dir + "/1-stale" + unnamed
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(stale, old, old); err != nil {
		t.Fatal(err)
	}
	all := make([]*Journal, 8)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			j, err := Open(dir, func(e []Entry) error { return fmt.Errorf("adopted %v of a living process", e) })
			if err != nil {
				t.Error(err)
				return
			}
			j.Sent(&entry)
			all[i] = j
		})
	}
	wg.Wait()
	for _, j := range all {
		if j == nil {
			continue
		}
		if _, err := os.Stat(j.name); err != nil {
			t.Errorf("a living process's journal is gone: %v", err)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

func TestFullJournalCounts(t *testing.T) {
	j, err := Open(t.TempDir(), none)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for range slotCount {
		j.Sent(&entry)
	}
	if slot := j.Sent(&entry); slot != -1 || j.Overflowed() != 1 {
		t.Errorf("a full journal gave slot %d and counted %d, want -1 and 1", slot, j.Overflowed())
	}
	j.Answered(-1)
	j.Answered(7)
	if slot := j.Sent(&entry); slot != 7 {
		t.Errorf("after slot 7 was given back the journal gave %d", slot)
	}
}

func TestDecodeSurvivesAnything(t *testing.T) {
	whole := encode(make([]byte, 0, slotSize), &entry)
	for n := range whole {
		if _, ok := decode(whole[:n]); ok {
			t.Errorf("%d of %d bytes decoded as a whole entry", n, len(whole))
		}
	}
}

func BenchmarkSentAnswered(b *testing.B) {
	j, err := Open(b.TempDir(), none)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	b.ReportAllocs()
	for b.Loop() {
		j.Answered(j.Sent(&entry))
	}
}

// TestJournalHasItsBlocks: a hole in a mapped file on a full disk would kill the process when it is first written.
func TestJournalHasItsBlocks(t *testing.T) {
	t.Parallel()
	j, err := Open(t.TempDir(), none)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(j.file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != slotSize*slotCount || st.Blocks*512 < st.Size {
		t.Errorf("%d bytes in %d blocks of 512", st.Size, st.Blocks)
	}
}
