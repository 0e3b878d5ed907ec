package proxy

import (
	"context"
	"errors"
	"maps"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"sluice/filter"
	"sluice/intercept/flow"
	"sluice/proxy/park"
	"sluice/proxy/pool"
)

// Server leads the sessions of all flows. It is safe for concurrent use.
type Server struct {
	cfg       Config
	set       atomic.Pointer[resolved]
	bodies    atomic.Int64 // bytes of bodies in memory
	reserve   func(int) bool
	admin     adminBudget
	ways      ways
	doubts    doubts
	paces     paces
	signers   pool.Signers
	noiseStep time.Duration   // noiseStep, but in tests
	parkAfter time.Duration   // parkAfter, but in tests
	mostWait  time.Duration   // mostWait, but in tests
	stalled   time.Duration   // stalled, but in tests
	longWait  time.Duration   // longWait, but in tests
	lot       *park.Lot       // of sessions whose clients are silent; nil where the system has none
	base      context.Context // ends when sessions must be cut
	cut       context.CancelFunc
	drain     context.Context // ends when the server begins to stop
	stop      context.CancelFunc
	wg        sync.WaitGroup
	mu        sync.Mutex
	sessions  map[*session]struct{}
	users     map[uint32]int // sessions by user
}

// New returns a Server, or why it can not be made.
func New(c Config) (*Server, error) {
	switch {
	case c.Policy == nil, c.Locks == nil, c.Log == nil, c.Dialer == nil, c.Tracer == nil:
		return nil, errors.New("could not make the proxy: policy, locks, log, dialer or tracer is missing; give all of them")
	}
	if c.Busy == nil {
		c.Busy = filter.NewTurns(max(1, runtime.GOMAXPROCS(0)-1))
	}
	if c.Choices == nil {
		c.Choices = new(pool.Choices)
	}
	s := &Server{cfg: c, noiseStep: noiseStep, parkAfter: parkAfter, mostWait: mostWait, stalled: stalled, longWait: longWait, sessions: make(map[*session]struct{}), users: make(map[uint32]int)}
	if err := s.Configure(c.Settings); err != nil {
		return nil, err
	}
	var err error
	if s.lot, err = park.New(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, err
	}
	s.reserve = s.reserveBody
	s.base, s.cut = context.WithCancel(context.Background())
	s.drain, s.stop = context.WithCancel(s.base)
	return s, nil
}

// Configure replaces the settings, or says why they can not be used and keeps the old ones.
func (s *Server) Configure(set Settings) error {
	r, err := set.resolve()
	if err == nil {
		s.set.Store(r)
	}
	return err
}

// ServeConn leads the session on nc to its end, closes nc and calls done. One goroutine does everything for a flow, this
// one first; while the client is silent there is none, so ServeConn may return long before done is called. The session
// ends early when ctx ends.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn, f *flow.Flow, done func()) {
	settleSession(false)
	ss := newSession(s, nc, f)
	s.serve(ctx, ss, ss.greet, done)
}

// serve leads a session that begins with a greeting.
func (s *Server) serve(ctx context.Context, ss *session, greet func() bool, done func()) {
	if refused := s.enter(ss); refused != nil {
		defer done()
		if *refused == crowdedUser {
			ss.block = AtCap
		}
		ss.turnAway(*refused)
		return
	}
	stop := func() bool { return true }
	if ctx.Done() != nil {
		stop = context.AfterFunc(ctx, ss.kill)
	}
	ss.over = func() {
		stop()
		s.leave(ss)
		done()
	}
	ss.parks()
	ss.lead(func() (ok, parked bool) { return greet(), false })
}

// enter lists a session, or says why it may not stay: the server is stopping, or its user, who may have many source
// addresses, has as many sessions as one user may have, waiting ones included.
func (s *Server) enter(ss *session) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drain.Err() != nil {
		return &stopping
	}
	user := ss.flow.User.ID
	if most := ss.set.UserSessions; most > 0 && user != 0 && s.users[user] >= most {
		return &crowdedUser
	}
	s.users[user]++
	s.wg.Add(1)
	s.sessions[ss] = struct{}{}
	return nil
}

