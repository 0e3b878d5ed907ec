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
)

// killed is what the child does: it commits and settles as fast as it can, and says each thing that returned, and each
// that it is about to do to the outside world, until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SLUICE_SPOOL_CHILD"); dir != "" {
		run := child
		if os.Getenv("SLUICE_SPOOL_TRY") != "" {
			run = trying
		}
		if err := run(dir); err != nil {
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

// heard is what a child said.
type heard struct {
	kept, sent, done map[string]bool // by id
}

func newHeard() *heard {
	return &heard{map[string]bool{}, map[string]bool{}, map[string]bool{}}
}

// note takes a line of the child's.
func (l *heard) note(line string) error {
	f := strings.Fields(line)
	if len(f) < 2 || f[0] == "error" {
		return fmt.Errorf("it failed: %s", line)
	}
	if m := map[string]map[string]bool{"kept": l.kept, "sent": l.sent, "done": l.done}[f[0]]; m != nil {
		m[f[1]] = true
	}
	return nil
}

// check compares it with what is there.
func (l *heard) check(t *testing.T, there map[string]bool) {
	t.Helper()
	for id := range l.kept {
		if !there[id] && !l.sent[id] {
			t.Errorf("%s is lost", id)
		}
		if there[id] && l.done[id] {
			t.Errorf("%s was done and is back", id)
		}
	}
}

// stored lists what a spool has, each with the message that the child made.
func stored(t *testing.T, s *Spool) map[string]bool {
	t.Helper()
	there := map[string]bool{}
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
	return there
}

// A real process that is really killed: what it said to be kept is there, what it said to be done is not, and whatever it
// was about to do is known as interrupted.
func TestKilledProcessLosesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cycles := max(points(t, 300)/50, 4)
	led, listed := newHeard(), map[string]bool{}
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
			if err == nil {
				err = led.note(line)
			}
			if err != nil {
				t.Fatalf("cycle %d: the child said %q: %v", n, line, err)
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
		interrupted, there := map[string]bool{}, stored(t, s)
		for _, d := range rep.Interrupted {
			interrupted[d.ID.String()] = true
		}
		led.check(t, there)
		for id := range led.kept {
			switch {
			case there[id] && led.sent[id] && !interrupted[id] && !listed[id]:
				t.Errorf("cycle %d: %s may go out twice, and is not among those that were interrupted", n, id)
			case there[id] && led.sent[id] && interrupted[id]:
				listed[id] = true
				again++
			case !there[id]:
				delete(led.kept, id)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d kills, %d messages left, %d deliveries interrupted and listed", cycles, len(led.kept), again)
}
