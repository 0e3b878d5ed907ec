package msglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/proxy"
	"sluice/proxy/durable"
)

// several makes n sealed segments of 30 records each, the k-th begun in minute k of a day, and returns their paths.
func several(t *testing.T, dir string, day time.Time, n int) (names []string) {
	t.Helper()
	for k := range n {
		aside := t.TempDir()
		l := openAt(t, aside, Options{})
		for i := range 30 {
			l.Put(rec(30*k + i))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openAt(t, aside, Options{})
		sealedAll(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		old, err := segments(aside)
		if err != nil || len(old) != 1 {
			t.Fatalf("%v, %v", old, err)
		}
		names = append(names, filepath.Join(dir, day.Add(time.Duration(k)*time.Minute).Format(nameTime)+"-1"))
		last := day.Add(time.Duration(k+1) * time.Minute)
		if err := errors.Join(os.Rename(old[0]+segSuffix, names[k]+segSuffix), os.Chtimes(names[k]+segSuffix, last, last)); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// all asserts that the log holds the records 0 to n-1 once each, the newest first, and finds one by its key.
func all(t *testing.T, l *Log, n int) {
	t.Helper()
	want := make([]string, n)
	for i := range want {
		want[n-1-i] = rec(i).ID
	}
	if got := ids(find(t, l, Query{Limit: 2 * n})); got != strings.Join(want, " ") {
		t.Errorf("%d records are %.200q", n, got)
	}
	for _, i := range []int{0, n / 2, n - 1} {
		if got := ids(find(t, l, Query{Recipient: fmt.Sprintf("rcpt%d@example.net", i)})); got != rec(i).ID {
			t.Errorf("by the recipient of record %d: %q", i, got)
		}
	}
}

var noon = time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -30).Add(12 * time.Hour)

// TestSegmentsAreMerged: fan of one day at once, what is left of it when it is over, and none a second time.
func TestSegmentsAreMerged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	names := several(t, dir, noon, fan+3)
	l := openAt(t, dir, Options{Keep: 400 * 24 * time.Hour})
	defer l.Close()
	for _, step := range []struct {
		now  time.Time
		left int
	}{{noon.Add(time.Hour), 4}, {noon.Add(time.Hour), 4}, {noon.Add(24 * time.Hour), 2}, {noon.Add(48 * time.Hour), 2}} {
		if _, err := l.mergeAll(step.now, nil); err != nil {
			t.Fatal(err)
		}
		if _, done := files(t, dir); done != step.left {
			t.Errorf("at %v: %d segments, want %d", step.now, done, step.left)
		}
		all(t, l, 30*(fan+3))
	}
	if st, err := os.Stat(names[fan] + segSuffix); err != nil || !st.ModTime().Equal(noon.Add((fan+3)*time.Minute)) {
		t.Errorf("the second one bears %v (%v), want the time of its last record", st.ModTime(), err)
	}
	for i := range 10 { // the borders of segments and blocks in time
		from, until := rec(30*i+7).Start, rec(30*i+50).Start
		if got := find(t, l, Query{From: from, Until: until}); len(got) != 43 {
			t.Errorf("%d records from %v to %v, want 43", len(got), from, until)
		}
		if got := find(t, l, Query{User: 4, From: from, Until: until}); len(got) < 4 || slices.ContainsFunc(got, func(r *proxy.Record) bool { return r.Flow.User.ID != 4 }) {
			t.Errorf("of one user: %s", ids(got))
		}
	}
}

// TestDaysAreNotMerged: a segment goes when its last record is too old, so one holds no more than a day.
func TestDaysAreNotMerged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for d := range 3 {
		several(t, dir, noon.AddDate(0, 0, d), 1)
	}
	l := openAt(t, dir, Options{Keep: 400 * 24 * time.Hour})
	defer l.Close()
	if _, err := l.mergeAll(noon.AddDate(0, 0, 9), nil); err != nil {
		t.Fatal(err)
	}
	if _, done := files(t, dir); done != 3 {
		t.Errorf("%d segments, want 3", done)
	}
}

// TestInterruptedMerging: what a crash leaves behind the step that counts is removed the next time.
func TestInterruptedMerging(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	names := several(t, dir, noon, 3)
	l := openAt(t, dir, Options{Keep: 400 * 24 * time.Hour})
	defer l.Close()
	kept := map[string][]byte{}
	for _, n := range names[1:] {
		b, err := os.ReadFile(n + segSuffix)
		if err != nil {
			t.Fatal(err)
		}
		kept[n] = b
	}
	later := noon.Add(24 * time.Hour)
	for range 2 {
		if _, err := l.mergeAll(later, nil); err != nil {
			t.Fatal(err)
		}
		all(t, l, 90)
		if _, done := files(t, dir); done != 1 {
			t.Errorf("%d segments, want 1", done)
		}
		for n, b := range kept { // as a crash leaves them
			if err := os.WriteFile(n+segSuffix, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestOneProcessMerges: what another process merges is left to it.
func TestOneProcessMerges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	names := several(t, dir, noon, 3)
	l := openAt(t, dir, Options{Keep: 400 * 24 * time.Hour})
	defer l.Close()
	other, err := os.Open(names[0] + segSuffix)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for _, want := range []error{errBusy, nil} {
		if _, err := l.mergeAll(noon.Add(24*time.Hour), nil); !errors.Is(err, want) {
			t.Errorf("merging: %v, want %v", err, want)
		}
		all(t, l, 90)
		if err := durable.Release(other); want != nil && err != nil {
			t.Fatal(err)
		}
	}
	if _, done := files(t, dir); done != 1 {
		t.Errorf("%d segments, want 1", done)
	}
}

// TestDamageIsNotMerged: where one of them is damaged they stay as they are.
func TestDamageIsNotMerged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	names := several(t, dir, noon, 3)
	l := openAt(t, dir, Options{Keep: 400 * 24 * time.Hour})
	defer l.Close()
	good, err := os.ReadFile(names[1] + segSuffix)
	if err != nil {
		t.Fatal(err)
	}
	g, err := openSealed(names[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{g.dir + 3, g.index + 5} {
		bad := bytes.Clone(good)
		bad[at] ^= 4
		if err := os.WriteFile(names[1]+segSuffix, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		name, err := l.mergeAll(noon.Add(24*time.Hour), nil)
		if err == nil || name != names[0] || !strings.Contains(err.Error(), names[1]) {
			t.Errorf("damaged at %d: %q, %v", at, name, err)
		}
		left, err := filepath.Glob(filepath.Join(dir, "*"+segSuffix+"*"))
		if err != nil || len(left) != 3 {
			t.Errorf("left are %v (%v)", left, err)
		}
	}
	if name, err := l.mergeAll(noon.Add(24*time.Hour), map[string]bool{names[0]: true}); err == nil || name != names[1] {
		t.Errorf("beside the broken one: %q, %v", name, err)
	}
	if err := g.f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSearchesHoldMerging: what a search has listed it finds, however long it takes.
func TestSearchesHoldMerging(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	names := several(t, dir, noon, 4)
	l := openAt(t, dir, Options{Keep: 400 * 24 * time.Hour})
	defer l.Close()
	merged := make(chan error, 1)
	n := 0
	err := l.Each(context.Background(), Query{}, func(*proxy.Record) bool {
		if n++; n == 1 {
			go func() {
				_, err := l.mergeAll(noon.Add(24*time.Hour), nil)
				merged <- err
			}()
			for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
				if st, err := os.Stat(names[0] + segSuffix + tmpSuffix); err == nil && time.Since(st.ModTime()) > time.Hour {
					break // it is whole: it bears its time
				}
				if time.Now().After(deadline) {
					t.Error("nothing was merged")
					return false
				}
			}
			if _, done := files(t, dir); done != 4 {
				t.Errorf("%d segments during the search, want 4", done)
			}
		}
		return true
	})
	if err != nil || n != 120 {
		t.Errorf("%d records, %v; want 120", n, err)
	}
	if err := <-merged; err != nil {
		t.Fatal(err)
	}
	if _, done := files(t, dir); done != 1 {
		t.Errorf("%d segments, want 1", done)
	}
	all(t, l, 120)
}

// TestChildrenHoldNoLocks: a process that this one starts has its files, until it runs its program; who has let go of
// a lock meanwhile has let go of it.
func TestChildrenHoldNoLocks(t *testing.T) {
	t.Parallel()
	done, started := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(started)
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := exec.Command("true").Run(); err != nil {
				started <- err
				return
			}
		}
	}()
	defer func() {
		close(done)
		if err := <-started; err != nil {
			t.Error(err)
		}
	}()
	dir := t.TempDir()
	names := several(t, dir, noon, 2)
	l := openAt(t, dir, Options{Keep: 400 * 24 * time.Hour})
	defer l.Close()
	bad, err := os.ReadFile(names[1] + segSuffix)
	if err != nil {
		t.Fatal(err)
	}
	g, err := openSealed(names[1])
	if err != nil {
		t.Fatal(err)
	}
	bad[g.dir+3] ^= 4
	if err := errors.Join(g.f.Close(), os.WriteFile(names[1]+segSuffix, bad, 0o600)); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if i%3 == 0 {
			several(t, dir, noon.AddDate(0, 0, 1), 1) // seals what was just closed
		}
		if _, err := l.mergeAll(noon.Add(24*time.Hour), nil); err == nil || errors.Is(err, errBusy) {
			t.Fatalf("merging: %v, want the damage", err)
		}
	}
}
