package delivery

import (
	"container/heap"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"sluice/proxy/dsn"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

// settle writes down what became of the try, with the notice that follows from it, before anybody forgets it.
func (t *try) settle() {
	now := t.q.o.Now()
	t.res.Took = now.Sub(t.res.At)
	if t.l == nil { // it was set aside
		t.tell()
		return
	}
	t.gather()
	e, st := &t.l.Envelope, t.l.State
	age := now.Sub(e.Received)
	expired, late := age >= t.q.set.Load().Schedule.Until, age >= t.q.set.Load().Schedule.Delayed && !st.Delayed
	late = late && !t.l.Several() // else the last of them tells of all
	st.Attempts++
	st.Crashes, st.Kills, st.Last, st.Note, st.Replies = 0, 0, t.res.At, t.res.Note, nil
	var rep dsn.Report
	for _, i := range t.asked {
		o := &t.told[i]
		if o.Fate == Deferred && expired {
			o.Fate = Expired
		}
		if o.Fate == Deferred {
			r := o.Reply
			r.Rcpt = i
			st.Replies = append(st.Replies, r)
		} else {
			st.Left &^= 1 << uint(i)
		}
		if a := t.action(o, late); a != "" {
			rep.Rcpts = append(rep.Rcpts, t.q.noticed(e, o, a, now))
		}
		t.res.Rcpts = append(t.res.Rcpts, *o)
	}
	st.Delayed = st.Delayed || late
	if st.Left != 0 {
		p := t.q.set.Load().Schedule.pause(st.Attempts)
		st.Due = now.Add(p + time.Duration(spread(t.l.ID, st.Attempts)*float64(p)/10))
		t.res.Next = st.Due
	}
	if t.waits(&st, &rep, now) {
		t.owe(&st, &rep, now)
	}
	var err error
	if t.res.Notice, err = t.q.write(t.l, &st, &rep); err != nil {
		t.q.alarm(err)
	}
	t.tell()
	t.q.settled(t.l.ID, t.ln.domain, st, err)
	t.q.together(t.l)
}

func (t *try) tell() {
	if t.q.o.Log != nil {
		t.q.o.Log.Tried(&t.res)
	}
}

// action tells what the sender is to hear of a recipient, "" for nothing (RFC 3461 5.2).
func (t *try) action(o *Outcome, late bool) string {
	n := o.Rcpt.Notify
	switch {
	case (o.Fate == Failed || o.Fate == Expired) && (n == 0 || n&smtp.NotifyFailure != 0):
		return dsn.Failed
	case o.Fate == Deferred && late && (n == 0 || n&smtp.NotifyDelay != 0):
		return dsn.Delayed
	case o.Fate == Relayed:
		return dsn.Relayed
	}
	return ""
}

// unleased is what becomes of a delivery that could not be leased: somebody else has it or it is gone, or an operator hears.
func (q *Queue) unleased(id spool.ID, err error) {
	switch {
	case errors.Is(err, spool.ErrUnknown), errors.Is(err, spool.ErrHeld), errors.Is(err, spool.ErrDamaged), errors.Is(err, spool.ErrClosed):
	case errors.Is(err, spool.ErrBad):
		q.mu.Lock()
		q.stopped = true // what would come of tries could not be written
		q.mu.Unlock()
	default: // an operator's command has it for a moment, or its file could not be opened
		if d, gerr := q.s.Get(id); gerr == nil {
			q.put(d.Domain, id, q.o.Now().Add(time.Minute))
		}
	}
}

// panicked puts a message on hold that brought a mistake of ours to light.
func (q *Queue) panicked(l *spool.Lease, cause any) {
	if q.o.Panicked != nil {
		q.o.Panicked(l.ID, cause, debug.Stack())
	}
	st := l.State
	st.Hold = fmt.Sprintf("a mistake of ours while it was tried: %v", cause)
	if err := l.Settle(st); err != nil {
		q.alarm(err)
	}
}

// wished does what an operator wished of a delivery while it was not to be had, where there is one still, and whether it went well.
func (q *Queue) wished(id spool.ID, there bool) bool {
	q.mu.Lock()
	wish := q.wishes[id]
	delete(q.wishes, id)
	q.mu.Unlock()
	if wish == nil || !there {
		return false
	}
	err := wish()
	return err == nil || errors.Is(err, spool.ErrUnknown)
}

// settled has the delivery wait for its next try, or does what an operator wished meanwhile.
func (q *Queue) settled(id spool.ID, domain string, st spool.State, err error) {
	if wished := q.wished(id, err == nil && st.Left != 0); wished || err != nil || st.Left == 0 {
		return
	}
	if st.Owed() {
		domain = reports
	}
	if st.Hold == "" {
		q.put(domain, id, st.Due)
	}
}

// sweepEvery is how often the deliveries of a dead destination are looked through for those whose sender must hear of it.
const sweepEvery = 10 * time.Minute

// overdue settles what has waited for too long in a lane whose destination was just found dead, without trying each.
func (q *Queue) overdue(l *lane, why string) {
	now := q.o.Now()
	q.mu.Lock()
	if now.Sub(l.swept) < sweepEvery {
		q.mu.Unlock()
		return
	}
	l.swept = now
	all := l.items
	l.items = nil
	q.mu.Unlock()
	var old, late []spool.ID
	keep := all[:0]
	for _, it := range all {
		d, err := q.s.Get(it.id)
		if err != nil {
			continue
		}
		expired, tell := now.Sub(d.Born) >= q.set.Load().Schedule.Until, q.late(d.Born) && !d.Delayed
		switch {
		case d.Held:
		case expired, tell && !d.Several:
			old = append(old, it.id)
			continue
		case tell:
			late = append(late, it.id)
		}
		keep = append(keep, it)
	}
	q.mu.Lock()
	l.items = append(keep, l.items...)
	heap.Init(&l.items)
	q.fix(l)
	q.mu.Unlock()
	for i, id := range old {
		if q.ctx.Err() != nil {
			for _, left := range old[i:] {
				q.put(l.domain, left, now)
			}
			return
		}
		q.one(l, id, why, nil)
	}
	for _, id := range late {
		if m, err := q.s.Look(id); err == nil {
			q.together(m)
		}
	}
}
