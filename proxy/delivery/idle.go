package delivery

import (
	"container/heap"
	"slices"
	"time"
)

// lingerFor is how long a worker whose lane has nothing to do keeps its session for what may come: messages that come in one
// after the other share sessions and workers.
const lingerFor = time.Second

// idler is a worker that waits for the next delivery of its lane. Its session stands open and counts as one in use.
type idler struct {
	l    *lane
	next chan item // has room for one; closed: it is to end
}

// wait has the worker of a lane wait for a delivery; false: it is to end. q.mu is held, but not while it waits.
func (q *Queue) wait(l *lane, st *site) (item, bool) {
	w := &idler{l, make(chan item, 1)}
	st.idle = append(st.idle, w)
	q.mu.Unlock()
	t := time.NewTimer(q.linger)
	defer t.Stop()
	select {
	case it, ok := <-w.next:
		q.mu.Lock()
		return it, ok
	case <-t.C:
	case <-q.ctx.Done():
	}
	q.mu.Lock()
	if i := slices.Index(st.idle, w); i >= 0 {
		st.idle = slices.Delete(st.idle, i, i+1)
		return item{}, false
	}
	it, ok := <-w.next // it was called just now
	return it, ok
}

// idler takes out the worker of a lane that has waited for the shortest time; nil where none waits. q.mu is held.
func (st *site) idler(l *lane) *idler {
	for i := len(st.idle) - 1; i >= 0; i-- {
		if w := st.idle[i]; w.l == l {
			st.idle = slices.Delete(st.idle, i, i+1)
			return w
		}
	}
	return nil
}

// call gives what a lane has due first to a worker that waits; false where none does. q.mu is held.
func (q *Queue) call(l *lane) bool {
	if l.site == nil || len(l.site.idle) == 0 || q.stopped || !q.allowed(l.site) {
		return false
	}
	w := l.site.idler(l)
	if w == nil {
		return false
	}
	w.next <- heap.Pop(&l.items).(item)
	return true
}

// makeRoom ends a worker that waits, for a lane that has work for a session. q.mu is held.
func (st *site) makeRoom() {
	if len(st.idle) > 0 {
		close(st.idle[0].next)
		st.idle = slices.Delete(st.idle, 0, 1)
	}
}
