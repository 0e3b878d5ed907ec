package spool

import (
	"errors"
	"fmt"
	"slices"

	"sluice/proxy/smtp"
)

// Settle ends the lease with what has become of the delivery, and returns once that is on disk. When no recipient is left
// the delivery is done and forgotten.
func (l *Lease) Settle(st State) error {
	return l.s.settle(l, &st, true)
}

// Progress writes down what came of the try so far, some recipient being left, and returns once that is on disk. The lease goes
// on, and the end of the program will not hide that the delivery was being tried further.
func (l *Lease) Progress(st State) error {
	x := l.next(&st)
	x.on = true
	l.s.prepare(x)
	if err := l.s.write1(x, true); err != nil {
		return err
	}
	l.ver, l.State = x.ver, st
	return l.note()
}

// Return ends the lease as if there had been none: nothing was tried. It does not wait for the disk.
func (l *Lease) Return() error {
	return l.s.settle(l, &l.State, false)
}

// Draft begins a message for SettleWith. It is not refused for lack of room, as what has happened is written in any case.
func (l *Lease) Draft() *Draft { return &Draft{s: l.s} }

// Settled is a lease with what has become of its delivery.
type Settled struct {
	*Lease
	State State
}

// SettleWith does as Settle and in the same step, so that none is on disk without the other, commits a message that follows
// from it, a notice to the sender, and settles other deliveries of the same message.
func (l *Lease) SettleWith(st State, d *Draft, env *Envelope, body *smtp.Body, also ...Settled) ([]ID, error) {
	all := []*state{l.next(&st)}
	for i := range also {
		all = append(all, also[i].next(&also[i].State))
	}
	for _, x := range all {
		l.s.prepare(x)
	}
	ids, err := d.commit(env, nil, body, "", all)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(x *state) bool { return x.done }); i >= 0 {
		l.s.dropTail(l.e, all[i])
	}
	return ids, nil
}

func (l *Lease) next(st *State) *state {
	return &state{id: l.ID, ver: l.ver + 1, done: st.Left == 0, State: *st}
}

func (s *Spool) settle(l *Lease, st *State, sync bool) error {
	x := l.next(st)
	s.prepare(x)
	if err := s.write1(x, sync); err != nil {
		return err
	}
	if sync {
		s.dropTail(l.e, x)
	} else {
		s.unlease(l.ID)
	}
	return nil
}

// prepare has memory know at once what is on its way to the disk; only the lease stays until it is there.
func (s *Spool) prepare(x *state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.x.get(x.id)
	if slot == nil || x.done {
		return
	}
	s.countHeld(slot, func() { slot.apply(x) })
}

func (s *Spool) countHeld(slot *slot, f func()) {
	before := slot.flags & held
	f()
	switch after := slot.flags & held; {
	case before == 0 && after != 0:
		s.heldCount++
	case before != 0 && after == 0:
		s.heldCount--
	}
}

// write1 writes a state and waits for the disk where sync is set.
func (s *Spool) write1(x *state, sync bool) error {
	o := &op{kind: kState, meta: x.append(make(fields, 0, 64)), sync: sync}
	o.landed = func(p place, g *segment) { s.stateLanded(x, p, g) }
	if sync {
		o.done = make(chan struct{})
	}
	s.mu.Lock()
	err := s.push(o)
	s.mu.Unlock()
	if err != nil || !sync {
		return err
	}
	return o.await()
}

// stateLanded takes over a state whose record stands at p. s.mu is held.
func (s *Spool) stateLanded(x *state, p place, g *segment) {
	slot := s.x.get(x.id)
	if slot == nil || !x.done && slot.ver > x.ver {
		return
	}
	if x.done {
		s.forget(slot, g)
		return
	}
	s.countHeld(slot, func() { slot.apply(x) })
	if !x.on {
		slot.flags &^= leased
	}
	s.deadState(slot)
	slot.state = p
	if p != slot.at {
		g.live += int64(p.size)
	}
}

// deadState takes a delivery's state out of what counts; one that stands in the entry itself never did. s.mu is held.
func (s *Spool) deadState(slot *slot) {
	if slot.state != slot.at {
		s.dead(slot.state)
	}
}

