//go:build linux

package flow

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listen opens a plain listener and wraps it; port is what a client dials.
func listen(t testing.TB, opt func(port uint16) Options) (*Listener, uint16) {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	nl, err := lc.Listen(context.Background(), "tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	port := nl.Addr().(*net.TCPAddr).AddrPort().Port()
	f, err := nl.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	nl.Close()
	l, err := NewListener(f, opt(port))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	t.Cleanup(func() { l.Close() })
	return l, port
}

func dial(t testing.TB, network, host string, port uint16) net.Conn {
	t.Helper()
	c, err := net.Dial(network, net.JoinHostPort(host, fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAcceptedFlow(t *testing.T) {
	t.Parallel()
	tab, err := NewTable([]User{user(4, "127.0.0.0/8"), user(6, "::1/128")})
	if err != nil {
		t.Fatal(err)
	}
	l, port := listen(t, func(p uint16) Options {
		return Options{Ports: []uint16{p}, Attribution: NewAttribution(tab, Template{}, nil)}
	})
	var last ID
	for _, tc := range []struct {
		host string
		user uint32
	}{{"127.0.0.1", 4}, {"::1", 6}} {
		out := dial(t, "tcp", tc.host, port)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f := c.Flow()
		if f.Client != out.LocalAddr().(*net.TCPAddr).AddrPort() || f.Target.Addr() != netip.MustParseAddr(tc.host) || f.Target.Port() != port {
			t.Errorf("flow %+v", f)
		}
		if f.User.ID != tc.user || f.ID <= last || f.ID != c.ID() || f.Start.IsZero() {
			t.Errorf("flow %+v", f)
		}
		last = f.ID
		if c.LocalAddr().String() != out.RemoteAddr().String() || c.RemoteAddr().String() != out.LocalAddr().String() {
			t.Errorf("addresses %v %v", c.LocalAddr(), c.RemoteAddr())
		}
		rc, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		rc.Control(func(fd uintptr) {
			if v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY); v != 1 || err != nil {
				t.Errorf("no-delay not inherited: %v %v", v, err)
			}
			if v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE); v != 0 || err != nil {
				t.Errorf("keep-alive: %v %v", v, err)
			}
		})
	}
}

func TestConnIsANetConn(t *testing.T) {
	t.Parallel()
	l, port := listen(t, func(p uint16) Options { return Options{Ports: []uint16{p}} })
	out := dial(t, "tcp", "127.0.0.1", port).(*net.TCPConn)
	var c net.Conn
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789"), 100_000) // more than the buffers hold, so that writes must wait
	go func() {
		io.Copy(out, out)
		out.CloseWrite()
	}()
	go func() {
		c.Write(want)
		c.(*Conn).CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes back, %v", len(got), err)
	}
	if err := c.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	var ne net.Error
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &ne) || !ne.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for _, err := range []error{second(c.Read(make([]byte, 1))), second(c.Write([]byte("x"))), c.(*Conn).CloseWrite(), c.Close()} {
		var oe *net.OpError
		if !errors.Is(err, net.ErrClosed) || !errors.As(err, &oe) {
			t.Errorf("after close: %v", err)
		}
	}
}

func second(_ int, err error) error { return err }

func TestResetReachesTheClient(t *testing.T) {
	t.Parallel()
	l, port := listen(t, func(p uint16) Options { return Options{Ports: []uint16{p}} })
	out := dial(t, "tcp", "127.0.0.1", port)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("client saw %v", err)
	}
}

// TestTLSSurvivesADeadline holds that TLS takes our time-outs as net.Error.
func TestTLSSurvivesADeadline(t *testing.T) {
	t.Parallel()
	l, port := listen(t, func(p uint16) Options { return Options{Ports: []uint16{p}} })
	dial(t, "tcp", "127.0.0.1", port)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Millisecond))
	err = tls.Server(c, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, io.EOF }}).Handshake()
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("handshake: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	l, port := listen(t, func(uint16) Options { return Options{} })
	local, lport := listen(t, func(p uint16) Options {
		return Options{Ports: []uint16{p}, Local: func(a netip.Addr) bool { return a.IsLoopback() }}
	})
	for _, tc := range []struct {
		l      *Listener
		port   uint16
		reason string
	}{{l, port, RefusedPort}, {local, lport, RefusedLocal}} {
		out := dial(t, "tcp", "127.0.0.1", tc.port)
		_, err := tc.l.Accept()
		var r *Refused
		if !errors.As(err, &r) || r.Reason != tc.reason || r.Client != out.LocalAddr().(*net.TCPAddr).AddrPort() {
			t.Errorf("accept: %v", err)
		}
		if _, err := out.Read(make([]byte, 1)); err == nil {
			t.Error("connection is still open")
		}
	}
}

func TestAcceptDeadlineQueueAndClose(t *testing.T) {
	t.Parallel()
	l, port := listen(t, func(p uint16) Options { return Options{Ports: []uint16{p}} })
	if err := l.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("idle accept: %v", err)
	}
	for range 3 {
		dial(t, "tcp", "127.0.0.1", port)
	}
	n, limit, err := l.Queue()
	for end := time.Now().Add(time.Minute); n < 3 && err == nil && time.Now().Before(end); n, limit, err = l.Queue() {
		time.Sleep(time.Millisecond) // who dials is told before who accepts
	}
	if n != 3 || limit < 3 || err != nil {
		t.Errorf("queue %d of %d, %v", n, limit, err)
	}
	if err := l.SetDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) || l.AtOnce() {
		t.Errorf("too late for those who wait: %v, at once %v", err, l.AtOnce())
	}
	l.SetDeadline(time.Time{})
	for range 3 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	copied, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	done := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	// The socket lives on in the copy: a client still gets through.
	dial(t, "tcp", "127.0.0.1", port)
	next, err := NewListener(copied, Options{Ports: []uint16{port}})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	c, err := next.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestNewListenerWantsAListener(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := NewListener(r, Options{}); err == nil {
		t.Error("a pipe was taken")
	}
}

func BenchmarkAccept(b *testing.B) {
	l, port := listen(b, func(p uint16) Options { return Options{Ports: []uint16{p}} })
	for b.Loop() {
		b.StopTimer()
		out, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		c, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		c.Reset()
		b.StopTimer()
		out.Close()
		b.StartTimer()
	}
}

func BenchmarkAttribute(b *testing.B) {
	var users []User
	for i := range 100_000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		users = append(users, User{ID: uint32(i + 1), Prefix: netip.PrefixFrom(a, 32)})
	}
	users = append(users, user(1, "192.0.2.0/24"), user(2, "192.0.2.8/29"))
	tab, err := NewTable(users)
	if err != nil {
		b.Fatal(err)
	}
	a := netip.MustParseAddr("192.0.2.77")
	for b.Loop() {
		if _, ok := tab.Attribute(a); !ok {
			b.Fatal("lost")
		}
	}
}
