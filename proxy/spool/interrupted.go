package spool

import (
	"fmt"
	"slices"
)

// says tells whether something stands in a file.
func (s *Spool) says(name string) bool {
	f, err := s.d.open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	n, err := f.size()
	return err == nil && n > 0
}

// interrupted counts, for each delivery that was being tried, that the program ended meanwhile, and puts those on hold that
// may be the cause. A crash, which the program itself reports, counts for all that were being tried; from then on they are
// tried one after the other, so that only who really causes it is met again. Who kills the program says nothing, as does the
// kernel when memory runs out: that counts, and less, for a delivery that was the only one.
func (r *replay) interrupted() error {
	s := r.s
	all, together := r.open()
	var last *op
	for _, id := range all {
		l, err := s.load(id, nil)
		if err != nil {
			continue // whoever leases it will find the same, and say so
		}
		st := l.State
		switch by := r.leases[id].by; {
		case r.crashed[by]:
			st.Crashes++
		case together[by] == 1:
			st.Kills++
		default:
			st.Kills = max(st.Kills, 1)
		}
		switch {
		case st.Crashes >= s.o.Crashes:
			st.Hold = fmt.Sprintf("the program crashed %d times while this was being delivered", st.Crashes)
		case st.Kills >= s.o.Kills:
			st.Hold = fmt.Sprintf("the program ended %d times while nothing but this was being delivered", st.Kills)
		}
		if st.Hold != "" {
			r.rep.SetAside = append(r.rep.SetAside, id)
		}
		it := Interrupted{ID: id, Message: l.Envelope.Message}
		for i := range l.Envelope.Rcpts {
			if l.Open(i) {
				it.To = append(it.To, l.Envelope.Rcpts[i].Address)
			}
		}
		r.rep.Interrupted = append(r.rep.Interrupted, it)
		n := l.next(&st)
		s.prepare(n)
		last = &op{kind: kState, meta: n.append(nil), sync: true, done: make(chan struct{})}
		last.landed = func(p place, g *segment) { s.stateLanded(n, p, g) }
		s.mu.Lock()
		err = s.push(last)
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	if last == nil {
		return nil
	}
	return last.await() // they are written in order
}

// open gives the deliveries whose try nobody ended, and how many each generation tried at once.
func (r *replay) open() (all []ID, together map[uint16]int) {
	together = map[uint16]int{}
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, t := range r.leases {
		if x := s.x.get(id); x != nil && x.ver == t.ver && x.flags&leased == 0 {
			all = append(all, id)
			together[t.by]++
		}
	}
	slices.Sort(all)
	return all, together
}
