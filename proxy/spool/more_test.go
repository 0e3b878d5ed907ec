package spool

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestGenerationsHandOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := open(t, dir, Options{})
	first := commit(t, old, to("a@example.net"), message(1))[0]
	young := open(t, dir, Options{Keep: true})
	if rep, err := young.Takeover(); err != nil || rep.Generations != 0 || len(all(young)) != 0 {
		t.Fatalf("taken from the living: %v, %+v", err, rep)
	}
	second := commit(t, old, to("a@example.net"), message(2))[0]
	own := commit(t, young, to("a@example.net"), message(3))[0]
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	var arrived []ID
	young.o.Arrived = func(d *Delivery) { arrived = append(arrived, d.ID) }
	if rep, err := young.Takeover(); err != nil || rep.Generations != 1 || rep.Deliveries != 2 || rep.Interrupted != nil {
		t.Fatalf("%v, %+v", err, rep)
	}
	slices.Sort(arrived)
	if want := []ID{first, second}; !slices.Equal(arrived, want) {
		t.Errorf("arrived are %v, want %v", arrived, want)
	}
	for i, id := range []ID{first, second, own} {
		if l := lease(t, young, id); textOf(t, l) != message(i+1) {
			t.Errorf("delivery %v holds another message", id)
		} else if err := l.Settle(State{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := young.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v is left", err, left)
	}
}

func TestFullDiskRefusesMailAndKeepsWhatHappened(t *testing.T) {
	t.Parallel()
	d := newSimDisk(1)
	s, err := Open("simulated", Options{disk: d, whenFull: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id := commit(t, s, to("a@example.net"), message(1))[0]
	l := lease(t, s, id)
	if err := l.Noted(); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.room, d.full = 10, -1_000_000
	d.mu.Unlock()
	_, err = tryCommit(s, to("a@example.net"), message(2))
	mustBe(t, err, ErrFull)
	settled := make(chan error, 1)
	go func() { settled <- l.Settle(State{}) }()
	for s.Err() == nil { // wait until it was tried
		s.mu.Lock()
		starved := s.starved != nil
		s.mu.Unlock()
		if starved {
			break
		}
		runtime.Gosched()
	}
	_, err = tryCommit(s, to("a@example.net"), message(3))
	mustBe(t, err, ErrFull)
	d.mu.Lock()
	d.room = -1
	d.mu.Unlock()
	if err := <-settled; err != nil {
		t.Fatal(err)
	}
	commit(t, s, to("a@example.net"), message(4))
	d.restart(true)
	if s, err = Open("simulated", Options{disk: d}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if left := all(s); len(left) != 1 || left[0] == id {
		t.Errorf("left are %v", left)
	}
}

func TestFailedSyncSpoilsTheSpool(t *testing.T) {
	t.Parallel()
	d, a := newSimDisk(1), &alarms{}
	s, err := Open("simulated", Options{disk: d, Alarm: a.hear})
	if err != nil {
		t.Fatal(err)
	}
	id := commit(t, s, to("a@example.net"), message(1))[0]
	d.mu.Lock()
	d.fault = fault{at: d.ops + 2, err: syscall.EIO} // a write, then its sync
	d.mu.Unlock()
	_, err = tryCommit(s, to("a@example.net"), message(2))
	mustBe(t, err, ErrBad)
	mustBe(t, err, syscall.EIO)
	d.mu.Lock()
	ops := d.ops
	d.mu.Unlock()
	_, err = s.Create()
	mustBe(t, err, ErrBad)
	_, err = s.Lease(id)
	mustBe(t, err, ErrBad)
	mustBe(t, s.Err(), ErrBad)
	s.Close()
	d.mu.Lock()
	if d.ops != ops {
		t.Errorf("%d operations after the failed sync", d.ops-ops)
	}
	d.mu.Unlock()
	if n := strings.Count(a.String(), "failed to write"); n != 1 {
		t.Errorf("%d alarms: %v", n, a)
	}
	d.restart(true)
	if s, err = Open("simulated", Options{disk: d}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := all(s); !slices.Contains(got, id) {
		t.Errorf("%v is lost: %v", id, got)
	}
}

func TestLittleRoomIsNoRoomForMail(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Options{MinFree: 1 << 62})
	room, size, err := s.d.free()
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Create()
	if full := room < size/20; full {
		mustBe(t, err, ErrFull)
	} else if err != nil {
		t.Errorf("%d of %d bytes are free, and it said %v", room, size, err)
	}
}

// What is done must not fill the disk, however long a few deliveries stay.
func TestSpoolStaysSmall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{SegmentSize: 48 << 10})
	var stay []ID
	for i := range 600 {
		id := commit(t, s, to("a@example.net"), message(900))[0]
		if i%30 == 0 {
			stay = append(stay, id)
			continue
		}
		l := lease(t, s, id)
		if i%3 == 0 {
			if err := l.Settle(State{Left: 1, Due: time.Now(), Attempts: 1}); err != nil {
				t.Fatal(err)
			}
			l = lease(t, s, id)
		}
		if err := l.Settle(State{}); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for f := s.Figures(); f.Bytes > 4*f.Live+3*(48<<10); f = s.Figures() {
		if time.Now().After(deadline) {
			for _, g := range s.segs {
				t.Logf("%s key %d: live %d, refs %v, pins %d, kept %t, suspect %t, sealed %t size %d", g.name, g.key, g.live, g.refs, g.pins, g.kept, g.suspect, g.sealed, g.size)
			}
			t.Fatalf("figures are %+v", f)
		}
		s.tidySoon()
		time.Sleep(time.Millisecond)
	}
	s.Close()
	s = open(t, dir, Options{SegmentSize: 48 << 10})
	if got := all(s); !slices.Equal(got, stay) {
		t.Errorf("%d deliveries are left, want %d", len(got), len(stay))
	}
	for _, id := range stay {
		if l := lease(t, s, id); textOf(t, l) != message(900) {
			t.Errorf("delivery %v holds another message", id)
		}
	}
}

var update = flag.Bool("update", false, "write testdata of this version's format")

// Every released version of the format stands in testdata/v<n>: a spool as a killed program leaves it.
func TestReadsEveryVersion(t *testing.T) {
	t.Parallel()
	name := fmt.Sprintf("testdata/v%d", version)
	if *update {
		writeVersion(t, name)
	}
	dirs, err := filepath.Glob("testdata/v*")
	if err != nil || !slices.Contains(dirs, name) {
		t.Fatalf("%v: %v does not hold this version; run go test -run Version -update", err, dirs)
	}
	for _, v := range dirs {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(v)); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, Options{})
		subjects := map[string]State{}
		s.Each(0, func(d *Delivery) bool { return true })
		for _, id := range all(s) {
			l, err := s.Look(id)
			if err != nil {
				t.Fatalf("%s: %v", v, err)
			}
			subject, _, _ := strings.Cut(textOf(t, l), "\r\n")
			subjects[subject+" to "+l.Envelope.Rcpts[0].Address] = l.State
			if l.Envelope.From != "a@example.com" || l.Envelope.UserName != "alice" {
				t.Errorf("%s: the envelope is %+v", v, l.Envelope)
			}
		}
		if len(subjects) != 3 || subjects["Subject: message 2 to b@example.org"].Attempts != 1 || subjects["Subject: message 3 to h@example.net"].Hold != "wait" ||
			subjects["Subject: large to l@example.net"].Left != 1 {
			t.Errorf("%s holds %+v", v, subjects)
		}
	}
}

func writeVersion(t *testing.T, name string) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	if err := lease(t, s, commit(t, s, to("done@example.net"), message(1))[0]).Settle(State{}); err != nil {
		t.Fatal(err)
	}
	ids := commit(t, s, to("a@example.net", "b@example.org"), message(2))
	if err := lease(t, s, ids[0]).Settle(State{}); err != nil {
		t.Fatal(err)
	}
	if err := lease(t, s, ids[1]).Settle(State{Left: 1, Attempts: 1, Replies: []Reply{{Code: 450, Text: "later", Host: "mx.example.org"}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Hold(commit(t, s, to("h@example.net"), message(3))[0], "wait"); err != nil {
		t.Fatal(err)
	}
	large(t, s, "Subject: large\r\n\r\n"+strings.Repeat("x\r\n", 7000))
	if err := os.CopyFS(name, os.DirFS(dir)); err != nil { // before it is sealed
		t.Fatal(err)
	}
}

func BenchmarkCommit(b *testing.B) {
	text := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 160)
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("sessions=%d", n), func(b *testing.B) {
			s := open(b, b.TempDir(), Options{})
			body := bodyOf(b, text)
			env := to("a@example.net")
			b.SetBytes(body.Size())
			b.ReportAllocs()
			cpu := spent()
			b.ResetTimer()
			var wg sync.WaitGroup
			var left atomic.Int64
			left.Store(int64(b.N))
			for range n {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						d, err := s.Create()
						if err == nil {
							_, err = d.Commit(env, nil, body)
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			b.ReportMetric(float64((spent()-cpu).Nanoseconds())/float64(b.N)/1000, "cpu-µs/op")
		})
	}
}

func spent() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A queue of a million costs bounded memory and starts in seconds. SLUICE_DELIVERIES tells how many; a few are for CI.
func TestManyDeliveries(t *testing.T) {
	n := 20_000
	if v, err := strconv.Atoi(os.Getenv("SLUICE_DELIVERIES")); err == nil {
		n = v
	}
	dir := t.TempDir()
	s := open(t, dir, Options{})
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n))
	for range 200 {
		wg.Go(func() {
			for i := left.Add(-1); i >= 0; i = left.Add(-1) {
				if _, err := tryCommit(s, to(fmt.Sprintf("someone.or.other@domain%d.example.net", i%100_000)), message(int(i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = nil
	debug.FreeOSMemory()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begun, cpu := time.Now(), spent()
	usual := debug.SetGCPercent(25) // as the daemon does meanwhile
	s = open(t, dir, Options{})
	debug.SetGCPercent(usual)
	took, used := time.Since(begun), spent()-cpu
	debug.FreeOSMemory()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
	resident := (after.Sys - after.HeapReleased) >> 20
	t.Logf("%d deliveries: start took %v and %v of CPU, %.0f bytes of memory each, %d MiB of the system's", n, took, used, each, resident)
	if resident > 100+uint64(n)*200>>20 {
		t.Errorf("%d MiB are the process's for %d deliveries", resident, n)
	}
	if got := s.Figures().Deliveries; got != n {
		t.Errorf("%d deliveries, want %d", got, n)
	}
	if each > 250 {
		t.Errorf("%.0f bytes of memory for each delivery", each)
	}
	if used > time.Second+time.Duration(n)*9*time.Microsecond { // on a machine that does nothing else it takes that long
		t.Errorf("the start took %v of CPU", used)
	}
}

// TestDomainsAreForgotten: what memory knows of a domain goes with its last delivery.
func TestDomainsAreForgotten(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Options{})
	stays := commit(t, s, to("a@stays.example", "b@both.example"), message(1))
	for n := range 50 {
		for _, id := range commit(t, s, to(fmt.Sprintf("a@d%d.example", n), "c@both.example"), message(n)) {
			if err := lease(t, s, id).Settle(State{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.mu.Lock()
	names, numbers := len(s.x.domain), len(s.x.domains)
	s.mu.Unlock()
	if names != 2 || numbers > 3 {
		t.Errorf("%d domains are known under %d numbers, want two", names, numbers)
	}
	for i, want := range []string{"stays.example", "both.example"} {
		if d, err := s.Get(stays[i]); err != nil || d.Domain != want {
			t.Errorf("%+v, %v, want %s", d, err, want)
		}
	}
}
