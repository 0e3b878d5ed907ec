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
