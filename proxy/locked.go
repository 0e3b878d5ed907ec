package proxy

import (
	"strings"
	"time"

	"sluice/filter"
)

// A lock ends the sessions that were open before it: with 421 between two messages or at the next command, behind the
// message's own answer where one is on its way. A session that begins under the lock is led on, since in it the lock is
// explained and bad mail refused for good (LCK3).

// Locked tells the server that a user was just locked: his idle sessions hear it at once, the others when they speak.
func (s *Server) Locked(user uint32) {
	s.cfg.Dialer.Drop(user)
	for _, ss := range s.of(user) {
		if !ss.explains.Load() {
			ss.client.end()
		}
	}
}

// Open returns how many sessions of a user are open, those aside that have said their last word.
func (s *Server) Open(user uint32) (n int) {
	for _, ss := range s.of(user) {
		if st := ss.client.stage.Load(); st != woken && st != closing {
			n++
		}
	}
	return n
}

// Cut ends all open sessions of a user at once: idle ones of a locked user with the reply, the rest without. Those whose
// message has gone whole to its destination are left to pass on the answer; Cut returns how many.
func (s *Server) Cut(user uint32) (left int) {
	for _, ss := range s.of(user) {
		if !ss.cutOff() {
			left++
		}
	}
	return left
}

// FlowsOf lists the open sessions of a user.
func (s *Server) FlowsOf(user uint32) (out []Live) {
	for _, ss := range s.of(user) {
		out = append(out, ss.live())
	}
	return out
}

// of returns the open sessions of a user.
func (s *Server) of(user uint32) (list []*session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[user] == 0 {
		return nil
	}
	for ss := range s.sessions {
		if ss.flow.User.ID == user {
			list = append(list, ss)
		}
	}
	return list
}

// cutOff ends the session unless its final dot is on its way. Whoever sends the dot says so before it looks whether the
// session is doomed, so one of the two always sees the other.
func (s *session) cutOff() bool {
	s.doomed.Store(true)
	if s.client.end() {
		return true
	}
	switch s.client.stage.Load() {
	case dotted:
		return false
	case closing, woken: // it says its last word, or has said it
		s.client.wake()
		return true
	}
	s.kill()
	return true
}

// dot notes that the final dot leaves now; false when it must not any more.
func (s *session) dot() bool {
	s.stage(dotted)
	return !s.doomed.Load()
}

// lockedOut answers a session that was open when its user was locked, and logs the transaction that this ends.
func (s *session) lockedOut() bool {
	ticket, is := s.srv.cfg.Locks.Locked(s.flow.User.ID)
	if !is {
		s.explains.Store(false)
		return false
	}
	if s.explains.Load() {
		return false
	}
	s.ticket = ticket
	a := lockedSession(s.set, ticket, s.reason())
	s.leave(a)
	if s.tx.open {
		s.finish(ending{status: Deferred, ticket: ticket, note: a.text})
	}
	return true
}

// reason is why the user is locked.
func (s *session) reason() string { return s.srv.cfg.Locks.Reason(s.flow.User.ID) }

// interrupted answers a session whose wait for a command was ended.
func (s *session) interrupted() bool {
	switch {
	case s.srv.drain.Err() != nil:
		return s.leave(stopping)
	case s.lockedOut():
		return false
	}
	return s.leave(connectAgain) // the lock was lifted meanwhile
}

// tellLocked answers the client of a session in shadow that ends because its user is locked, where an answer of ours can
// be understood: not within TLS, and not within a reply of the destination.
func (w *shadow) tellLocked() {
	ticket, is := w.srv.cfg.Locks.Locked(w.flow.User.ID)
	if !is {
		return
	}
	// Whoever writes to a client that does not read holds `out`: he has so long, too.
	if w.client.Conn.SetWriteDeadline(time.Now().Add(w.patience())) != nil {
		return // it is closed
	}
	w.out.Lock()
	defer w.out.Unlock()
	w.mu.Lock()
	clear := w.tap.between()
	w.mu.Unlock()
	w.ticket = ticket
	w.stage(closing)
	set := w.srv.set.Load() // the session's own belongs to whoever judges what was overheard
	a := lockedSession(set, ticket, w.reason())
	w.lockNote = line(a.code, a.enh, set.Name+": "+a.text)
	if !clear {
		resetConn(w.client.Conn)
		return
	}
	if w.client.Conn.SetDeadline(time.Now().Add(w.patience())) != nil {
		return // it is closed
	}
	if _, err := w.client.Conn.Write([]byte(w.lockNote + "\r\n")); err != nil {
		return
	}
	closeWrite(w.client.Conn)
	discard(w.client.Conn)
}

// tellLocks tells the locks a verdict before the client can hear it. They may stop a good message of a sender who is not
// locked as a whole; his mail to the administrator goes on (LCK3).
func (s *session) tellLocks(v *filter.Verdict) {
	t, before := &s.tx, *v
	s.srv.cfg.Locks.Judged(&t.msg, v)
	if before.Refused() || !v.Refused() || s.set.Admin == "" || len(t.passed) != 1 || !strings.EqualFold(t.passed[0].Address, s.set.Admin) {
		return
	}
	if s.srv.admin.take(s.flow.User.ID, t.start) {
		*v = before
	}
}
