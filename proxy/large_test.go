package proxy

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestLargeMessages: many large messages at once stay within the memory that bodies may have, and their files go with
// them. SLUICE_LARGE=sessions x MiB is the campaign; the memory is that of this process, client and destination included.
func TestLargeMessages(t *testing.T) { // not parallel: the process's memory is bounded
	for name, stream := range map[string]int64{"behind the verdict": 0, "while they come": 1 << 20} {
		t.Run(name, func(t *testing.T) { largeMessages(t, stream) })
	}
}

func largeMessages(t *testing.T, stream int64) {
	sessions, mib := 8, 8
	if s := os.Getenv("SLUICE_LARGE"); s != "" {
		if _, err := fmt.Sscanf(s, "%dx%d", &sessions, &mib); err != nil {
			t.Fatalf("SLUICE_LARGE is %q, want for instance 100x50", s)
		}
	}
	const bodies = 16 << 20
	mx, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer mx.Close()
	go swallow(mx)
	r := newRig(t, mx.Addr().(*net.TCPAddr).AddrPort(), func(r *rig) {
		s := &r.cfg.Settings
		s.BodyMemory, s.BodiesMemory, s.MaxSize, s.Stream = 1<<20, bodies, int64(mib+1)<<20, stream
		s.Timeouts.Block, s.Timeouts.Answer = 5*time.Minute, 5*time.Minute
	})
	line := bytes.Repeat([]byte("y"), 62)
	block := bytes.Repeat(append(line, "\r\n"...), 1<<14) // 1 MiB
	var most, reserved uint64
	watched, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for t := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-t.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most, reserved = max(most, m.HeapInuse+m.StackInuse), max(reserved, uint64(max(0, r.srv.bodies.Load())))
			case <-stop:
				t.Stop()
				return
			}
		}
	}()
	begin := time.Now()
	var wg sync.WaitGroup
	for range sessions {
		wg.Go(func() {
			p := r.hello()
			if err := p.nc.SetDeadline(time.Now().Add(20 * time.Minute)); err != nil {
				t.Error(err)
			}
			p.envelope()
			p.cmd("DATA", "354")
			if _, err := p.nc.Write([]byte("Subject: large\r\n\r\n")); err != nil {
				t.Error(err)
			}
			for range mib {
				if _, err := p.nc.Write(block); err != nil {
					t.Errorf("in the midst of a message: %v", err)
					return
				}
			}
			p.cmd(".", "250")
			p.cmd("QUIT", "221")
		})
	}
	wg.Wait()
	close(stop)
	<-watched
	t.Logf("%d messages of %d MiB at once in %v: at most %d MiB of heap and stacks in use, bodies %d MiB", sessions, mib,
		time.Since(begin).Round(time.Millisecond), most>>20, reserved>>20)
	if reserved > bodies {
		t.Errorf("bodies had %d bytes, at most %d", reserved, bodies)
	}
	// The bodies' own, three times for what waits to be collected or stands in pools; a window of 256 KiB for each way in and out.
	if bound := uint64(3*bodies + sessions*(1<<20) + 64<<20); most > bound {
		t.Errorf("%d bytes of memory in use, at most %d", most, bound)
	}
	if n := r.srv.bodies.Load(); n != 0 {
		t.Errorf("%d bytes of bodies are still accounted for", n)
	}
	left, err := os.ReadDir(r.cfg.Settings.SpillDir)
	if must(t, err); len(left) > 0 {
		t.Errorf("%d files are left", len(left))
	}
}

// TestNoRoomForALargeMessage: it is put off with 452, its session goes on, and so do all others.
func TestNoRoomForALargeMessage(t *testing.T) {
	t.Parallel()
	r := newRig(t, newRemote(t).addr(), func(r *rig) {
		r.cfg.Settings.BodyMemory = 64 << 10
		r.cfg.Settings.SpillDir += "/missing" // no file can be opened there
	})
	p := r.hello()
	p.envelope()
	p.cmd("DATA", "354")
	p.write("Subject: large\r\n\r\n" + string(bytes.Repeat([]byte("0123456789\r\n"), 50_000)) + ".\r\n")
	p.want("452 4.3.1 gw.example: ")
	for _, one := range []*peer{p, r.hello()} {
		one.envelope()
		one.send(goodMail, "250")
	}
}
