package spool

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// killed is what the child does: it commits and settles as fast as it can, and says each thing that returned, and each
// that it is about to do to the outside world, until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SLUICE_SPOOL_CHILD"); dir != "" {
		if err := child(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func child(dir string) error {
	s, err := Open(dir, Options{SegmentSize: 64 << 10, Crashes: 1 << 20})
	if err != nil {
		return err
	}
	say := make(chan string, 64)
	go func() {
		for line := range say {
			tell(line + "\n") // one write each: what was said before the kill is heard
		}
	}()
	failed := make(chan error, 8)
	for w := range 4 {
		go func() {
			r := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(w)))
			for {
				n := r.IntN(1 << 20)
				ids, err := tryCommit(s, to(fmt.Sprintf("%d@example.net", n)), message(n))
				if err != nil {
					failed <- err
					return
				}
				say <- fmt.Sprintf("kept %v %d", ids[0], n)
				if r.IntN(3) == 0 {
					continue
				}
				l, err := s.Lease(ids[0])
				if err != nil {
					failed <- err
					return
				}
				if err := l.Noted(); err != nil {
					failed <- err
					return
				}
				tell(fmt.Sprintf("sent %v\n", ids[0]))
				if err := l.Settle(State{}); err != nil {
					failed <- err
					return
				}
				say <- fmt.Sprintf("done %v", ids[0])
			}
		}()
	}
	return <-failed
}

// A real process that is really killed: what it said to be kept is there, what it said to be done is not, and whatever it
// was about to do is known as interrupted.
func TestKilledProcessLosesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cycles := max(points(t, 300)/50, 4)
	kept, sent, done := map[string]string{}, map[string]bool{}, map[string]bool{}
	again := 0
	for n := range cycles {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe, "-test.run=^$")
		cmd.Env = append(os.Environ(), "SLUICE_SPOOL_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		killAfter := rand.IntN(60)
		in := bufio.NewReader(out)
		for lines := 0; ; lines++ {
			line, err := in.ReadString('\n')
			if err == io.EOF {
				break
			}
			f := strings.Fields(line)
			switch {
			case err != nil || len(f) < 2 || f[0] == "error":
				t.Fatalf("cycle %d: the child said %q: %v", n, line, err)
			case f[0] == "kept":
				kept[f[1]] = f[2]
			case f[0] == "sent":
				sent[f[1]] = true
			case f[0] == "done":
				done[f[1]] = true
			}
			if lines == killAfter {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
		s, err := Open(dir, Options{SegmentSize: 64 << 10, Keep: true, Crashes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		rep, err := s.Takeover()
		if err != nil {
			t.Fatal(err)
		}
		interrupted, there := map[string]bool{}, map[string]bool{}
		for _, id := range rep.Interrupted {
			interrupted[id.String()] = true
		}
		for _, id := range all(s) {
			there[id.String()] = true
			l, err := s.Look(id)
			if err != nil {
				t.Fatal(err)
			}
			var k int
			if text, err := readText(l); err != nil {
				t.Error(err)
			} else if _, err := fmt.Sscanf(text, "Subject: message %d\r\n", &k); err != nil || text != message(k) {
				t.Errorf("%v holds something else: %v", id, err)
			}
		}
		for id := range kept {
			switch {
			case there[id] && done[id]:
				t.Errorf("cycle %d: %s was done and is back", n, id)
			case !there[id] && !sent[id]:
				t.Errorf("cycle %d: %s is lost", n, id)
			case there[id] && sent[id] && !interrupted[id] && !done["listed "+id]:
				t.Errorf("cycle %d: %s may go out twice, and is not among those that were interrupted", n, id)
			case there[id] && sent[id] && interrupted[id]:
				done["listed "+id] = true
				again++
			case !there[id]:
				delete(kept, id)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d kills, %d messages left, %d deliveries interrupted and listed", cycles, len(kept), again)
}

// A message that has the program end each time it is tried is found out, and the others are not.
func TestPoisonIsSetAside(t *testing.T) {
	t.Parallel()
	d := newSimDisk(3)
	var poison, good ID
	for n := range 4 {
		s, err := Open("simulated", Options{disk: d, Keep: true})
		if err != nil {
			t.Fatal(err)
		}
		rep, err := s.Takeover()
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			poison = commit(t, s, to("p@example.net"), message(1))[0]
			good = commit(t, s, to("g@example.net"), message(2))[0]
		}
		if n < 3 {
			if rep.SetAside != nil {
				t.Errorf("set aside after %d crashes: %v", n, rep.SetAside)
			}
			l := lease(t, s, good)
			if err := l.Settle(State{Left: 1, Due: time.Now()}); err != nil {
				t.Fatal(err)
			}
			if err := lease(t, s, poison).Noted(); err != nil {
				t.Fatal(err)
			}
			d.restart(false)
			s.Close()
			continue
		}
		if len(rep.SetAside) != 1 || rep.SetAside[0] != poison {
			t.Errorf("set aside are %v", rep.SetAside)
		}
		_, err = s.Lease(poison)
		mustBe(t, err, ErrHeld)
		if l, err := s.Look(poison); err != nil || l.State.Crashes != 3 || !strings.Contains(l.State.Hold, "3 times") {
			t.Errorf("%v: %+v", err, l.State)
		}
		if l := lease(t, s, good); l.State.Crashes != 0 {
			t.Errorf("the good one has %d crashes", l.State.Crashes)
		}
		if err := s.Release(poison); err != nil {
			t.Fatal(err)
		}
		if l := lease(t, s, poison); l.State.Crashes != 0 {
			t.Error("crashes count on after a release")
		}
		s.Close()
	}
}
