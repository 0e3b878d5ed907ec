//go:build unix

package smtp

import (
	"errors"
	"io"
	"net"
	"syscall"
)

var errNoPeek = errors.New("socket cannot be peeked")

// peek looks at the socket without taking anything: the number of bytes that wait, at most 1;
// io.EOF if the peer has closed.
func peek(t *net.TCPConn) (int, error) {
	raw, err := t.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var perr error
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		for {
			n, _, perr = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
			if perr != syscall.EINTR {
				return
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case perr == syscall.EAGAIN:
		return 0, nil
	case perr != nil:
		return 0, &net.OpError{Op: "read", Net: "tcp", Source: t.LocalAddr(), Addr: t.RemoteAddr(), Err: perr}
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
