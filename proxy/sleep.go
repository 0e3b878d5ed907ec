package proxy

import (
	"syscall"
	"time"

	"sluice/proxy/smtp"
)

// parkAfter is how long nothing must have come, at least, for a session to give up its goroutine: far longer than a client
// thinks between two commands, so that only idle ones pay for it.
const parkAfter = 500 * time.Millisecond

// parks has the session parked where its client is silent, if its socket can be watched.
func (s *session) parks() {
	sc, ok := s.client.Conn.(syscall.Conn)
	if !ok || s.srv.lot == nil {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return // it is closed, which shows at once
	}
	s.client.place.Raw = raw
	s.conn.SetIdle(s.srv.parkAfter)
}

// park leaves the session without a goroutine and buffers until its client speaks or leaves, its time is over or somebody
// wakes it. With true it is not the caller's any more.
func (s *session) park() bool {
	if s.until.IsZero() {
		s.until = time.Now().Add(s.set.Timeouts.Command)
	}
	s.conn.Idle()
	if s.remote != nil {
		s.remote.Idle()
	}
	s.layDown()
	place := &s.client.place
	if !s.srv.lot.Park(place, s.until) {
		s.takeUp()
		s.conn.SetIdle(0)
		return false
	}
	if s.client.stage.Load() == woken { // in between: nobody found it parked
		place.Wake()
	}
	return true
}

// Resume goes on with a session that was parked.
func (s *session) Resume() {
	s.takeUp()
	s.lead(func() (ok, parked bool) {
		if s.client.place.Overdue(time.Now()) {
			return s.heed(&smtp.Command{}, smtp.ErrTimeout), false
		}
		return s.await()
	})
}
