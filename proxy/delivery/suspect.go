package delivery

import (
	"time"

	"sluice/proxy/spool"
)

// suspectTurn bounds how long the others wait for one: what crashes a program does it soon, and a slow destination is no crime.
const suspectTurn = 5 * time.Second

// suspects are deliveries during whose last try the program ended. One of them is tried at a time, so that it is known which
// it was should it end again; the others wait beside their lanes and delay nobody. Queue.mu is held for all of it.
type suspects struct {
	are     map[spool.ID]struct{}
	onTurn  spool.ID            // the one that is being tried; 0: none
	most    time.Duration       // that the others wait for it
	waiting map[spool.ID]string // those that were due meanwhile, with the lane's domain
}

func (q *Queue) suspect(id spool.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.are == nil {
		q.are, q.waiting = map[spool.ID]struct{}{}, map[spool.ID]string{}
	}
	q.are[id] = struct{}{}
}

// turnOf tells whether a delivery may be tried now, and what must be called behind that where it is not nil. One that may not
// comes again by itself.
func (q *Queue) turnOf(l *lane, id spool.ID) (end func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, is := q.are[id]; !is {
		return nil, true
	}
	if q.onTurn != 0 {
		q.waiting[id] = l.domain
		return nil, false
	}
	q.onTurn = id
	t := time.AfterFunc(q.most, func() { q.endTurn(id) })
	return func() {
		t.Stop()
		q.mu.Lock()
		delete(q.are, id)
		q.mu.Unlock()
		q.endTurn(id)
	}, true
}

// endTurn has the next suspect be tried.
func (q *Queue) endTurn(id spool.ID) {
	q.mu.Lock()
	if q.onTurn != id {
		q.mu.Unlock()
		return
	}
	q.onTurn = 0
	var next spool.ID
	domain := ""
	for next, domain = range q.waiting {
		delete(q.waiting, next)
		break
	}
	q.mu.Unlock()
	if next != 0 {
		q.put(domain, next, q.o.Now())
	}
}