// dead takes a record out of what counts. s.mu is held.
func (s *Spool) dead(p place) {
	g := s.segs[p.seg]
	if g == nil || p.size == 0 {
		return
	}
	g.live -= int64(p.size)
	if g.sealed && g.live*4 < g.size {
		s.tidySoon()
	}
}

// forget removes a delivery that by a record in g is done; nil: others see to it that this is not forgotten. s.mu is held.
func (s *Spool) forget(slot *slot, g *segment) {
	if slot.flags&held != 0 {
		s.heldCount--
	}
	s.deadState(slot)
	if at := slot.at.seg; g != nil && at != g.key {
		g.refs[at] = struct{}{}
	}
	last := true
	if slot.flags&many != 0 {
		first := slot.id - ID(slot.nth)<<tagBits
		s.x.siblings[first]--
		if last = s.x.siblings[first] == 0; last {
			delete(s.x.siblings, first)
		}
	}
	if last {
		s.dead(slot.at)
		if slot.flags&owned != 0 {
			s.x.disown(slot.user)
		}
	}
	s.x.remove(slot.id)
}

// lastOf tells whether no delivery of the entry is left.
func (s *Spool) lastOf(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range e.parts {
		if s.x.get(e.first.nth(i)) != nil {
			return false
		}
	}
	return true
}

// dropTail removes the file of a large message whose last delivery x was.
func (s *Spool) dropTail(e *entry, x *state) {
	if e.tail == 0 || !x.done || !s.lastOf(e) {
		return
	}
	_ = s.d.remove(tailName(e.tailID)) // what stays is swept at the next start
	s.mu.Lock()
	s.countTail(e, -1)
	s.mu.Unlock()
}

// countTail keeps the number of files by tag. s.mu is held.
func (s *Spool) countTail(e *entry, n int) {
	if e.tail > 0 {
		s.tails[e.tailID.tag()] += n
	}
}

// Hold puts a delivery on hold that nobody has leased.
func (s *Spool) Hold(id ID, why string) error {
	if why == "" {
		return errors.New("a hold needs a reason")
	}
	return s.alter(id, func(st *State) { st.Hold = why })
}

// Release lifts a hold, forgets crashes, and has the delivery due now.
func (s *Spool) Release(id ID) error {
	return s.alter(id, func(st *State) { st.Hold, st.Crashes, st.Kills, st.Due = "", 0, 0, s.o.Now() })
}

// Retry has the delivery due now.
func (s *Spool) Retry(id ID) error {
	return s.alter(id, func(st *State) { st.Due = s.o.Now() })
}

// Delete drops a delivery that nobody has leased, without a word to anybody.
func (s *Spool) Delete(id ID) error {
	return s.alter(id, func(st *State) { st.Left = 0 })
}

// alter changes the state of a delivery that nobody has leased.
func (s *Spool) alter(id ID, f func(*State)) error {
	l, err := s.lease(id, true)
	if errors.Is(err, ErrDamaged) { // it can be dropped or looked at all the same
		st := State{Left: 1}
		if f(&st); st.Left != 0 {
			return err
		}
		return s.change(id, &st, f)
	}
	if err != nil {
		return err
	}
	st := l.State
	f(&st)
	return s.settle(l, &st, true)
}

// change writes a state without looking at what is on disk: of a delivery that cannot be read.
func (s *Spool) change(id ID, st *State, f func(*State)) error {
	s.mu.Lock()
	slot := s.x.get(id)
	if slot == nil || slot.flags&leased != 0 {
		s.mu.Unlock()
		return fmt.Errorf("%w, or it is being tried", ErrUnknown)
	}
	slot.flags |= leased
	st.Due, st.Attempts, st.Crashes, st.Kills, st.Left = fromSeconds(slot.due), int(slot.attempts), int(slot.crashes), int(slot.kills), slot.left
	f(st)
	x := &state{id: id, ver: slot.ver + 1, done: st.Left == 0, State: *st}
	s.mu.Unlock()
	s.prepare(x)
	return s.write1(x, true)
}
