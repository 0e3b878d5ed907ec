package smtp

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestWait runs the time-out arithmetic on made-up clocks.
func TestWait(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name     string
		progress time.Duration // the peer sends something all the time up to here
		until    time.Duration
		least    time.Duration
		most     time.Duration
	}{
		{"silent from the start", 0, 0, 80 * time.Second, 90 * time.Second},
		{"talks for an hour", time.Hour, 0, time.Hour + 80*time.Second, time.Hour + 100*time.Second},
		{"talks for ever", 1000 * time.Hour, time.Hour, time.Hour, time.Hour},
		{"until before the time-out", 0, 5 * time.Second, 5 * time.Second, 5 * time.Second},
	} {
		w := wait{timeout: 80 * time.Second, fresh: true}
		until := time.Time{}
		if tc.until > 0 {
			until = start.Add(tc.until)
		}
		now := start
		for !w.over(now, until) || now.Equal(start) {
			now = w.next(now, until, 0)
			w.fresh = w.fresh || now.Sub(start) <= tc.progress
		}
		if got := now.Sub(start); got < tc.least || got > tc.most {
			t.Errorf("%s: ended after %v", tc.name, got)
		}
	}
	w := wait{timeout: 5 * time.Minute, armed: 30 * time.Second}
	if w.set(3 * time.Minute); w.armed == 0 {
		t.Error("armed anew for a time-out a little shorter")
	}
	if w.set(time.Second); w.armed != 0 {
		t.Error("a deadline of 30 s stays for a time-out of 1 s")
	}
}

func TestReadTimeout(t *testing.T) {
	t.Parallel()
	a, b := tcpPair(t)
	c := NewConn(a, Options{ReadTimeout: 40 * time.Millisecond})
	begun := time.Now()
	_, err := c.ReadCommand()
	if err != ErrTimeout || !errors.Is(err, os.ErrDeadlineExceeded) || Recoverable(err) || gone(err) {
		t.Errorf("%v", err)
	}
	if d := time.Since(begun); d < 40*time.Millisecond {
		t.Errorf("ended after %v", d)
	}
	// The connection can still be used: what comes after a time-out is read.
	c.SetReadTimeout(time.Minute)
	if _, err := b.Write([]byte("NOOP\r\n")); err != nil {
		t.Fatal(err)
	}
	if cmd, err := c.ReadCommand(); err != nil || cmd.Verb != NOOP {
		t.Errorf("%q, %v", cmd.Line, err)
	}
}

// TestABoundThatComesLater than the deadline that is set costs none; one that comes before it does.
func TestABoundThatComesLater(t *testing.T) {
	t.Parallel()
	now := time.Now()
	w := wait{timeout: 80 * time.Second, fresh: true}
	w.next(now, time.Time{}, 0)
	if w.by(0); w.armed == 0 {
		t.Error("armed anew for no bound")
	}
	if w.by(momentOf(now.Add(time.Minute))); w.armed == 0 {
		t.Error("armed anew for a bound that comes later")
	}
	if w.by(momentOf(now.Add(5 * time.Second))); w.armed != 0 {
		t.Error("not armed anew for a bound that comes before")
	}
	if at := w.next(now, now.Add(5*time.Second), 0); !at.Equal(now.Add(5 * time.Second)) {
		t.Errorf("armed for %v", at.Sub(now))
	}
}

// TestTrickle: a body that takes longer than the time-out arrives as long as it goes on, but SetUntil ends it.
func TestTrickle(t *testing.T) {
	t.Parallel()
	for _, bounded := range []bool{false, true} {
		a, b := tcpPair(t)
		c := NewConn(a, Options{ReadTimeout: 200 * time.Millisecond})
		if bounded {
			c.SetUntil(time.Now().Add(100 * time.Millisecond))
		}
		go func() {
			for range 50 {
				if _, err := b.Write([]byte("line\r\n")); err != nil {
					return
				}
				<-time.After(10 * time.Millisecond)
			}
			b.Write([]byte(".\r\n"))
		}()
		body, err := c.ReadData(nil)
		switch {
		case bounded && err != ErrTimeout:
			t.Errorf("until: %v", err)
		case !bounded && (err != nil || body.Lines() != 50):
			t.Errorf("trickle: %v", err)
		}
		c.Close()
	}
}

