package containment

import (
	"time"

	"sluice/filter/lock"
)

// scene is one run.
type scene struct {
	w       *world
	letters *letters
	gate    *gateway
	asked   *asked
	all     []*customer
	serial  uint64
	readers int // of a newsletter
	figures
}

// figures are what is counted.
type figures struct {
	escaped   map[lock.Scope][]time.Time // spam of the stolen accounts that a destination took
	tried     int                        // spam that they sent
	good      int                        // good messages of everybody else
	misjudged int                        // of these refused by the filter, as it is stated to do
	hurt      int                        // of these refused for good by limits or locks
	stopped   int                        // of these put off by limits or locks at least once
	late      int                        // of these delivered, or still waiting, more than 15 minutes after they were written, because of that
	stolen    int                        // good messages of the stolen accounts themselves
	waiting   map[*mail]bool
}

const lateAfter = 15 * time.Minute

func newScene(kind string, seed uint64, o *oracle, customers, readers int) (*scene, error) {
	s := &scene{w: newWorld(seed), letters: theLetters(), readers: readers}
	s.escaped, s.waiting = map[lock.Scope][]time.Time{}, map[*mail]bool{}
	var err error
	if s.gate, s.asked, err = newGateway(kind, s.w, o); err != nil {
		return nil, err
	}
	s.customers(customers)
	return s, nil
}

// theft is when accounts are stolen.
const theft = time.Hour

// steal has n customers send spam, so many an hour, from one of their identities; slowly from all of theirs in turn.
func (s *scene) steal(n int, perHour float64, slow bool) {
	taken := 0
	for i := 0; taken < n; i++ {
		c := s.all[(i*37+5)%len(s.all)]
		if c.kind == "forwarder" || c.stolen != "" {
			continue
		}
		taken++
		c.stolen = "desk"
		if slow {
			c.stolen = "all"
		}
		s.w.after(theft, func() { c.pour(perHour, slow) })
	}
}

// pour sends spam. While nothing gets through it is tried every ten seconds.
func (c *customer) pour(perHour float64, slow bool) {
	identity := "desk"
	if slow {
		identity = c.identities[c.s.w.rnd.IntN(len(c.identities))]
	}
	c.spam(identity)
	wait := time.Duration(c.s.w.rnd.ExpFloat64() * float64(time.Hour) / perHour)
	if c.s.gate.kind == sluice {
		if c.isLocked(identity) {
			wait = max(wait, 10*time.Second)
		}
	}
	c.s.w.after(wait, func() { c.pour(perHour, slow) })
}

func (c *customer) isLocked(identity string) bool {
	if _, locked := c.s.gate.locks.Locked(c.id); locked {
		return true
	}
	_, locked := c.s.gate.locks.LockedIdentity(c.id, identity+"@"+c.name)
	return locked
}

// thief tells whether a message comes from a stolen account.
func (m *mail) thief() bool {
	return m.from.stolen != "" && (m.from.stolen == "all" || m.identity == m.from.stolen) && time.Since(m.from.s.w.began) >= theft
}

// send puts a new message into its sender's queue.
func (s *scene) send(m *mail) {
	switch {
	case m.bad && !m.forwarded:
		s.tried++
	case m.bad:
	case m.thief():
		s.stolen++
	default:
		s.good++
	}
	s.try(m)
}

// try hands a message to the gateway; a good one that is put off is tried again as mail servers do.
func (s *scene) try(m *mail) {
	m.tries++
	s.gate.hand(s.asked, m, func(r answer) { s.heard(m, r) })
}

func (s *scene) heard(m *mail, r answer) {
	if m.bad {
		if r == accepted && !m.forwarded {
			whom := lock.Scope{User: m.from.id, Identity: m.identity}
			s.escaped[whom] = append(s.escaped[whom], time.Now())
		}
		return
	}
	own := !m.thief()
	switch r {
	case accepted:
		delete(s.waiting, m)
		if own && m.stopped && time.Since(m.born) > lateAfter {
			s.late++
		}
		return
	case refused:
		delete(s.waiting, m)
		if own {
			s.misjudged++
		}
		return
	case forbidden:
		delete(s.waiting, m)
		if own {
			s.hurt++
		}
		return
	case slowed:
		if own && !m.stopped {
			s.stopped++
		}
		m.stopped = true
	}
	s.waiting[m] = true
	s.w.after(min(time.Hour, 5*time.Minute<<(m.tries-1)), func() { s.try(m) })
}

// finish counts what waits in vain at the end.
func (s *scene) finish() {
	for m := range s.waiting {
		if m.stopped && !m.thief() && time.Since(m.born) > lateAfter {
			s.late++
		}
	}
}
