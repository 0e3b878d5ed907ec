package spool

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// trying leases what SLUICE_SPOOL_TRY names, and ends as SLUICE_SPOOL_END says.
func trying(dir string) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, s.CrashFile()), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(debug.SetCrashOutput(f, debug.CrashOptions{}), f.Close()); err != nil {
		return err
	}
	for word := range strings.FieldsSeq(os.Getenv("SLUICE_SPOOL_TRY")) {
		id, err := ParseID(word)
		if err != nil {
			return err
		}
		l, err := s.Lease(id)
		if err != nil {
			return err
		}
		if err := l.Noted(); err != nil {
			return err
		}
	}
	if os.Getenv("SLUICE_SPOOL_END") == "crash" {
		go panic("poison")
		select {}
	}
	p, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = p.Kill()
	}
	time.Sleep(time.Minute)
	return err
}

// ended has a process end while it tries deliveries, and gives what the next start finds.
func ended(t *testing.T, dir, how string, ids ...ID) (*Spool, *Report) {
	t.Helper()
	var words []string
	for _, id := range ids {
		words = append(words, id.String())
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), "SLUICE_SPOOL_CHILD="+dir, "SLUICE_SPOOL_TRY="+strings.Join(words, " "), "SLUICE_SPOOL_END="+how)
	if out, err := cmd.CombinedOutput(); err == nil || (how == "crash") != strings.Contains(string(out), "panic: poison") {
		t.Fatalf("the child ended otherwise: %v\n%s", err, out)
	}
	s, err := Open(dir, Options{Keep: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	rep, err := s.Takeover()
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Interrupted) != len(ids) || rep.Interrupted[0].Message != "m1" || len(rep.Interrupted[0].To) != 1 {
		t.Fatalf("interrupted are %+v, want %v", rep.Interrupted, ids)
	}
	return s, rep
}

// TestPoisonIsSetAside: a message that has the program crash each time it is tried is found out, and those that were tried
// beside it once are not.
func TestPoisonIsSetAside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	poison, good := commit(t, s, to("p@example.net"), message(1))[0], commit(t, s, to("g@example.net"), message(2))[0]
	for n := 1; ; n++ {
		s.Close()
		both := []ID{poison, good}[:1+n%2]
		var rep *Report
		if s, rep = ended(t, dir, "crash", both...); n == 3 {
			if len(rep.SetAside) != 1 || rep.SetAside[0] != poison {
				t.Errorf("set aside are %v", rep.SetAside)
			}
			break
		}
		if rep.SetAside != nil {
			t.Errorf("set aside after %d crashes: %v", n, rep.SetAside)
		}
	}
	_, err := s.Lease(poison)
	mustBe(t, err, ErrHeld)
	if l, err := s.Look(poison); err != nil || l.State.Crashes != 3 || !strings.Contains(l.State.Hold, "crashed 3 times") {
		t.Errorf("%v: %+v", err, l.State)
	}
	if l := lease(t, s, good); l.State.Crashes != 2 {
		t.Errorf("the good one has %d crashes", l.State.Crashes)
	} else if err := l.Settle(State{Left: 1, Due: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Get(good); err != nil || d.Suspect {
		t.Errorf("a try that ended well clears nobody: %+v, %v", d, err)
	}
	if err := s.Release(poison); err != nil {
		t.Fatal(err)
	}
	if l := lease(t, s, poison); l.State.Crashes != 0 {
		t.Error("crashes count on after a release")
	}
}

// TestKillsArePutOnNobodySoon: who kills the program again and again does not have the mail set aside that is being tried just
// then; only what is alone each time is in the end, since a lack of memory ends the program without a word, too.
func TestKillsArePutOnNobodySoon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	a, b := commit(t, s, to("a@example.net"), message(1))[0], commit(t, s, to("b@example.net"), message(2))[0]
	for n := range 11 {
		s.Close()
		tried := []ID{a}
		if n == 4 {
			tried = append(tried, b)
		}
		var rep *Report
		s, rep = ended(t, dir, "kill", tried...)
		if held := len(rep.SetAside) > 0; held != (n == 10) {
			t.Errorf("after %d kills set aside are %v", n+1, rep.SetAside)
		}
	}
	if l, err := s.Look(a); err != nil || l.State.Crashes != 0 || !strings.Contains(l.State.Hold, "ended 10 times while nothing but this") {
		t.Errorf("%v: %+v", err, l.State)
	}
	if d, err := s.Get(b); err != nil || !d.Suspect || d.Held {
		t.Errorf("%v: %+v", err, d)
	}
}
