package intercept

import (
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"sluice/intercept/control"
)

func testJournal(dir string) *journal { return &journal{dir: dir, log: slog.New(slog.DiscardHandler)} }

// TestJournalComesBack: after any number of changes the next helper finds what was in force.
func TestJournalComesBack(t *testing.T) {
	t.Parallel()
	dir, r := t.TempDir(), rand.New(rand.NewPCG(1, 2))
	if _, found, err := testJournal(dir).load(); found || err != nil {
		t.Fatalf("an empty folder: %v %v", found, err)
	}
	j, set := testJournal(dir), new(runtimeSet)
	if !j.grown(0) {
		t.Error("a journal without a file need not be written")
	}
	for range 1200 {
		set.put(randomSource(r, randomPrefix(r)))
	}
	if err := j.write(set); err != nil {
		t.Fatal(err)
	}
	for range 3 { // a start goes on with the file of the one before
		for range 30 {
			c := randomChange(r, set)
			j.append(c)
			c.apply(set)
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
		j = testJournal(dir)
		got, found, err := j.load()
		if err != nil || !found || !equal(got, set) {
			t.Fatalf("%v %v, or other sources than before", found, err)
		}
	}
	if j.grown(set.Len()) {
		t.Error("is written anew at each start")
	}
	if err := j.replace(set, set); err != nil || j.lines != 0 {
		t.Errorf("%d lines, %v", j.lines, err)
	}
}

func TestTornJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, journalName)
	text := `{"put":[{"prefix":"192.0.2.0/24","user":3,"fail":"closed"},{"prefix":"192.0.2.0/33","mode":"pass"}]}`
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := testJournal(dir).load(); err == nil {
		t.Error("a senseless prefix was read")
	}
	text = `{"put":[{"prefix":"192.0.2.0/24","user":3,"fail":"closed"},{"prefix":"192.0.2.1/24","mode":"pass"}]}` + "\n" + `{"put":[{"prefix":"19`
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	j := testJournal(dir)
	set, found, err := j.load()
	if err != nil || !found || set.Len() != 1 || !j.grown(1) {
		t.Fatalf("torn: %v %v", found, err)
	}
	if s, ok := set.Get(prefix("192.0.2.0/24")); !ok || s.User != 3 || s.Fail != control.Closed {
		t.Errorf("%+v", s)
	}
}

// TestJournalWithoutDisk: what cannot be written is told once, and written when it can be.
func TestJournalWithoutDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "gone")
	j, set := testJournal(dir), new(runtimeSet)
	s := control.Source{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Mode: control.Drop}
	set.put(s)
	if err := j.write(set); err == nil || !j.broken {
		t.Fatal("wrote into a folder that is not there")
	}
	j.append(change{put: []control.Source{s}})
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := j.write(set); err != nil || j.broken {
		t.Fatal(err)
	}
	if got, _, err := testJournal(dir).load(); err != nil || !equal(got, set) {
		t.Error(err)
	}
}