// TestTick: the function is called while the client is silent, which goes on only when it was.
func TestTick(t *testing.T) {
	t.Parallel()
	a, b := tcpPair(t)
	c := NewConn(a, Options{})
	calls := make(chan int, 10)
	n := 0
	broken := errors.New("remote gone")
	go func() {
		b.Write([]byte("one\r\n"))
		for k := range calls {
			if k == 3 {
				b.Write([]byte("two\r\n.\r\n"))
			}
		}
	}()
	body, err := c.ReadData(&DataOptions{TickEvery: 8 * time.Millisecond, Tick: func() error {
		if n++; n <= 3 {
			calls <- n
		}
		if n == 3 {
			return broken
		}
		return nil
	}})
	close(calls)
	if err != nil || body.TickErr() != broken || n != 3 || body.Size() != 10 {
		t.Errorf("%v, tick %v after %d calls", err, body.TickErr(), n)
	}
}

// TestSlowReader: a write goes on after its slices pass, byte for byte, as long as the peer takes something
// in time; a peer that takes nothing ends it.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	msg := bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab\r\n"), 200_000)
	body, err := BodyFromBytes(msg)
	if err != nil {
		t.Fatal(err)
	}
	a, b := tcpPair(t)
	c := NewConn(a, Options{WriteTimeout: 4 * time.Second})
	got := make(chan []byte, 1)
	go func() {
		<-time.After(4 * time.Second / slices * 5 / 4)
		all, _ := io.ReadAll(b)
		got <- all
	}()
	c.WriteCommand("X")
	if err := c.WriteData([]byte("A: b\r\n"), body); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if all := <-got; string(all) != "X\r\nA: b\r\n"+string(msg)+".\r\n" {
		t.Errorf("%d bytes arrived damaged", len(all))
	}

	a, _ = tcpPair(t)
	c = NewConn(a, Options{})
	c.SetWriteTimeout(40 * time.Millisecond)
	if err := c.WriteData(nil, body); err != ErrTimeout {
		t.Errorf("peer that reads nothing: %v", err)
	}
	if err := c.Flush(); err != ErrTimeout {
		t.Errorf("a failed write is not remembered: %v", err)
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		do      func(peer *net.TCPConn)
		pending bool
		gone    bool
	}{
		{"idle", func(*net.TCPConn) {}, false, false},
		{"said something", func(p *net.TCPConn) { p.Write([]byte("421 bye\r\n")) }, true, false},
		{"closed", func(p *net.TCPConn) { p.Close() }, false, true},
		{"reset", func(p *net.TCPConn) { p.SetLinger(0); p.Close() }, false, true},
	} {
		a, b := tcpPair(t)
		c := NewConn(a, Options{})
		tc.do(b)
		pending, err := c.Probe()
		// Loopback delivers at once in most kernels; wait for what must come.
		for end := time.Now().Add(time.Minute); (pending != tc.pending || (err != nil) != tc.gone) && time.Now().Before(end); {
			pending, err = c.Probe()
		}
		if pending != tc.pending || (err != nil) != tc.gone || tc.gone && !gone(err) {
			t.Errorf("%s: %v, %v", tc.name, pending, err)
		}
		if tc.pending {
			var r Reply
			if err := c.ReadReply(&r); err != nil || r.Code != 421 {
				t.Errorf("%s: nothing to read after the probe: %v", tc.name, err)
			}
		}
	}
}

func TestProbeWithoutSocket(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	c := NewConn(a, Options{})
	if pending, err := c.Probe(); pending || err != nil {
		t.Errorf("idle: %v, %v", pending, err)
	}
	go b.Close()
	var err error
	for end := time.Now().Add(time.Minute); err == nil && time.Now().Before(end); {
		_, err = c.Probe()
	}
	if err != io.EOF {
		t.Errorf("closed: %v", err)
	}
}

func TestCloseAfterPeer(t *testing.T) {
	t.Parallel()
	a, b := tcpPair(t)
	c := NewConn(a, Options{})
	c.WriteReply(221, Enhanced{2, 0, 0}, "Bye")
	done := make(chan error, 1)
	go func() { done <- c.CloseAfterPeer(time.Minute) }()
	buf := make([]byte, 100)
	n, err := b.Read(buf)
	if err != nil || string(buf[:n]) != "221 2.0.0 Bye\r\n" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	b.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := c.ReadCommand(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}

	a, b = tcpPair(t)
	c = NewConn(a, Options{})
	if err := c.CloseAfterPeer(20 * time.Millisecond); err != nil { // the peer stays silent
		t.Error(err)
	}
	if _, err := b.Read(buf); err != io.EOF {
		t.Errorf("peer: %v", err)
	}
}

