//go:build unix

package smtp

import (
	"io"
	"net"
	"os"
	"syscall"
)

// peek looks at the socket without taking anything and without waiting: whether bytes wait;
// io.EOF if the peer has closed. known is false if the socket cannot be looked at.
func (s *socket) peek() (waiting, known bool, err error) {
	if s.raw == nil {
		return false, false, nil
	}
	w := s.work()
	err = s.raw.Control(w.look)
	n, perr := w.seen, w.err
	w.err = nil
	switch {
	case err != nil:
		return false, true, net.ErrClosed // RawConn fails only so
	case perr == syscall.EAGAIN:
		return false, true, nil
	case perr == syscall.ENOTSOCK:
		return false, false, nil
	case perr != nil:
		return false, true, &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("recvfrom", perr)}
	case n == 0:
		return false, true, io.EOF
	}
	return true, true, nil
}
