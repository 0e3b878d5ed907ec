package relay

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// Bounds of the sessions that are kept for reuse.
const (
	keptMessages = 10   // that it has had: behind the tenth of a connection some servers (Exim) only queue
	keptPerWay   = 4    // of one user, from one address under one name, to one destination
	keptPerPair  = 10   // of all users, from one address to one destination: it counts ours, idle or not
	keptRoom     = 1024 // all together
	mostReuse    = 100  // transactions of one session: some destinations count them
	quitPatience = time.Second
	fullTime     = time.Hour // for which none stand idle at a destination that turned one away because of them
	fullRoom     = 1 << 12   // such destinations
	reaping      = 100 * time.Millisecond
)

// way is what a kept session may be used for again: the same user's mail by the same route (DEL13).
type way struct {
	user  uint32
	route Route
}

// keeper holds onward sessions that stand between two clients of one user. It is safe for concurrent use.
type keeper struct {
	mu   sync.Mutex
	ways map[way][]*kept // the youngest last
	at   map[place]int   // how many, by both ends
	full map[netip.Addr]time.Time
	n    int
	shut bool
}

// count notes that delta sessions more are held; k.mu is held.
func (k *keeper) count(w way, delta int) {
	k.n += delta
	p := w.route.place()
	if k.at[p] += delta; k.at[p] == 0 {
		delete(k.at, p)
	}
}

type kept struct {
	s     *Session
	timer *time.Timer
}

// Reusable tells whether another transaction may follow on s where nobody has said how many there may be.
func (s *Session) Reusable() bool { return s.begun < mostReuse && s.Clear() }

// Clear tells whether another transaction can follow on s: nothing is open or owed, the last one went well, and the
// destination has said nothing that nobody asked for.
func (s *Session) Clear() bool {
	return s.begun > 0 && !s.open && !s.reset && s.refused == nil && !s.Waits() && s.Fits(nil) && s.Alive()
}

