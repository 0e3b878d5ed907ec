package proxy

import (
	"io"
	"time"
)

// longWait is how long a client must have waited for its answer that it is looked at once more: clients that are killed
// or give up leave in long waits, and a look is a system call.
const longWait = 100 * time.Millisecond

const leftUnheard = "client left before it heard that the message was delivered"

// Gone tells, right before the message leaves, whether its client is still there to hear the answer, and whether no lock
// has come since the verdict. From here on the message is in flight.
func (s *session) Gone() bool {
	if _, err := s.conn.Probe(); err != nil && !s.halfClosed(err) || !s.dot() {
		return true
	}
	if ticket, is := s.srv.cfg.Locks.Stopped(&s.tx.msg); is && !s.tx.admin {
		s.overtaken = ticket
		return true
	}
	if s.srv.cfg.Inflight != nil {
		s.slot = s.srv.cfg.Inflight.Sent(s.tx.rec)
	}
	return false
}

// hasEnded is how soon behind its dot a client ends its side that has nothing more to say, and listens: some programs do so
// instead of QUIT. One that gives up, or whose user ends it, has waited longer, or resets the connection.
const hasEnded = 2 * time.Second

// halfClosed tells whether a client that has ended its side may well wait for its answer.
func (s *session) halfClosed(err error) bool {
	return err == io.EOF && time.Since(s.tx.ended) < hasEnded
}
