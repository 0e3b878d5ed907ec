package spool

import (
	"errors"
	"fmt"
	"os"
)

// smallSegment is what is not worth a file of its own once its writer is gone.
const smallSegment = 1 << 20

// tidySoon has the folder looked through.
func (s *Spool) tidySoon() {
	select {
	case s.tidying <- struct{}{}:
	default:
	}
}

// tidy removes segments of which nothing counts any more and writes anew what is left of those of which little does.
func (s *Spool) tidy() {
	defer close(s.tidied)
	for {
		select {
		case <-s.tidying:
		case <-s.quit:
			return
		}
		for s.Err() == nil {
			more, err := s.tidyOnce()
			if err != nil && s.Err() == nil && s.o.Alarm != nil {
				s.o.Alarm(fmt.Errorf("could not tidy up the spool: %w; it grows until that is mended", err))
			}
			if err != nil || !more {
				break
			}
		}
	}
}

// tidyOnce removes what is done and empties one segment; more tells that there may be others. What is being taken over is
// left alone: as long as not all is read nobody knows what counts.
func (s *Spool) tidyOnce() (more bool, err error) {
	s.takeMu.Lock()
	defer s.takeMu.Unlock()
	if err := s.removeDone(); err != nil {
		return false, err
	}
	g := s.sparse()
	if g == nil {
		return false, nil
	}
	return true, s.empty(g)
}

// removable tells whether nothing would be lost with g. s.mu is held.
func (s *Spool) removable(g *segment) bool {
	if !g.sealed || g.live > 0 || g.pins > 0 || s.suspects(g) {
		return false
	}
	for key := range g.refs {
		if s.segs[key] != nil {
			return false
		}
		delete(g.refs, key)
	}
	return true
}

// suspects tells whether another segment holds something that counts and may not be on disk. s.mu is held.
func (s *Spool) suspects(but *segment) bool {
	for _, g := range s.segs {
		if g.suspect && g.live > 0 && g != but {
			return true
		}
	}
	return false
}

// removeDone removes all segments of which nothing counts. One that says what became of records in another goes only after
// it is certain that the other will not come back.
func (s *Spool) removeDone() error {
	for {
		var out []*segment
		s.mu.Lock()
		if s.half { // nobody knows what counts
			s.mu.Unlock()
			return nil
		}
		for _, g := range s.segs {
			if s.removable(g) {
				out = append(out, g)
			}
		}
		s.mu.Unlock()
		if len(out) == 0 {
			return s.unlockDone()
		}
		for _, g := range out {
			err := errors.Join(g.close(), s.d.remove(g.name+suffixSeg))
			if ierr := s.d.remove(g.name + suffixIdx); ierr != nil && !errors.Is(ierr, os.ErrNotExist) {
				err = errors.Join(err, ierr)
			}
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if err := s.d.syncDir(); err != nil {
			return s.failed(syncFailed{err})
		}
		s.mu.Lock()
		for _, g := range out {
			delete(s.segs, g.key)
		}
		s.mu.Unlock()
	}
}

// unlockDone gives up the tags of which nothing is left.
func (s *Spool) unlockDone() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := map[uint16]bool{}
	for _, g := range s.segs {
		used[g.head.tag] = true
	}
	for tag, c := range s.taken {
		if used[tag] || s.tails[tag] > 0 {
			continue
		}
		delete(s.taken, tag)
		if err := errors.Join(s.d.remove(lockName(tag)), c.Close()); err != nil {
			return err
		}
	}
	return nil
}

// sparse picks a sealed segment that is worth being emptied, nil if there is none: one of which little counts, or which is
// all that keeps many others.
func (s *Spool) sparse() *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	var idle, live int64
	var keeper *segment
	if s.half {
		return nil
	}
	for _, g := range s.segs {
		live += g.live
		if !g.sealed || g.live > 0 && g.kept {
			continue
		}
		switch {
		case g.live == 0 && g.pins == 0:
			idle += g.size
		case g.live > 0 && (g.suspect || g.live*4 < g.size || g.head.tag != s.tag && g.live < smallSegment):
			return g
		case g.live > 0 && (keeper == nil || g.head.stamp < keeper.head.stamp):
			keeper = g
		}
	}
	if idle > max(live, 2*s.o.SegmentSize) {
		return keeper
	}
	return nil
}

// empty writes what counts in g anew, so that it can be removed.
func (s *Spool) empty(g *segment) error {
	for from := uint32(0); ; {
		var some []ID
		s.mu.Lock()
		next := s.x.each(from, func(x *slot) bool {
			if x.at.seg == g.key || x.state.seg == g.key && x.state.size > 0 {
				some = append(some, x.id)
			}
			return len(some) < 256
		})
		s.mu.Unlock()
		for _, id := range some {
			if err := s.move(id, g); err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrDamaged) {
				return err
			}
		}
		if next == 0 {
			break
		}
		from = next
	}
	s.mu.Lock()
	g.kept = true // what could not be read stays where it is
	s.mu.Unlock()
	return nil
}

