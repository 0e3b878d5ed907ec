package smtp

import (
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// say writes what is to be said to fd, which nobody has spoken on, and then reads the answer. False: it is to be called again once
// there is something to read.
func (s *socketWork) say(fd uintptr) bool {
	if len(s.said) == 0 {
		return s.receive(fd)
	}
	if !s.silent(fd) {
		return true
	}
	wrote(fd)
	n, _, err := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&s.said[0])), uintptr(len(s.said)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	switch err {
	case 0:
		s.said = s.said[n:]
	case unix.EINTR, unix.EAGAIN:
	default:
		s.werr = &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", err)}
	}
	return s.werr != nil || len(s.said) > 0
}

// silent tells, by one look, that there is nothing to read from fd, and that the peer of the connection beside it stands.
func (s *socketWork) silent(fd uintptr) bool {
	s.polled[0] = pollFd{Fd: int32(fd), Events: unix.POLLIN}
	if s.beside == nil {
		return s.poll(1)
	}
	s.quiet = false
	return s.beside.Control(s.both) == nil && s.quiet
}

func (s *socketWork) lookBoth(fd uintptr) {
	s.polled[1] = pollFd{Fd: int32(fd), Events: unix.POLLRDHUP}
	s.quiet = s.poll(2)
}

func (s *socketWork) poll(n uintptr) (nothing bool) {
	var now unix.Timespec
	ready, _, err := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&s.polled[0])), n, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return err == 0 && ready == 0
}
