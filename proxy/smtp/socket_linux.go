package smtp

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

const canWritev = true

// attempt writes until all is sent, the socket is full (false: wait for it) or broken.
func (s *socketWork) attempt(fd uintptr) bool {
	for len(s.vec) > 0 {
		n, err := unix.Writev(int(fd), s.vec)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return false
		case err != nil:
			s.err = &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("writev", err)}
			return true
		default:
			s.took(n)
		}
	}
	return true
}

// hungUp tells whether the peer has ended its side or reset the connection, whatever it sent before.
func (s *socket) hungUp() (is bool) {
	if s.raw == nil {
		return false
	}
	err := s.raw.Control(func(fd uintptr) {
		p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, perr := unix.Poll(p[:], 0)
		is = perr == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return is || err != nil
}
