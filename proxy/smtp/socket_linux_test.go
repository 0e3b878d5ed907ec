package smtp

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestSocketRead(t *testing.T) {
	t.Parallel()
	room := make([]byte, 16)
	for name, c := range map[string]struct {
		before func(here, there *net.TCPConn) error
		want   error
	}{
		"bytes":    {func(_, there *net.TCPConn) error { _, err := there.Write([]byte("250 ok")); return err }, nil},
		"end":      {func(_, there *net.TCPConn) error { return there.Close() }, io.EOF},
		"deadline": {func(here, _ *net.TCPConn) error { return here.SetReadDeadline(time.Now().Add(time.Millisecond)) }, os.ErrDeadlineExceeded},
		"closed":   {func(here, _ *net.TCPConn) error { return here.Close() }, net.ErrClosed},
		"reset": {func(_, there *net.TCPConn) error {
			return errors.Join(there.SetLinger(0), there.Close())
		}, syscall.ECONNRESET},
	} {
		here, there := tcpPair(t)
		s := socketUnder(here)
		if err := c.before(here, there); err != nil {
			t.Fatal(err)
		}
		n, err := s.read(room)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || err == nil && string(room[:n]) != "250 ok" {
			t.Errorf("%s: read %q, %v; want %v", name, room[:n], err, c.want)
		}
	}
}

// hears is a connection that says what the error of a read is.
type hears struct{ net.Conn }

var errHeard = errors.New("heard")

func (h hears) NetConn() net.Conn        { return h.Conn }
func (h hears) ReadFailed(error) error   { return errHeard }
func (h hears) Read([]byte) (int, error) { return 0, errors.New("not asked") }

func TestReadPastAWrapper(t *testing.T) {
	t.Parallel()
	here, there := tcpPair(t)
	c := NewConn(hears{here}, Options{})
	if _, err := there.Write([]byte("220 there\r\n")); err != nil {
		t.Fatal(err)
	}
	var r Reply
	if err := c.ReadReply(&r); err != nil || r.Code != 220 {
		t.Errorf("reply %d, %v", r.Code, err)
	}
	if err := there.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.ReadReply(&r); !errors.Is(err, errHeard) {
		t.Errorf("the end is %v, not what the wrapper makes of it", err)
	}
}

// TestWriteManySizes sends what goes in one untold call, what does not, and what the socket cannot take at once.
func TestWriteManySizes(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, atOnce - 1, atOnce + 1, 8 << 20} {
		here, there := tcpPair(t)
		got := make(chan int64, 1)
		go func() {
			n, _ := io.Copy(io.Discard, there)
			got <- n
		}()
		s := socketUnder(here)
		g := newGather()
		for _, vec := range [][][]byte{{make([]byte, size), nil, []byte("end")}, {make([]byte, size)}} {
			g.out.vec = vec
			n, err := s.write(&g.out)
			if want := int64(size + 3*(len(vec)/3)); err != nil || n != want || len(g.out.vec) != 0 {
				t.Errorf("%d bytes: wrote %d, %v, %d slices left", size, n, err, len(g.out.vec))
			}
		}
		g.release()
		if err := here.Close(); err != nil {
			t.Fatal(err)
		}
		if n := <-got; n != 2*int64(size)+3 {
			t.Errorf("%d bytes: %d arrived", size, n)
		}
	}
}
