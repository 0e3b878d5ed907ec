package smtp

import (
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	canWritev = true
	canRead   = true
)

type iovec = unix.Iovec

// atOnce is how much is written without telling Go's scheduler of the call. To tell it wakes the runtime's watcher of threads,
// which costs a gateway with little to do more than the call; not to tell it keeps a processor for as long as the copy takes.
const atOnce = size64K

// attempt writes until all is sent, the socket is full (false: wait for it) or broken.
func (s *sending) attempt(fd uintptr) bool {
	for len(s.vec) > 0 {
		n, err := s.write(fd)
		switch err {
		case 0:
			s.took(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			s.err = &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", err)}
			return true
		}
	}
	return true
}

// write is one system call.
func (s *sending) write(fd uintptr) (int, unix.Errno) {
	wrote(fd)
	if p := s.vec[0]; len(s.vec) == 1 && 0 < len(p) && len(p) <= atOnce { // the kernel has less to do for one slice
		n, _, err := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		return int(n), err
	}
	n, err := s.writev(fd)
	clear(s.iovecs) // a pool is no reason to keep what was sent
	return n, err
}

// writev sends several slices. The standard library makes the memory for their description anew with each connection, and x/sys
// with each call.
func (s *sending) writev(fd uintptr) (int, unix.Errno) {
	s.iovecs = s.iovecs[:0]
	size := 0
	for _, p := range s.vec {
		if len(p) > 0 {
			v := iovec{Base: &p[0]}
			v.SetLen(len(p))
			s.iovecs = append(s.iovecs, v)
			size += len(p)
		}
	}
	switch {
	case size == 0:
		return 0, 0 // took drops what is empty
	case size > atOnce:
		n, _, err := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&s.iovecs[0])), uintptr(len(s.iovecs)))
		return int(n), err
	}
	n, _, err := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&s.iovecs[0])), uintptr(len(s.iovecs)))
	return int(n), err
}

// receive reads once, or gives false where there is nothing to read yet.
func (s *socketWork) receive(fd uintptr) bool {
	for {
		n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&s.into[0])), uintptr(len(s.into)), unix.MSG_DONTWAIT, 0, 0)
		switch err {
		case 0:
			s.seen = int(n)
			hasRead(fd)
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			s.err = err
			return true
		}
	}
}

// peekAt looks at the socket fd.
func (s *socketWork) peekAt(fd uintptr) {
	var b [1]byte
	for {
		n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		if s.seen, s.err = int(n), nil; err != 0 {
			s.err = err
		}
		if err != unix.EINTR {
			hasRead(fd)
			return
		}
	}
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
