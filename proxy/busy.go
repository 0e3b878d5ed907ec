package proxy

import (
	"context"
	"runtime"
	"time"
)

// Whoever says a few commands and waits for what comes of them is answered at once. Whoever says many in a row, with nothing
// to wait for between them, keeps a processor busy: he has his turn among those who do, one of each user and users in their
// order, and never all processors: where all are busy, who has just come would not even be noticed for some ten milliseconds.
const (
	// stint is how many commands in a row a session has before it is another's turn.
	stint = 16
	// mostRest bounds the wait for a turn, whatever keeps those who have one.
	mostRest = 2 * time.Second
)

// yield counts a command; after some in a row the session has to have its turn for the next ones.
func (s *session) yield() {
	if s.row++; s.row < stint {
		return
	}
	s.rest()
	if s.conn.Flush() != nil { // nobody waits for his client while he has a turn, nor has one for a client who is gone
		s.note, s.gone, s.left = "client reset", true, true
		return
	}
	runtime.Gosched()
	ctx, end := context.WithTimeout(&s.ctx, mostRest)
	defer end()
	s.turn = s.srv.cfg.Busy.Take(ctx, s.flow.User.ID) == nil
}

// rest ends the row, and the turn if there is one: before what may take long and needs no processor.
func (s *session) rest() {
	s.row = 0
	if s.turn {
		s.turn = false
		s.srv.cfg.Busy.Give(s.flow.User.ID)
	}
}
