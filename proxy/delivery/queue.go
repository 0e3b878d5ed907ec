package delivery

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"sluice/proxy/spool"
)

// Queue delivers what a spool holds. It is safe for concurrent use.
type Queue struct {
	o     Options
	set   atomic.Pointer[Settings]
	s     *spool.Spool
	ctx   context.Context
	wake  chan struct{}
	ended chan struct{}

	mu      sync.Mutex
	lanes   map[string]*lane
	ready   laneHeap
	sites   map[string]*site
	running int
	stopped bool
	work    sync.WaitGroup
	turn    uint64 // counts workers that began
	wishes  map[spool.ID]func() error
	linger  time.Duration
	suspects
}

// lane holds the deliveries for one domain.
type lane struct {
	domain string
	items  itemHeap
	active int
	site   *site  // as of the last route
	host   string // the best exchanger then
	pause  time.Time
	misses int    // tries in a row that did not reach the destination
	why    string // of the last
	turn   uint64 // when it was served last
	at     int    // in the heap; -1: not there
	swept  time.Time
}

// site is what lanes share whose mail goes to the same hosts.
type site struct {
	name   string
	bounds Bounds
	active int
	window int         // sessions at once for now
	hour   []time.Time // of its last messages, where their number is bounded
	lanes  int
	// blocked are lanes that have work and wait for one of the sessions to end.
	blocked map[*lane]struct{}
	idle    []*idler // of its lanes, who waits longest first
}

// item is a delivery that waits.
type item struct {
	id  spool.ID
	due uint32 // seconds since base
}

var base = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

type itemHeap []item

func (h itemHeap) Len() int { return len(h) }
func (h itemHeap) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].id < h[j].id
}
func (h itemHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *itemHeap) Push(x any)   { *h = append(*h, x.(item)) }
func (h *itemHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// laneHeap orders lanes by when they have something to do, and those that have by who waited longest.
type laneHeap []*lane

func (h laneHeap) Len() int { return len(h) }
func (h laneHeap) Less(i, j int) bool {
	a, b := h[i].next(), h[j].next()
	return a.Before(b) || a.Equal(b) && h[i].turn < h[j].turn
}
func (h laneHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].at, h[j].at = i, j }
func (h *laneHeap) Push(x any)   { l := x.(*lane); l.at = len(*h); *h = append(*h, l) }
func (h *laneHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	*h, l.at = old[:len(old)-1], -1
	return l
}

// next is when the lane has something to do.
func (l *lane) next() time.Time {
	t := base.Add(time.Duration(l.items[0].due) * time.Second)
	if t.Before(l.pause) {
		return l.pause
	}
	return t
}

// New makes a queue. Until Start it only gathers what Arrived tells.
func New(o Options) *Queue {
	o.fill()
	q := &Queue{o: o, wake: make(chan struct{}, 1), ended: make(chan struct{}),
		lanes: map[string]*lane{}, sites: map[string]*site{}, wishes: map[spool.ID]func() error{}}
	q.set.Store(&q.o.Settings)
	q.most, q.linger = suspectTurn, lingerFor
	return q
}

// Arrived takes a delivery that is new in the spool; it serves as spool.Options.Arrived.
func (q *Queue) Arrived(d *spool.Delivery) {
	if d.Held {
		return
	}
	if d.Owed {
		q.put(reports, d.ID, d.Due)
		return
	}
	if d.Suspect {
		q.suspect(d.ID)
	}
	q.put(d.Domain, d.ID, d.Due)
}

// put has a delivery wait in its lane.
func (q *Queue) put(domain string, id spool.ID, due time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lane(domain)
	heap.Push(&l.items, item{id, uint32(max(0, due.Sub(base)/time.Second))})
	called := !l.next().After(q.o.Now()) && q.call(l)
	q.fix(l)
	if !called {
		q.stir()
	}
}

// lane gives the lane of a domain. q.mu is held.
func (q *Queue) lane(domain string) *lane {
	key := laneOf(domain)
	l := q.lanes[key]
	if l == nil {
		l = &lane{domain: key, at: -1}
		q.lanes[key] = l
	}
	return l
}

