package smtp

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// socket is what lies under a connection, as far as it is known: for vectored writes and for a
// look at what has arrived.
type socket struct {
	tcp *net.TCPConn    // the standard library's, which knows vectored writes
	raw syscall.RawConn // any other that gives access to its descriptor
	w   *socketWork     // while the connection is in use; else nil
}

// work is what a system call needs, kept until rest.
func (s *socket) work() *socketWork {
	if s.w == nil {
		s.w = sockets.Get().(*socketWork)
	}
	return s.w
}

// rest gives up what need not be held while nothing is said.
func (s *socket) rest() {
	if s.w != nil {
		sockets.Put(s.w)
		s.w = nil
	}
}

// socketUnder finds the socket under nc.
func socketUnder(nc net.Conn) (s socket) {
	for range 4 { // wrappers are few; a bound keeps a wrapper of itself harmless
		switch v := nc.(type) {
		case *net.TCPConn:
			s.tcp = v
			s.raw, _ = v.SyscallConn() // its only error is that of a nil pointer
			return s
		case interface{ NetConn() net.Conn }:
			nc = v.NetConn()
		case syscall.Conn:
			if raw, err := v.SyscallConn(); err == nil {
				s.raw = raw
			}
			return s
		default:
			return s
		}
	}
	return s
}

// vectored tells whether writev works.
func (s *socket) vectored() bool { return s.tcp != nil || s.raw != nil && canWritev }

// abrupt has a close throw away what has not left yet, and the peer see a reset; or not any more.
func (s *socket) abrupt(on bool) {
	if s.tcp == nil {
		return
	}
	linger := -1
	if on {
		linger = 0
	}
	_ = s.tcp.SetLinger(linger) // an error means that it is closed
}

// write sends the slices of w.vec with as few system calls as possible and removes what was sent.
func (s *socket) write(w *sending) (int64, error) {
	if s.tcp != nil && !canWritev { // its own memory for the slices is made anew with each connection
		return (*net.Buffers)(&w.vec).WriteTo(s.tcp)
	}
	w.sent, w.err = 0, nil
	err := s.raw.Write(w.try)
	if w.err != nil {
		err = w.err
	}
	return w.sent, err
}

// reads tells whether read works.
func (s *socket) reads() bool { return s.raw != nil && canRead }

// read waits until there is something to read, and reads it into p. Errors are those of a net.Conn.
func (s *socket) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	w := s.work()
	w.into, w.seen, w.err = p, 0, nil
	failed := s.raw.Read(w.take)
	n, err := w.seen, w.err
	w.into, w.err = nil, nil
	switch {
	case failed != nil && isDeadline(failed):
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}
	case failed != nil: // RawConn fails only so
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed}
	case err != nil:
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", err)}
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// socketWork is what one system call on a descriptor needs. It is apart from the socket, since most connections are idle.
type socketWork struct {
	seen int
	err  error
	look func(fd uintptr)      // peekAt
	take func(fd uintptr) bool // receive
	into []byte
	out  sending
	one  [1][]byte // that is sent
}

var sockets = sync.Pool{New: func() any {
	w := new(socketWork)
	w.look, w.take = w.peekAt, w.receive
	w.out.try = w.out.attempt
	return w
}}

// sending is one write to a descriptor.
type sending struct {
	vec    [][]byte
	sent   int64
	err    error
	try    func(fd uintptr) bool // attempt
	iovecs []iovec               // of vec, for the kernel
}

// took removes n bytes from the front of vec.
func (s *sending) took(n int) {
	s.sent += int64(n)
	for len(s.vec) > 0 && n >= len(s.vec[0]) {
		n -= len(s.vec[0])
		s.vec = s.vec[1:]
	}
	if n > 0 {
		s.vec[0] = s.vec[0][n:]
	}
}