// Keep takes s for later use by the same user, or refuses; then it is still the caller's. Sessions from a customer's own
// address are never kept: they are his, and end with his connection.
func (d *Dialer) Keep(user uint32, s *Session) bool {
	k, w := &d.kept, way{user, s.route}
	if !d.Room(user, s) || !s.Reusable() { // to look at the socket costs more than to look for room
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.room(&w) {
		return false
	}
	s.conn.Idle()
	one := &kept{s: s}
	one.timer = time.AfterFunc(d.keep, func() {
		if k.remove(w, one) {
			one.s.leave()
		}
	})
	if k.ways == nil {
		k.ways, k.at = make(map[way][]*kept), make(map[place]int)
	}
	k.ways[w] = append(k.ways[w], one)
	k.count(w, 1)
	return true
}

// Room tells, without a look at the destination, whether s may be kept: a place may be gone when Keep comes.
func (d *Dialer) Room(user uint32, s *Session) bool {
	if d.keep <= 0 || s.route.Own || s.begun >= keptMessages {
		return false
	}
	d.kept.mu.Lock()
	defer d.kept.mu.Unlock()
	return d.kept.room(&way{user, s.route})
}

// room tells whether one more may be held; k.mu is held.
func (k *keeper) room(w *way) bool {
	return !k.shut && k.n < keptRoom && len(k.ways[*w]) < keptPerWay && k.at[w.route.place()] < keptPerPair && !k.isFull(w.route.Target.Addr(), time.Now())
}

// Take gives a kept session of the user by the route, or nil. It was alive a moment ago. One in plain text for want of a
// handshake that works is given no more once that is tried again.
func (d *Dialer) Take(user uint32, r Route) *Session {
	k, w := &d.kept, way{user, r}
	for {
		k.mu.Lock()
		list := k.ways[w]
		if len(list) == 0 {
			k.mu.Unlock()
			return nil
		}
		one := list[len(list)-1]
		k.drop(w, len(list)-1)
		k.mu.Unlock()
		one.timer.Stop()
		switch {
		case !one.s.Alive():
		case one.s.avoided && !d.shakes.fails(r.Target, time.Now()):
			one.s.Quit()
		default:
			d.proveLater(one.s)
			one.s.another = true
			return one.s
		}
		one.s.Close()
	}
}

// Drop ends the kept sessions of a user: a locked one has none.
func (d *Dialer) Drop(user uint32) {
	d.kept.end(0, func(w way) bool { return w.user == user })
}

// Close ends all kept sessions and keeps no more.
func (d *Dialer) Close() {
	d.kept.mu.Lock()
	d.kept.shut = true
	d.kept.mu.Unlock()
	d.kept.end(0, func(way) bool { return true })
}

// giveWay ends the sessions that stand idle at a destination which has just turned one away, and has none stand there for a
// while: some servers have few places, Exim 20 by default. False where none stood, so that they cannot have been why.
func (d *Dialer) giveWay(ctx context.Context, at netip.Addr, now time.Time) bool {
	if !d.kept.end(quitPatience, func(w way) bool { return w.route.Target.Addr() == at }) {
		return false
	}
	d.kept.markFull(at, now)
	select {
	case <-time.After(reaping): // a server with a process for each session counts it until that has ended
	case <-ctx.Done():
	}
	return true
}

// markFull notes a destination that has no place for idle sessions.
func (k *keeper) markFull(at netip.Addr, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.full == nil {
		k.full = make(map[netip.Addr]time.Time)
	}
	for old := range k.full { // map order is as good as random
		if len(k.full) < fullRoom {
			break
		}
		delete(k.full, old)
	}
	k.full[at] = now
}

// isFull tells whether that was so lately; k.mu is held.
func (k *keeper) isFull(at netip.Addr, now time.Time) bool {
	since, is := k.full[at]
	if is && now.Sub(since) > fullTime {
		delete(k.full, at)
		return false
	}
	return is
}

// end takes out what is wanted and says goodbye to it; for at most patience it waits until the destinations have ended it,
// too. False where there was nothing.
func (k *keeper) end(patience time.Duration, wanted func(way) bool) bool {
	var out []*kept
	k.mu.Lock()
	for w, list := range k.ways {
		if wanted(w) {
			out = append(out, list...)
			k.count(w, -len(list))
			delete(k.ways, w)
		}
	}
	k.mu.Unlock()
	for _, one := range out {
		one.timer.Stop()
		one.s.Quit()
	}
	var all sync.WaitGroup
	for _, one := range out {
		if patience == 0 {
			one.s.Close()
			continue
		}
		all.Go(func() { one.s.Bye(patience) })
	}
	all.Wait()
	return len(out) > 0
}

// remove takes one out; false when somebody else has it already.
func (k *keeper) remove(w way, one *kept) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, o := range k.ways[w] {
		if o == one {
			k.drop(w, i)
			return true
		}
	}
	return false
}

// drop takes number i out; k.mu is held.
func (k *keeper) drop(w way, i int) {
	list := k.ways[w]
	copy(list[i:], list[i+1:])
	list[len(list)-1] = nil
	if list = list[:len(list)-1]; len(list) == 0 {
		delete(k.ways, w)
	} else {
		k.ways[w] = list
	}
	k.count(w, -1)
}

// leave ends a session politely.
func (s *Session) leave() {
	s.Quit()
	s.Bye(quitPatience)
}

// Idle gives up what the session need not hold while nothing is said.
func (s *Session) Idle() {
	s.conn.Idle()
	s.rep.Raw = nil
}

// Alive tells, without waiting, whether the destination is still there and has said nothing.
func (s *Session) Alive() bool {
	if s.conn.Buffered() > 0 {
		return false
	}
	pending, err := s.conn.Probe()
	return err == nil && !pending
}

// Left tells, without waiting, whether the destination has ended the connection, whatever it said before.
func (s *Session) Left() bool { return s.conn.HungUp() }