// fix puts a lane where it belongs in the order. q.mu is held.
func (q *Queue) fix(l *lane) {
	switch {
	case len(l.items) == 0 || l.active >= q.width(l):
		if l.at >= 0 {
			heap.Remove(&q.ready, l.at)
		}
		if st := l.site; st != nil && len(l.items) > 0 && st.active >= st.window {
			if st.blocked == nil {
				st.blocked = map[*lane]struct{}{}
			}
			st.blocked[l] = struct{}{}
			st.makeRoom()
		}
	case l.at < 0:
		heap.Push(&q.ready, l)
	default:
		heap.Fix(&q.ready, l.at)
	}
	if len(l.items) == 0 && l.active == 0 {
		q.leave(l)
		delete(q.lanes, l.domain)
	}
}

// width is how many sessions a lane may have. q.mu is held.
func (q *Queue) width(l *lane) int {
	switch {
	case l.misses > 0 || l.site == nil:
		return 1 // one tries what is there
	case l.site.active >= l.site.window:
		return l.active
	}
	return l.site.bounds.PerSite
}

// perWay is how many messages a session with the site of a lane may have.
func (q *Queue) perWay(l *lane) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l.site == nil {
		return 1
	}
	return l.site.bounds.PerWay
}

// stir has the dispatcher look. q.mu may be held.
func (q *Queue) stir() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Start delivers from s until ctx ends; Stop waits for what is then under way.
func (q *Queue) Start(ctx context.Context, s *spool.Spool) {
	q.s, q.ctx = s, ctx
	go q.dispatch()
}

// Stop waits until no try is under way any more, or ctx ends. Start's context must have ended.
func (q *Queue) Stop(ctx context.Context) {
	<-q.ended
	done := make(chan struct{})
	go func() { q.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// dispatch starts workers as lanes have something to do.
func (q *Queue) dispatch() {
	defer close(q.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := q.begin()
		timer.Reset(wait)
		select {
		case <-q.wake:
		case <-timer.C:
		case <-q.ctx.Done():
			q.mu.Lock()
			q.stopped = true
			q.mu.Unlock()
			return
		}
	}
}

// begin starts as many workers as there is work for and room, and returns how long to wait for more.
func (q *Queue) begin() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.ready) > 0 && !q.stopped && q.running < q.set.Load().AtOnce {
		l := q.ready[0]
		if wait := l.next().Sub(q.o.Now()); wait > 0 {
			return wait
		}
		q.turn++
		l.turn = q.turn
		if q.call(l) {
			q.fix(l)
			continue
		}
		first := heap.Pop(&l.items).(item)
		l.active++
		q.running++
		st := l.site
		if st != nil {
			st.active++
		}
		q.fix(l)
		q.work.Add(1)
		go q.serve(l, st, first)
	}
	return time.Hour
}

// serve is a worker: it tries one delivery of the lane after another, as long as all goes well.
func (q *Queue) serve(l *lane, st *site, it item) {
	defer q.work.Done()
	h := &hold{q: q}
	defer h.drop()
	for n, more := 1, true; more; n++ {
		good := q.one(l, it.id, "", h)
		q.mu.Lock()
		if st == nil && l.site != nil && l.site.active < l.site.window { // it was the first try of the lane
			st = l.site
			st.active++
		}
		it, more = q.another(l, st, h, good && st != nil && n < st.bounds.PerWay)
		if !more {
			l.active--
			q.running--
			if st != nil {
				st.active--
			}
			q.unblock(st)
		}
		q.fix(l)
		q.mu.Unlock()
	}
	q.stir()
}

// another gives the worker of a lane its next delivery, for which it may wait; false: it is to end. q.mu is held.
func (q *Queue) another(l *lane, st *site, h *hold, may bool) (item, bool) {
	most := q.set.Load().AtOnce
	if !may || st.active > st.bounds.PerSite || q.stopped || q.running >= most || l.misses > 0 || l.site != st || !q.allowed(st) {
		return item{}, false
	}
	if len(l.items) > 0 && !l.next().After(q.o.Now()) {
		return heap.Pop(&l.items).(item), true
	}
	if h.s == nil || len(st.blocked) > 0 || q.running > most/2 {
		return item{}, false
	}
	return q.wait(l, st)
}

// unblock has the lanes of a site look again whether they may have a session. q.mu is held.
func (q *Queue) unblock(st *site) {
	if st == nil || st.active >= st.window {
		return
	}
	blocked := st.blocked
	st.blocked = nil
	for l := range blocked {
		q.fix(l)
	}
}

func (q *Queue) rand(n int, swap func(i, j int)) { rand.Shuffle(n, swap) }

func reheap(l *lane) { heap.Init(&l.items) }
