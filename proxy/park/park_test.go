//go:build linux

package park

import (
	"net"
	"sync/atomic"
	"testing"
	"time"
)

const patience = time.Minute

// sleeper counts how often it was resumed.
type sleeper struct {
	n  atomic.Int32
	up chan time.Time
}

func (s *sleeper) Resume() {
	s.n.Add(1)
	s.up <- time.Now()
}

func newLot(t *testing.T) *Lot {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// pair is a connection over the loopback interface; the first end has a Place.
func pair(t *testing.T) (*net.TCPConn, net.Conn, *Place, *sleeper) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	raw, err := near.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	s := &sleeper{up: make(chan time.Time, 8)}
	return near.(*net.TCPConn), far, &Place{Who: s, Raw: raw}, s
}

func (s *sleeper) await(t *testing.T, what string) {
	t.Helper()
	select {
	case <-s.up:
	case <-time.After(patience):
		t.Fatalf("not resumed by %s", what)
	}
}

func TestWhatResumes(t *testing.T) {
	t.Parallel()
	l := newLot(t)
	for name, do := range map[string]func(near *net.TCPConn, far net.Conn, p *Place){
		"bytes":                func(_ *net.TCPConn, far net.Conn, _ *Place) { _, _ = far.Write([]byte("x")) },
		"the peer's end":       func(_ *net.TCPConn, far net.Conn, _ *Place) { far.Close() },
		"half of the end":      func(_ *net.TCPConn, far net.Conn, _ *Place) { _ = far.(*net.TCPConn).CloseWrite() },
		"a reset":              func(_ *net.TCPConn, far net.Conn, _ *Place) { _ = far.(*net.TCPConn).SetLinger(0); far.Close() },
		"a call":               func(_ *net.TCPConn, _ net.Conn, p *Place) { p.Wake(); p.Wake() },
		"a call after its end": func(near *net.TCPConn, _ net.Conn, p *Place) { near.Close(); p.Wake() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far, p, s := pair(t)
			if !l.Park(p, time.Now().Add(time.Hour)) {
				t.Fatal("not parked")
			}
			do(near, far, p)
			s.await(t, name)
			p.Wake() // who is not parked is not resumed
			if n := s.n.Load(); n != 1 || p.Overdue(time.Now()) {
				t.Errorf("resumed %d times, overdue %v", n, p.Overdue(time.Now()))
			}
		})
	}
}

func TestBytesThatCameBeforeResume(t *testing.T) {
	t.Parallel()
	l := newLot(t)
	_, far, p, s := pair(t)
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for range 3 { // nobody takes the byte: each Park ends at once
		if !l.Park(p, time.Now().Add(time.Hour)) {
			t.Fatal("not parked")
		}
		s.await(t, "a byte that is there")
	}
	if n := l.Parked(); n != 0 {
		t.Errorf("%d still parked", n)
	}
}

func TestTheMomentPasses(t *testing.T) {
	t.Parallel()
	l := newLot(t)
	_, _, p, s := pair(t)
	until := time.Now().Add(50 * time.Millisecond)
	if !l.Park(p, until) {
		t.Fatal("not parked")
	}
	s.await(t, "the moment")
	if !p.Overdue(time.Now()) {
		t.Error("not overdue")
	}
}

func TestAClosedConnectionIsNotParked(t *testing.T) {
	t.Parallel()
	l := newLot(t)
	near, _, p, s := pair(t)
	near.Close()
	if l.Park(p, time.Now().Add(time.Hour)) || s.n.Load() != 0 || l.Parked() != 0 {
		t.Errorf("parked a closed connection; resumed %d times", s.n.Load())
	}
}

// TestManyAtOnce: more are readable at once than one look takes, again and again, and each is resumed once each time.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	l := newLot(t)
	const many = 3 * events
	far, place, who := make([]net.Conn, many), make([]*Place, many), make([]*sleeper, many)
	near := make([]*net.TCPConn, many)
	for i := range many {
		near[i], far[i], place[i], who[i] = pair(t)
	}
	for round := range int32(3) {
		for _, p := range place {
			if !l.Park(p, time.Now().Add(time.Hour)) {
				t.Fatal("not parked")
			}
		}
		if n := l.Parked(); n != many {
			t.Fatalf("%d parked, want %d", n, many)
		}
		for _, c := range far {
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		for i, s := range who {
			s.await(t, "a byte")
			if n := s.n.Load(); n != round+1 {
				t.Fatalf("resumed %d times in round %d", n, round)
			}
			if _, err := near[i].Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestWakeAgainstBytes: whoever comes first, the sleeper is resumed exactly once.
func TestWakeAgainstBytes(t *testing.T) {
	t.Parallel()
	l := newLot(t)
	near, far, p, s := pair(t)
	for i := range int32(500) {
		if !l.Park(p, time.Now().Add(time.Hour)) {
			t.Fatal("not parked")
		}
		go p.Wake()
		if _, err := far.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		s.await(t, "either")
		if _, err := near.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if n := s.n.Load(); n != i+1 {
			t.Fatalf("resumed %d times after %d", n, i+1)
		}
	}
}
