package intercept

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sluice/intercept/control"
)

// listenerName is the one listening socket's name on the control socket.
const listenerName = "smtp"

// backlog is cut to net.core.somaxconn by the kernel; connections wait there while the proxy restarts.
const backlog = 65535

// socket holds the listening socket for as long as the helper lives, so that connections wait when no proxy does.
type socket struct {
	mu    sync.Mutex
	file  *os.File
	taken chan struct{} // closed once file is set
}

func (s *socket) ready() chan struct{} {
	if s.taken == nil {
		s.taken = make(chan struct{})
	}
	return s.taken
}

// open puts what listen gives into the slot of the data path. The error is EADDRINUSE while a proxy that outlived an earlier
// helper holds the port.
func (s *socket) open(listen func() (*os.File, error), port uint16, mail []uint16, d slot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		return nil
	}
	f, err := listen()
	if err != nil {
		return err
	}
	return s.take(f, port, mail, d)
}

// adopt takes a socket that a proxy hands back, unless there is one already; it is the proxy's word, so it is checked.
func (s *socket) adopt(f *os.File, port uint16, mail []uint16, d slot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		return f.Close()
	}
	if err := checkListener(f, port); err != nil {
		return errors.Join(control.Errorf(control.CodeInvalid, "could not take the listening socket back: %v", err), f.Close())
	}
	return s.take(f, port, mail, d)
}

func (s *socket) take(f *os.File, port uint16, mail []uint16, d slot) error {
	if err := errors.Join(shut(f, port, mail), d.SetListener(f)); err != nil {
		return errors.Join(err, f.Close())
	}
	s.file = f
	close(s.ready())
	return nil
}

// shut shuts the port itself, if there is a socket; mail are the ports that are intercepted now.
func (s *socket) shut(port uint16, mail []uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	return shut(s.file, port, mail)
}

// get returns the socket, or nil.
func (s *socket) get() *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file
}

// wait waits until there is a socket, at most for d.
func (s *socket) wait(ctx context.Context, d time.Duration) {
	s.mu.Lock()
	ready := s.ready()
	s.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ready:
	case <-t.C:
	case <-ctx.Done():
	}
}

func (s *socket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// keepSocket tries to bind until there is a socket: the proxy that held it may have died before handing it back.
func (e *Engine) keepSocket(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; e.socket.get() == nil; n++ {
		if n == 50 {
			e.log.Warn("the listening port is taken and nobody hands the socket back; if no sluiced runs, find the holder with: ss -ltnp (-N for another namespace)", "port", e.port)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := e.openSocket(); err != nil && !held(err) {
			e.log.Error("no listening socket", "error", err)
		}
	}
	e.log.Info("listening", "port", e.port)
}

// listen opens the one dual-stack transparent socket: never MPTCP, which a socket map refuses, and never SO_REUSEPORT,
// which would split the flows over groups. Where there is no IPv6 it is an IPv4 socket.
func listen(port uint16) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(port)}
	v6 := err == nil
	if errors.Is(err, unix.EAFNOSUPPORT) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		sa = &unix.SockaddrInet4{Port: int(port)}
	}
	if err != nil {
		return nil, fmt.Errorf("could not make the listening socket: %w", err)
	}
	if err := errors.Join(transparent(fd, v6), setListening(fd, v6, sa)); err != nil {
		return nil, errors.Join(fmt.Errorf("could not listen on port %d: %w", port, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), listenerName), nil
}

func setListening(fd int, v6 bool, sa unix.Sockaddr) error {
	if v6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	return unix.Listen(fd, backlog)
}

// transparent lets a socket have addresses that are not the host's.
func transparent(fd int, v6 bool) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1); err != nil {
		return fmt.Errorf("IP_TRANSPARENT: %w", err)
	}
	if !v6 {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 1); err != nil {
		return fmt.Errorf("IPV6_TRANSPARENT: %w", err)
	}
	return nil
}

// shut drops what is sent to the listening port itself, to which the data path sends nobody: a stranger who fills the
// accept queue would stop the heartbeat, and that opens the gate. Where the number is a mail port, too, the proxy tells
// the two apart by the address.
func shut(f *os.File, port uint16, mail []uint16) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) {
		if slices.Contains(mail, port) {
			if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); errors.Is(err, unix.ENOENT) {
				err = nil
			}
			return
		}
		program := []unix.SockFilter{ // a filter of a TCP socket sees the TCP header first
			{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 2}, // destination port
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(port), Jf: 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0},
			{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
		}
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	if err := errors.Join(cerr, err); err != nil {
		return fmt.Errorf("could not shut the listening port %d: %w", port, err)
	}
	return nil
}

// checkListener holds that a file is a listening TCP socket like ours.
func checkListener(f *os.File, port uint16) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(d uintptr) {
		fd := int(d)
		err = errors.Join(
			wantOption(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN, 1, "is not listening"),
			wantOption(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP, "is not TCP"),
			wantOption(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1, "is not transparent"),
			wantPort(fd, port))
	})
	return errors.Join(cerr, err)
}

func wantOption(fd, level, opt, want int, what string) error {
	v, err := unix.GetsockoptInt(fd, level, opt)
	if err != nil || v != want {
		return errors.Join(errors.New("it "+what), err)
	}
	return nil
}

func wantPort(fd int, port uint16) error {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	var got int
	switch sa := sa.(type) {
	case *unix.SockaddrInet6:
		got = sa.Port
	case *unix.SockaddrInet4:
		got = sa.Port
	}
	if got != int(port) {
		return fmt.Errorf("it is bound to port %d instead of %d", got, port)
	}
	return nil
}
