package msglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/intercept/flow"
	"sluice/proxy"
)

// fill writes a segment of several blocks and returns its path.
func fill(t *testing.T, dir string, n int) string {
	t.Helper()
	l := openAt(t, dir, Options{})
	for i := range n {
		l.Put(rec(i))
		if i%10 == 9 {
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := segments(dir)
	if err != nil || len(names) != 1 {
		t.Fatalf("segments: %v, %v", names, err)
	}
	return names[0]
}

func TestTornSegments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := fill(t, dir, 50)
	data, err := os.ReadFile(name + logSuffix)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := os.ReadFile(name + idxSuffix)
	if err != nil {
		t.Fatal(err)
	}
	write := func(d, i []byte) {
		t.Helper()
		if err := errors.Join(os.WriteFile(name+logSuffix, d, 0o600), os.WriteFile(name+idxSuffix, i, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	l := openAt(t, dir, Options{})
	defer l.Close()
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		cut := rnd.IntN(len(data) + 1)
		whole := 0
		for at := int64(0); at < int64(cut); {
			h, ok := parseHeader(data[at:])
			if !ok {
				t.Fatal("no header in a whole segment")
			}
			if at += h.size(); at <= int64(cut) {
				whole++
			}
		}
		for _, i := range [][]byte{idx, nil, idx[:rnd.IntN(len(idx))]} {
			write(data[:cut], i)
			got, err := l.Find(context.Background(), Query{Limit: 1000})
			if err != nil || len(got) != whole*10 {
				t.Fatalf("cut at %d of %d with %d of %d bytes of index: %d records, %v; want %d", cut, len(data), len(i), len(idx), len(got), err, whole*10)
			}
		}
	}
	// A record after a torn end goes to a segment of its own.
	write(data[:len(data)-5], idx)
	l.Put(rec(99))
	if got := find(t, l, Query{Limit: 1000}); len(got) != 41 || got[0].ID != rec(99).ID {
		t.Errorf("after the torn end: %d records, the newest %s", len(got), got[0].ID)
	}
}

func TestDamagedBlockIsToldAndPassedOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := fill(t, dir, 50)
	data, err := os.ReadFile(name + logSuffix)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(name+logSuffix, data, 0o600); err != nil {
		t.Fatal(err)
	}
	l := openAt(t, dir, Options{})
	defer l.Close()
	got, err := l.Find(context.Background(), Query{Limit: 1000})
	if err == nil || !strings.Contains(err.Error(), "damaged") || len(got) != 40 {
		t.Errorf("%d records, %v; want 40 and the damage named", len(got), err)
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "log")
	failed := make(chan error, 100)
	l := openAt(t, dir, Options{FlushEvery: time.Millisecond, MaxQueued: 8 << 10, Failed: func(err error) {
		select {
		case failed <- err:
		default:
		}
	}})
	defer l.Close()
	if err := os.RemoveAll(dir); err != nil { // no segment can be begun now
		t.Fatal(err)
	}
	const n = 100
	for i := range n {
		l.Put(rec(i))
	}
	for patience, told := time.After(20*time.Second), false; !told; {
		select {
		case err := <-failed: // the folder cannot be listed either
			told = strings.Contains(err.Error(), "could not begin a segment")
		case <-patience:
			t.Fatal("the failure was not told")
		}
	}
	lost := l.Stats().Lost
	if lost == 0 || lost == n {
		t.Fatalf("%d of %d records were lost, want some", lost, n)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); l.Stats().Queued > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the log did not go on when the disk was back")
		}
	}
	got := find(t, l, Query{Limit: 1000})
	if len(got) != n-int(lost)+1 {
		t.Errorf("%d records on disk, want the %d that were kept and one that tells of the rest", len(got), n-int(lost))
	}
	if want := fmt.Sprintf("%d records were lost", lost); !strings.HasPrefix(got[0].Note, want) || !got[0].Start.Equal(rec(n-int(lost)).Start) {
		t.Errorf("the last record is %+v, want a note %q", got[0], want)
	}
}

func FuzzRow(f *testing.F) {
	f.Add("a@example.org", "250 ok", "note \xff\x00\u2028", int64(5), uint64(7))
	f.Fuzz(func(t *testing.T, from, reply, note string, us int64, id uint64) {
		r := rec(1)
		r.Flow.ID, r.From, r.Reply, r.Note = flow.ID(id), from, reply, note
		r.To[0].Address, r.Helo, r.Ticket = note, reply, from
		r.Duration = time.Duration(us%(1<<40)) * time.Microsecond
		var e encoder
		e.encode(r)
		if row, rest, err := cutRow(append(e.row, rowMark)); len(row) != len(e.row) || len(rest) != 1 || err != nil {
			t.Fatalf("%d bytes are cut into %d and %d: %v", len(e.row), len(row), len(rest), err)
		}
		got, err := decode(e.row)
		if err != nil {
			t.Fatalf("%q: %v", e.row, err)
		}
		clean := func(s string) string { return string([]rune(s)) } // what is no UTF-8 becomes U+FFFD, byte by byte
		if got.From != clean(from) || got.Reply != clean(reply) || got.Note != clean(note) || got.Flow.ID != r.Flow.ID || got.Duration != r.Duration {
			t.Errorf("came back as %+v", got)
		}
	})
}

// FuzzDecode: any bytes may be found on a disk.
func FuzzDecode(f *testing.F) {
	var e encoder
	for _, r := range kinds() {
		e.encode(r)
		f.Add(e.row)
	}
	f.Add([]byte(`{"id":"x","status":"delivered","flow":"z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decode(b)
		if err == nil {
			_, _, _ = r.Status.String(), r.Verdict.Class.String(), r.Verdict.Decisive()
		}
		if rows, err := cutRows(nil, b); err == nil && len(bytes.Join(rows, nil)) != len(b) {
			t.Errorf("%d bytes are cut into %d", len(b), len(bytes.Join(rows, nil)))
		}
	})
}

func FuzzSegment(f *testing.F) {
	f.Add([]byte("LOG1"), []byte{})
	f.Fuzz(func(t *testing.T, data, idx []byte) {
		dir := t.TempDir()
		name := filepath.Join(dir, "20260301T120000.000000-1")
		if err := errors.Join(os.WriteFile(name+logSuffix, data, 0o600), os.WriteFile(name+idxSuffix, idx, 0o600)); err != nil {
			t.Fatal(err)
		}
		found := 0
		s := &search{q: &Query{}, take: func(*proxy.Record) bool { found++; return found < 10 }}
		_, _ = s.segment(context.Background(), name) // any bytes may be found on a disk; only a panic is wrong
		if found > 10 {
			t.Error("more than asked for")
		}
	})
}
