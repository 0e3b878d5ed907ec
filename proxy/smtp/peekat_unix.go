//go:build unix && !linux

package smtp

import "syscall"

// peekAt looks at the socket fd.
func (s *socketWork) peekAt(fd uintptr) {
	var b [1]byte
	for {
		s.seen, _, s.err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if s.err != syscall.EINTR {
			return
		}
	}
}
