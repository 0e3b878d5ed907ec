package delivery

import (
	"math/rand/v2"
	"time"
)

// allowed counts a message against the site's rate. q.mu is held.
func (q *Queue) allowed(st *site) bool {
	if st == nil || st.bounds.PerHour <= 0 {
		return true
	}
	now := q.o.Now()
	for len(st.hour) > 0 && now.Sub(st.hour[0]) > time.Hour {
		st.hour = st.hour[1:]
	}
	return len(st.hour) < st.bounds.PerHour
}

// join notes to which exchanger the mail of a lane goes.
func (q *Queue) join(l *lane, host string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l.site == nil || l.host != host {
		q.move(l, host)
	}
}

// move has a lane belong to the site that the settings say. q.mu is held.
func (q *Queue) move(l *lane, host string) {
	name, b := q.set.Load().siteOf(l.domain, host)
	l.host = host
	if l.site != nil && l.site.name == name {
		l.site.bounds = b
		l.site.window = min(l.site.window, b.PerSite)
		q.fix(l)
		return
	}
	q.leave(l)
	st := q.sites[name]
	if st == nil {
		st = &site{name: name, window: min(2, b.PerSite)}
		q.sites[name] = st
	}
	st.bounds = b
	st.lanes++
	l.site = st
	q.fix(l)
}

// leave takes a lane from its site. q.mu is held.
func (q *Queue) leave(l *lane) {
	if l.site == nil {
		return
	}
	delete(l.site.blocked, l)
	for w := l.site.idler(l); w != nil; w = l.site.idler(l) {
		close(w.next)
	}
	if l.site.lanes--; l.site.lanes == 0 {
		delete(q.sites, l.site.name)
	}
	l.site = nil
}

// Bounds of the pause of a destination that does not answer, or says that it is too much.
const (
	firstMiss = time.Minute
	mostMiss  = 30 * time.Minute
)

// reached notes that a destination took, or refused, a message: it is there, and may have one session more.
func (q *Queue) reached(l *lane) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l.misses, l.why, l.pause = 0, "", time.Time{}
	if st := l.site; st != nil {
		st.window = min(st.window+1, st.bounds.PerSite)
		q.unblock(st)
		if st.bounds.PerHour > 0 {
			st.hour = append(st.hour, q.o.Now())
			if !q.allowed(st) {
				l.pause = st.hour[0].Add(time.Hour)
			}
		}
	}
	q.fix(l)
	q.stir()
}

// missed notes that a destination was not reached, or wants less: nothing goes there for a while.
func (q *Queue) missed(l *lane, why string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l.why = why; l.misses == 0 || !q.o.Now().Before(l.pause) { // of sessions that began together one counts
		l.misses++
		p := min(firstMiss<<min(l.misses-1, 10), mostMiss)
		l.pause = q.o.Now().Add(p + time.Duration(rand.Int64N(int64(p)/4)))
	}
	if st := l.site; st != nil {
		st.window = max(1, st.window/2)
	}
	q.fix(l)
}
