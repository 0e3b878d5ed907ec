package smtp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// scriptConn gives chunks to read, one for each Read, then EOF, and records what is written.
type scriptConn struct {
	chunks  [][]byte
	out     bytes.Buffer
	writes  int
	discard bool
}

func (s *scriptConn) Read(p []byte) (int, error) {
	if len(s.chunks) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.chunks[0])
	if n == len(s.chunks[0]) {
		s.chunks = s.chunks[1:]
	} else {
		s.chunks[0] = s.chunks[0][n:]
	}
	return n, nil
}

func (s *scriptConn) Write(p []byte) (int, error) {
	s.writes++
	if s.discard {
		return len(p), nil
	}
	return s.out.Write(p)
}

func (s *scriptConn) Close() error                     { return nil }
func (s *scriptConn) LocalAddr() net.Addr              { return nil }
func (s *scriptConn) RemoteAddr() net.Addr             { return nil }
func (s *scriptConn) SetDeadline(time.Time) error      { return nil }
func (s *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (s *scriptConn) SetWriteDeadline(time.Time) error { return nil }

// script makes a Conn that reads the given chunks.
func script(chunks ...string) (*Conn, *scriptConn) {
	s := &scriptConn{}
	for _, c := range chunks {
		if c != "" {
			s.chunks = append(s.chunks, []byte(c))
		}
	}
	return NewConn(s, Options{}), s
}

// cut splits s into chunks of at most n bytes.
func cut(s string, n int) []string {
	var out []string
	for len(s) > n {
		out = append(out, s[:n])
		s = s[n:]
	}
	return append(out, s)
}

// tcpPair gives both ends of a loopback connection.
func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(); s.Close() })
	if _, measured := t.(*testing.B); !measured {
		_ = s.SetReadDeadline(time.Now().Add(30 * time.Second)) // what does not come is not waited for
	}
	return d.(*net.TCPConn), s.(*net.TCPConn)
}

// tempSpill opens a spill file that is gone when closed.
func tempSpill(t testing.TB) func() (Spill, error) {
	dir := t.TempDir()
	return func() (Spill, error) {
		f, err := os.CreateTemp(dir, "body")
		if err != nil {
			return nil, err
		}
		return f, os.Remove(f.Name())
	}
}

func readAll(t testing.TB, b *Body) string {
	t.Helper()
	out, err := io.ReadAll(b.NewReader())
	if err != nil {
		t.Fatalf("read body: %v", err)
	}
	return string(out)
}

// gone tells whether err means that the peer closed or reset the connection.
func gone(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}
