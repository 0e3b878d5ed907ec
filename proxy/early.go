package proxy

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sluice/filter/policy"
	"sluice/proxy/relay"
)

// early is an onward session that is being opened while the client still says who it is: the destination's handshake
// and greeting then cost the client no time (DEL13). Which delivery address the mail will leave from depends on
// domains that are not known yet, so it is foreseen from the user's last mails to the destination; where there were none the
// session opens from the user's first address, and the first mail may stay with that.
type early struct {
	route relay.Route
	stop  context.CancelFunc
	done  chan struct{} // closed when remote or err is set
	owner atomic.Uint32 // who has remote: undecided, the session, or nobody any more
	// Set once done is closed.
	remote *relay.Session
	err    error
	at     time.Time
}

// earlyTruth is how long a failure to open the session early tells the truth about the destination.
const earlyTruth = 2 * time.Second

const (
	undecided uint32 = iota
	published        // the session takes it
	abandoned        // the session is gone: it is closed as soon as it stands
)

// dialEarly begins to open the onward session, where its way can be foreseen. A locked user's connection asks nobody.
// The customer's own address cannot be used before the client has said its name.
func (s *session) dialEarly() {
	if _, is := s.srv.cfg.Locks.Locked(s.flow.User.ID); is || s.delivery() == policy.Own {
		return
	}
	route, seen := s.srv.ways.foresee(way{s.flow.User.ID, s.flow.Target})
	if seen && route.Own {
		return
	}
	if !seen || !s.set.Pool.InUse(route.Source) {
		if route = s.opening(); route.Own {
			return
		}
		if _, known := s.srv.cfg.Dialer.Known(&route); known {
			return // EHLO can be answered without it, and it may be the wrong one
		}
	}
	if s.warm(route); s.remote != nil {
		return
	}
	ctx, stop := s.ctx.brief()
	e := &early{route: route, stop: stop, done: make(chan struct{})}
	s.early = e
	go func() {
		settleOpener(false)
		e.remote, e.err = s.srv.cfg.Dialer.Open(ctx, route)
		e.at = time.Now()
		if !e.owner.CompareAndSwap(undecided, published) && e.remote != nil {
			e.remote.Quit()
			e.remote.Close()
		}
		close(e.done)
	}()
}

// failedEarly returns why the early session could not be opened, as far as that is known now.
func (s *session) failedEarly() error {
	if s.early == nil {
		return nil
	}
	select {
	case <-s.early.done:
		return s.early.err
	default:
		return nil
	}
}

// takeEarly waits for the early session and makes it the onward one where it goes the way that is wanted; otherwise it
// is given up. Its failure is the destination's.
func (s *session) takeEarly(wanted relay.Route) error {
	e := s.early
	if e == nil {
		return nil
	}
	if e.route != wanted {
		s.dropEarly()
		return nil
	}
	<-e.done
	s.early = nil
	e.stop()
	if e.err == nil {
		s.take(e.remote)
		s.used = e.at // it may have stood idle since
	} else if time.Since(e.at) > earlyTruth {
		return nil // that was then: it is tried again
	}
	return e.err
}

// unused is the route of the onward session that stands or is being opened and has carried nothing yet; nil: there is none.
func (s *session) unused() *relay.Route {
	switch {
	case s.remote != nil && s.remote.Begun() == 0:
		return s.remote.Route()
	case s.remote == nil && s.early != nil:
		return &s.early.route
	}
	return nil
}

// dropEarly gives the early session up without waiting for it.
func (s *session) dropEarly() {
	e := s.early
	if e == nil {
		return
	}
	s.early = nil
	if e.owner.CompareAndSwap(undecided, abandoned) {
		e.stop()
		return
	}
	<-e.done // published: it stands or has failed
	e.stop()
	if e.remote != nil {
		e.remote.Quit()
		e.remote.Close()
	}
}

// way is a user's way to one destination.
type way struct {
	user   uint32
	target netip.AddrPort
}

// ways remembers by which route each user's last mail to a destination left. It is safe for concurrent use.
type ways struct {
	mu sync.Mutex
	m  map[way]*habit
}

// habit is the route of the last mail, and whether the one before did not take another: who changes foresees nothing.
type habit struct {
	route  relay.Route
	steady bool
}

const waysRoom = 1 << 16 // about 250 bytes each

// foresee returns the route that the user's next mail to the destination will probably take.
func (w *ways) foresee(k way) (relay.Route, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.m[k]; h != nil && h.steady {
		return h.route, true
	}
	return relay.Route{}, false
}

// took notes the route that a mail takes.
func (w *ways) took(k way, r relay.Route) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.m[k]; h != nil {
		h.steady = h.route == r
		h.route = r
		return
	}
	if w.m == nil {
		w.m = make(map[way]*habit)
	}
	if len(w.m) >= waysRoom {
		for old := range w.m { // map order is as good as random
			delete(w.m, old)
			break
		}
	}
	w.m[k] = &habit{route: r, steady: true}
}