// TestSockets: connections that are not the standard library's but give access to their socket are
// written to by writev, also when it is full, and probed as sockets.
func TestSockets(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab\r\n"), 100_000)
	for name, wrap := range map[string]func(*net.TCPConn) net.Conn{
		"wrapped": func(a *net.TCPConn) net.Conn { return wrapped{a} },
		"file": func(a *net.TCPConn) net.Conn {
			f, err := a.File()
			if err != nil {
				t.Fatal(err)
			}
			a.Close()
			return fileConn{f}
		},
	} {
		a, b := tcpPair(t)
		nc := wrap(a)
		c := NewConn(nc, Options{WriteTimeout: time.Minute})
		defer c.Close()
		for _, msg := range [][]byte{[]byte("a\r\n"), big} {
			body, err := BodyFromBytes(msg)
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan string, 1)
			want := "X\r\nB: c\r\n" + string(msg) + ".\r\n"
			go func() {
				buf := make([]byte, len(want))
				if _, err := io.ReadFull(b, buf); err != nil {
					t.Error(err)
				}
				got <- string(buf)
			}()
			before := c.Writes()
			c.WriteCommand("X")
			if err := c.WriteData([]byte("B: c\r\n"), body); err != nil || c.Writes() != before+1 {
				t.Fatalf("%s: %d writes, %v", name, c.Writes()-before, err)
			}
			if <-got != want {
				t.Errorf("%s: %d bytes arrived damaged", name, len(want))
			}
		}
		if pending, err := c.Probe(); pending || err != nil {
			t.Errorf("%s: idle: %v, %v", name, pending, err)
		}
		b.Close()
		var err error
		for end := time.Now().Add(time.Minute); err == nil && time.Now().Before(end); {
			_, err = c.Probe()
		}
		if err != io.EOF {
			t.Errorf("%s: closed: %v", name, err)
		}
	}
}

type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// fileConn is a socket in an os.File.
type fileConn struct{ *os.File }

func (fileConn) LocalAddr() net.Addr  { return nil }
func (fileConn) RemoteAddr() net.Addr { return nil }

func TestSocketTimeout(t *testing.T) {
	t.Parallel()
	a, _ := tcpPair(t)
	f, err := a.File()
	if err != nil {
		t.Fatal(err)
	}
	body, err := BodyFromBytes(bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab\r\n"), 200_000))
	if err != nil {
		t.Fatal(err)
	}
	c := NewConn(fileConn{f}, Options{WriteTimeout: 40 * time.Millisecond})
	defer c.Close()
	if err := c.WriteData([]byte("A: b\r\n"), body); err != ErrTimeout {
		t.Errorf("peer that reads nothing: %v", err)
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	a, _ := tcpPair(t)
	c := NewConn(a, Options{})
	done := make(chan error, 1)
	go func() {
		_, err := c.ReadCommand()
		done <- err
	}()
	if err := c.Interrupt(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// TestOutputBound: output does not gather without end when the caller does not flush.
func TestOutputBound(t *testing.T) {
	t.Parallel()
	c, s := script()
	for range 10_000 {
		c.WriteReply(250, Enhanced{2, 0, 0}, "OK")
	}
	if c.Pending() > outMax || s.writes == 0 || s.writes > 10 {
		t.Errorf("%d bytes pending after %d writes", c.Pending(), s.writes)
	}
	if err := c.Flush(); err != nil || s.out.String() != strings.Repeat("250 2.0.0 OK\r\n", 10_000) {
		t.Errorf("flush: %v", err)
	}
}

// Not parallel: it counts allocations.
func TestProbeDoesNotAllocate(t *testing.T) {
	nc, _ := tcpPair(t)
	c := NewConn(nc, Options{})
	defer c.Close()
	least := math.Inf(1)
	for range 10 { // what another test left behind may still end, and allocate
		least = min(least, testing.AllocsPerRun(100, func() { c.Probe() }))
	}
	if least != 0 {
		t.Errorf("%v allocations a look", least)
	}
}
