package delivery

import (
	"time"

	"sluice/proxy/relay"
	"sluice/proxy/tlspolicy"
)

// hold is the session that a worker has from one message to the next, so that those of a busy lane share one. It serves one
// goroutine.
type hold struct {
	q     *Queue
	s     *relay.Session // nil: none
	user  uint32
	route relay.Route
	up    *Upstream
	at    time.Time // since when it has it
}

// fresh is for how long nobody asks whether a session still stands whose last reply was just read.
const fresh = 10 * time.Millisecond

// take gives the session where it serves for c by this route; another one is given up.
func (h *hold) take(c *call, rt *relay.Route, up *Upstream, terms *tlspolicy.Policy) *relay.Session {
	if h == nil || h.s == nil {
		return nil
	}
	if h.user != c.User || h.route != *rt || h.up != up || h.s.Meets(terms) != nil || !h.s.Fits(c.rcpts) || time.Since(h.at) > fresh && !h.s.Alive() {
		h.drop()
		return nil
	}
	s := h.s
	h.s = nil
	return s
}

// put has the session wait for the worker's next message; false where it must not be used again.
func (h *hold) put(user uint32, s *relay.Session, up *Upstream) bool {
	if h == nil || h.s != nil || s.Route().Own || !s.Clear() {
		return false
	}
	h.s, h.user, h.route, h.up, h.at = s, user, *s.Route(), up, time.Now()
	return true
}

// drop gives the session to whoever comes next, or ends it. One that logged in is nobody else's.
func (h *hold) drop() {
	s := h.s
	if s == nil {
		return
	}
	h.s = nil
	if (h.up == nil || h.up.User == "") && h.q.o.Dialer.Keep(h.user, s) {
		return
	}
	s.Quit()
	s.Close()
}
