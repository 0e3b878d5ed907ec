package proxy

import "time"

// end closes both legs and logs what is left to be logged. After our last reply the client may close first, so that
// TIME_WAIT stands on its side and not in the way of its next connection from the same port.
func (s *session) end() {
	if s.gate != nil {
		s.gate()
	}
	if s.tx.open {
		e := ending{status: Lost, lost: !s.bye, note: s.note}
		if s.bye { // there was a last answer
			e.status = s.tx.outcome()
		}
		if s.tx.failed != nil {
			e.status, e.note = failedStatus(s.tx.failed), s.tx.failed.Error()
		}
		s.finish(e)
	}
	s.stage(closing)
	s.dropEarly()
	s.dropBlind()
	s.refusedAfter()
	if s.sent.Load() == 0 {
		s.logEmpty()
	}
	if s.remote != nil && s.keep() {
		s.remote = nil
	}
	if s.remote != nil {
		s.remote.Quit()
	}
	if s.bye {
		_ = s.conn.CloseAfterPeer(s.patience()) // the client is gone in any case
	} else {
		s.conn.Close()
	}
	if s.remote != nil {
		s.remote.Bye(s.patience())
	}
	s.ctx.end()
}

// hasty is how long a FIN is waited for while the gateway stops, since new connections wait for its end, or after a cut.
const hasty = 250 * time.Millisecond

// patience is how long a FIN is waited for.
func (s *session) patience() time.Duration {
	bye := s.srv.set.Load().Timeouts.Bye
	if s.srv.drain.Err() != nil || s.doomed.Load() {
		return min(hasty, bye)
	}
	return bye
}

// reset answers RSET. It counts as idle talk unless the transaction it ends had recipients.
func (s *session) reset() {
	busy := s.tx.open && s.tx.tried > 0
	if s.tx.open {
		s.finish(ending{status: s.tx.outcome(), note: "client reset the transaction"})
	}
	if !busy {
		s.noise()
	}
	if !s.bye {
		s.conn.WriteRaw(s.set.fixed.reset)
	}
}

// turnAway answers a session that may not stay.
func (s *session) turnAway(why answer) {
	s.leave(why)
	s.end()
	s.layDown()
}

// wake ends the session if it is idle.
func (s *session) wake() { s.client.wake() }

// kill ends the session at once. It may be called by any goroutine.
func (s *session) kill() {
	s.ctx.end()
	s.client.Conn.Close()
	s.client.place.Wake()
	if r := s.cut.Swap(nil); r != nil { // from there on it is nobody else's
		r.Cut()
	}
}
