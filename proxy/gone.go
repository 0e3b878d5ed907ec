package proxy

import (
	"io"
	"time"

	"sluice/proxy/smtp"
)

// longWait is how long a client must have waited for its answer that it is looked at once more: clients that are killed
// or give up leave in long waits, and a look is a system call.
const longWait = 100 * time.Millisecond

const leftUnheard = "client left before it heard that the message was delivered"

// Conn is what is looked at right before the message leaves.
func (s *session) Conn() *smtp.Conn { return s.conn }

// Left tells whether the client is not there any more to hear the answer.
func (s *session) Left() bool {
	_, err := s.conn.Probe()
	return err != nil && !s.halfClosed(err)
}

// Gone tells whether the message must not leave, since a lock has come since the verdict. From here on it is in flight.
func (s *session) Gone() bool {
	if !s.dot() {
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
