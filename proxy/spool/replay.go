package spool

import (
	"encoding/binary"
	"slices"
)

// record takes one record. s.mu is held.
func (r *replay) record(g *segment, f *found) {
	at := place{g.key, uint32(f.pos), uint32(f.head.size())}
	switch f.head.kind {
	case kEntry:
		if e, ok := parseEntry(f.meta); ok {
			r.entry(e, at, g)
		}
	case kState:
		if st, ok := parseState(f.meta); ok {
			r.state(st, at, g)
		}
	case kSeal:
		g.suspect = false
	case kLease:
		if len(f.meta) >= 12 {
			id := ID(binary.LittleEndian.Uint64(f.meta))
			if t := (tried{binary.LittleEndian.Uint32(f.meta[8:]), g.head.tag}); t.ver >= r.leases[id].ver {
				r.leases[id] = t
			}
		}
	}
}

func (r *replay) entry(e *entry, at place, g *segment) {
	s := r.s
	own := map[ID]bool{}
	for _, st := range e.states {
		own[st.id] = true
	}
	isLive := func(id ID) bool { return e.move == 0 || slices.Contains(e.live, id) }
	for i := range e.parts {
		id := e.first.nth(i)
		x := s.x.get(id)
		if o := s.orphans[id]; o != nil && o.st.done && r.gone[id] == nil {
			r.gone[id] = o.pin
		}
		if r.gone[id] != nil {
			r.copies = append(r.copies, copied{id, g})
			continue
		}
		switch {
		case !isLive(id):
			// Another record says that it is done, or none that is left does any more.
			continue
		case x == nil:
			s.place(e, i, at)
			r.news = append(r.news, id)
		case x.move < e.move:
			s.outdates(g.key, x.at.seg)
			if x.state == x.at { // its latest state stood in the older record; the newer one has it, too
				x.state = place{}
			}
			x.at, x.move = at, e.move
		default:
			s.outdates(x.at.seg, g.key)
		}
		if e.tail > 0 {
			r.tails[e.tailID] = e.first
		}
	}
	for _, st := range e.states {
		r.state(st, at, g)
	}
}

// outdates notes that segment by says something about a record in old that must not be forgotten before that. s.mu is held.
func (s *Spool) outdates(by, old uint32) {
	if g := s.segs[by]; g != nil && by != old {
		g.refs[old] = struct{}{}
	}
}

func (r *replay) state(st *state, at place, g *segment) {
	s := r.s
	x := s.x.get(st.id)
	switch {
	case x == nil:
		if o := r.late[st.id]; !st.done && (o == nil || o.st.ver < st.ver) {
			st.Replies, st.Note = nil, "" // they are read again when they are asked for
			r.late[st.id] = &orphan{st: st, at: at}
		}
		if st.done {
			r.isGone(st.id, g)
		}
	case st.done:
		r.isGone(st.id, g)
		r.copies = append(r.copies, copied{st.id, s.segs[x.at.seg]})
		s.forget(x, nil)
	case st.ver > x.ver || st.ver == x.ver && x.state.size == 0:
		s.stateLanded(st, at, g)
	}
}

func (r *replay) isGone(id ID, g *segment) {
	if by := r.gone[id]; by == nil || by.head.stamp < g.head.stamp {
		r.gone[id] = g
	}
}

// weigh adds up anew what counts in each segment. s.mu is held.
func (s *Spool) weigh() {
	for _, g := range s.segs {
		g.live = 0
	}
	shared := map[place]bool{}
	s.x.each(0, func(x *slot) bool {
		if x.flags&many == 0 || !shared[x.at] {
			s.segs[x.at.seg].live += int64(x.at.size)
		}
		if x.flags&many != 0 {
			shared[x.at] = true
		}
		if x.state != x.at && x.state.size > 0 {
			s.segs[x.state.seg].live += int64(x.state.size)
		}
		return true
	})
}

// bury sees to it that what says of a delivery that it is done lasts as long as the last record of it. Where that record is
// the younger one, which happens when an entry is written anew just while it is settled, it is said once more: else the
// two segments could wait for each other. So it is where it may stand in memory only.
func (r *replay) bury() error {
	s := r.s
	var last *op
	for _, c := range r.copies {
		by := r.gone[c.id]
		if by == c.seg && !by.suspect {
			continue
		}
		s.mu.Lock()
		if by.head.stamp > c.seg.head.stamp && !by.suspect {
			by.refs[c.seg.key] = struct{}{}
			s.mu.Unlock()
			continue
		}
		x := &state{id: c.id, done: true}
		last = &op{kind: kState, meta: x.append(nil), sync: true, done: make(chan struct{})}
		last.landed = func(_ place, g *segment) { g.refs[c.seg.key] = struct{}{} }
		err := s.push(last)
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	if last == nil {
		return nil
	}
	return last.await()
}