func (s *Server) leave(ss *session) {
	s.mu.Lock()
	delete(s.sessions, ss)
	if user := ss.flow.User.ID; s.users[user] > 1 {
		s.users[user]--
	} else {
		delete(s.users, user)
	}
	s.mu.Unlock()
	s.wg.Done()
}

// survive keeps a mistake of ours that one session brought to light from ending all the others. The client hears no
// answer, so nothing is lost: it keeps the message.
func (s *Server) survive(ss *session) {
	if cause := recover(); cause != nil {
		ss.kill()
		if ss.remote != nil {
			ss.remote.Close()
		}
		ss.closeBlind()
		ss.dropEarly()
		if ss.work != nil {
			ss.body.Release()
		}
		if s.cfg.Panicked != nil {
			s.cfg.Panicked(*ss.flow, cause, debug.Stack())
		}
	}
}

// Shutdown lets open transactions finish and ends all other sessions with 421 4.3.2. When ctx ends the rest is cut.
// It returns when no session is left: nil, or ctx's error when some had to be cut.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	for _, ss := range s.list() {
		ss.wake()
	}
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	var err error
	select {
	case <-done:
		s.cut()
	case <-ctx.Done():
		err = ctx.Err()
		s.cut()
		for _, ss := range s.list() {
			ss.kill()
		}
		<-done
	}
	s.cfg.Dialer.Close()
	if s.lot != nil {
		_ = s.lot.Close() // nobody is parked any more
	}
	return err
}

func (s *Server) list() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*session, 0, len(s.sessions))
	for ss := range s.sessions {
		all = append(all, ss)
	}
	return all
}

// Live is a session as it is now.
type Live struct {
	Flow     flow.Flow
	State    string    // "waiting", "idle", "envelope", "data", "verdict", "onward", "sent", "unread", "closing"
	Since    time.Time // MAIL of the last transaction, or accept
	Messages int       // transactions begun
	Helo     string    // "" before
	TLS      bool      // the client leg is encrypted
}

// Flows returns all open sessions, in no order.
func (s *Server) Flows() []Live {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Live, 0, len(s.sessions))
	for ss := range s.sessions {
		out = append(out, ss.live())
	}
	return out
}

// Sessions returns the number of open sessions.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// reserveBody keeps the account of memory in bodies.
func (s *Server) reserveBody(delta int) bool {
	if n := s.bodies.Add(int64(delta)); delta > 0 && n > s.set.Load().BodiesMemory {
		s.bodies.Add(-int64(delta))
		return false
	}
	return true
}

// adminBudget counts the mails that locked users sent to the administrator in the present hour.
type adminBudget struct {
	mu   sync.Mutex
	hour int64
	sent map[uint32]int
}

// take tells whether user may send one more.
func (b *adminBudget) take(user uint32, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(now)
	if b.sent[user] >= adminPerHour {
		return false
	}
	b.sent[user]++
	return true
}

// turn begins anew with each hour; it needs the lock.
func (b *adminBudget) turn(now time.Time) {
	if h := now.Unix() / 3600; h != b.hour || b.sent == nil {
		b.hour, b.sent = h, make(map[uint32]int)
	}
}

// AdminSpent returns how many mails locked users have sent to the administrator in the present hour, for the process that
// takes over.
func (s *Server) AdminSpent() map[uint32]int {
	s.admin.mu.Lock()
	defer s.admin.mu.Unlock()
	s.admin.turn(time.Now())
	return maps.Clone(s.admin.sent)
}

// SpendAdmin books n such mails of a user that another process let go on.
func (s *Server) SpendAdmin(user uint32, n int) {
	s.admin.mu.Lock()
	defer s.admin.mu.Unlock()
	s.admin.turn(time.Now())
	s.admin.sent[user] += n
}
