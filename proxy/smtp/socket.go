package smtp

import (
	"net"
	"syscall"
)

// socket is what lies under a connection, as far as it is known: for vectored writes and for a
// look at what has arrived.
type socket struct {
	tcp *net.TCPConn    // the standard library's, which knows vectored writes
	raw syscall.RawConn // any other that gives access to its descriptor
	// Of one vectored write on raw; here so that it does not allocate.
	try  func(fd uintptr) bool
	look func(fd uintptr) // of one peek, likewise
	seen int
	vec  [][]byte
	sent int64
	err  error
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

// write sends the slices of vec with as few system calls as possible and removes from vec what was sent.
func (s *socket) write(vec *[][]byte) (int64, error) {
	if s.tcp != nil {
		return (*net.Buffers)(vec).WriteTo(s.tcp)
	}
	if s.try == nil {
		s.try = s.attempt
	}
	s.vec, s.sent, s.err = *vec, 0, nil
	err := s.raw.Write(s.try)
	*vec, s.vec = s.vec, nil
	if s.err != nil {
		err = s.err
	}
	return s.sent, err
}

// took removes n bytes from the front of vec.
func (s *socket) took(n int) {
	s.sent += int64(n)
	for len(s.vec) > 0 && n >= len(s.vec[0]) {
		n -= len(s.vec[0])
		s.vec = s.vec[1:]
	}
	if n > 0 {
		s.vec[0] = s.vec[0][n:]
	}
}
