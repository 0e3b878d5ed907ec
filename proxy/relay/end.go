package relay

import "time"

// Close ends the session without a word.
func (s *Session) Close() {
	s.unstream()
	s.conn.Close()
	s.done()
}

// Quit says QUIT, unless the destination waits for a message. The caller may do other things before it calls Bye.
func (s *Session) Quit() {
	if !s.Waits() && s.conn.WriteCommand("QUIT") == nil {
		_ = s.conn.Flush() // it is closed whatever becomes of it
	}
}

// Bye waits a little, up to wait, for the destination to answer QUIT and close, so that it sees a clean end and
// TIME_WAIT stands there, and closes.
func (s *Session) Bye(wait time.Duration) {
	if s.Waits() {
		wait = 0
	}
	s.unstream()
	_ = s.conn.CloseAfterPeer(wait) // there is nobody to tell
	s.done()
}

// Cut ends the session from any goroutine: whoever waits for the destination gets an error.
func (s *Session) Cut() { s.nc.Close() }