// move writes anew what of a delivery stands in g: its entry, with the state of all deliveries of it, or its state alone.
func (s *Spool) move(id ID, g *segment) error {
	s.mu.Lock()
	x := s.x.get(id)
	if x == nil {
		s.mu.Unlock()
		return nil
	}
	cp, stateSeg := *x, s.segs[x.state.seg]
	s.mu.Unlock()
	switch {
	case cp.at.seg == g.key:
		return s.moveEntry(&cp, g)
	case cp.state.seg == g.key && cp.state.size > 0:
		return s.moveState(&cp, stateSeg)
	}
	return nil
}

func (s *Spool) moveState(x *slot, from *segment) error {
	meta, err := readMeta(from, x.state)
	if err != nil {
		return err
	}
	st, ok := stateIn(meta, x.id)
	if !ok {
		return ErrDamaged
	}
	o := &op{kind: kState, meta: st.append(nil), sync: true, mail: true, done: make(chan struct{})}
	o.landed = func(p place, g *segment) {
		if now := s.x.get(x.id); now != nil && now.state == x.state { // else there is a newer one
			s.dead(now.state)
			now.state = p
			g.live += int64(p.size)
		}
	}
	return s.do(o)
}

func (s *Spool) do(o *op) error {
	s.mu.Lock()
	err := s.push(o)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return o.await()
}

func (s *Spool) moveEntry(x *slot, from *segment) error {
	meta, err := readMeta(from, x.at)
	if err != nil {
		return err
	}
	e, ok := parseEntry(meta)
	if !ok {
		return ErrDamaged
	}
	body := make([]byte, e.size-e.tail)
	if err := readBody(from, x.at, body); err != nil {
		return err
	}
	e.move++
	e.states, e.live = nil, nil
	s.mu.Lock()
	for i := range e.parts {
		if p := s.x.get(e.first.nth(i)); p != nil {
			e.live = append(e.live, p.id)
		}
	}
	s.mu.Unlock()
	read := make(map[ID]place, len(e.live))
	for _, id := range e.live {
		st, at, err := s.stateOf(id)
		if err != nil && !errors.Is(err, ErrUnknown) {
			return err
		}
		if st != nil {
			e.states, read[id] = append(e.states, st), at
		}
	}
	o := &op{kind: kEntry, meta: e.append(nil), body: [2][]byte{body}, bodySum: sumOf(body, nil), sync: true, mail: true, done: make(chan struct{})}
	var gone []ID
	var to uint32
	o.landed = func(p place, g *segment) {
		if gone = s.moved(e, p, read); len(gone) < len(e.live) {
			g.live += int64(p.size)
		}
		if from.key != g.key {
			g.refs[from.key] = struct{}{}
		}
		to = g.key
	}
	if err := s.do(o); err != nil {
		return err
	}
	// What was settled while the entry was on its way is said once more, of the new record.
	for _, id := range gone {
		x := &state{id: id, done: true}
		o := &op{kind: kState, meta: x.append(nil), sync: true, done: make(chan struct{})}
		o.landed = func(_ place, g *segment) {
			if g.key != to {
				g.refs[to] = struct{}{}
			}
		}
		if err := s.do(o); err != nil {
			return err
		}
	}
	return nil
}

// stateOf reads the state of a delivery and where it stands; nil where there is none yet.
func (s *Spool) stateOf(id ID) (*state, place, error) {
	for {
		s.mu.Lock()
		x := s.x.get(id)
		if x == nil {
			s.mu.Unlock()
			return nil, place{}, ErrUnknown
		}
		at, g := x.state, s.segs[x.state.seg]
		s.mu.Unlock()
		if at.size == 0 {
			return nil, at, nil
		}
		meta, err := readMeta(g, at)
		if errors.Is(err, errRemoved) {
			continue
		}
		if err != nil {
			return nil, at, err
		}
		st, ok := stateIn(meta, id)
		if !ok {
			return nil, at, ErrDamaged
		}
		return st, at, nil
	}
}

// moved has the deliveries of e stand at p with the states that were read at their places, and returns those that are
// done. s.mu is held.
func (s *Spool) moved(e *entry, p place, read map[ID]place) (gone []ID) {
	for i, id := range e.live {
		x := s.x.get(id)
		if x == nil {
			gone = append(gone, id)
			continue
		}
		old := x.at
		if i == len(gone) { // the first that is left: the old record counts no more
			s.dead(old)
		}
		if at, was := read[id]; was && at == x.state {
			if at != old {
				s.dead(at)
			}
			x.state = p
		}
		x.at, x.move = p, e.move
	}
	return gone
}
