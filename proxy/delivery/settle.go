package delivery

import (
	"container/heap"
	"errors"
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
	e, st := &t.l.Envelope, t.l.State
	age := now.Sub(e.Received)
	expired, late := age >= t.q.set.Load().Schedule.Until, age >= t.q.set.Load().Schedule.Delayed && !st.Delayed
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
			rep.Rcpts = append(rep.Rcpts, t.noticed(o, a, now))
		}
		t.res.Rcpts = append(t.res.Rcpts, *o)
	}
	st.Delayed = st.Delayed || late
	if st.Left != 0 {
		p := t.q.set.Load().Schedule.pause(st.Attempts)
		st.Due = now.Add(p + time.Duration(spread(t.l.ID, st.Attempts)*float64(p)/10))
		t.res.Next = st.Due
	}
	err := t.write(&st, &rep)
	if err != nil {
		t.q.alarm(err)
	}
	t.tell()
	t.q.settled(t.l.ID, t.ln.domain, st, err)
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

func (t *try) noticed(o *Outcome, action string, now time.Time) dsn.Rcpt {
	r := dsn.Rcpt{
		Original: o.Rcpt.ORcpt, Final: o.Rcpt.Address, Action: action, Status: o.Reply.Enh, RemoteMTA: o.Reply.Host, LastAttempt: now,
		Code: o.Reply.Code, Text: o.Reply.Text, Remote: o.Reply.Host != "",
	}
	class := uint16(5)
	switch {
	case action == dsn.Delayed:
		class = 4
		r.Until = t.l.Envelope.Received.Add(t.q.set.Load().Schedule.Until)
	case action == dsn.Relayed:
		class = 2
	case o.Fate == Expired:
		class, r.Expired = 4, true
		r.Status = smtp.Enhanced{4, 4, 7}
	}
	if r.Status[0] != class {
		r.Status = smtp.Enhanced{class, 0, 0}
	}
	return r
}

// write has the state on disk, with the notice in the same step where there is one.
func (t *try) write(st *spool.State, rep *dsn.Report) error {
	e := &t.l.Envelope
	to, ok := t.noticeTo()
	if len(rep.Rcpts) == 0 || !ok {
		return t.l.Settle(*st)
	}
	ids, err := t.notice(st, rep, to)
	if err == nil {
		t.res.Notice = ids[0]
		return nil
	}
	if errors.Is(err, spool.ErrBad) || errors.Is(err, spool.ErrClosed) {
		return err
	}
	// What happened must be written in any case; that nobody was told is for an operator to know.
	return errors.Join(errors.New("no notice could be made for message "+e.Message+": "+err.Error()), t.l.Settle(*st))
}

// noticeTo tells where a notice goes. Nobody hears of what became of a notice (RFC 5321 4.5.5).
func (t *try) noticeTo() (string, bool) {
	e := &t.l.Envelope
	switch {
	case e.From == "" || e.Class == spool.ClassNotice:
		return "", false
	case t.q.o.Senders != nil:
		return t.q.o.Senders.NoticeTo(e)
	}
	return e.From, e.Verified
}

// notice commits a notice together with what it is about.
func (t *try) notice(st *spool.State, rep *dsn.Report, to string) ([]spool.ID, error) {
	e := &t.l.Envelope
	rep.Reporter, rep.To, rep.EnvID, rep.Arrived, rep.Message = t.q.o.Name, to, e.EnvID, e.Received, e.Message
	rep.ID, rep.Now, rep.From = t.l.ID.String()+"."+e.Message, t.q.o.Now(), e.From
	body, err := t.l.Body()
	if err == nil {
		defer body.Release()
		rep.Original, rep.Full, err = returned(body, e.Ret)
	}
	if err != nil {
		return nil, err
	}
	text, err := rep.Make()
	if err != nil {
		return nil, err
	}
	made, err := smtp.BodyFromBytes(text)
	if err != nil {
		return nil, err
	}
	defer made.Release()
	d, err := t.q.s.Create()
	if err != nil && !errors.Is(err, spool.ErrFull) {
		return nil, err
	}
	if d == nil {
		return nil, err
	}
	env := &spool.Envelope{
		Message: e.Message, User: e.User, UserName: e.UserName, Received: t.q.o.Now(), Class: spool.ClassNotice,
		Rcpts: []spool.Rcpt{{Address: to, Notify: smtp.NotifyNever}}, UTF8: rep.UTF8(),
	}
	return t.l.SettleWith(*st, d, env, made)
}

// mostReturned bounds what of a message goes back with a notice.
const mostReturned = 64 << 10

// returned gives what of the message a notice holds: all where that was asked for and it is small, else its header.
func returned(b *smtp.Body, ret string) (text []byte, full bool, err error) {
	n := b.HeaderLen()
	if full = ret == "FULL" && b.Size() <= mostReturned && b.Canonical(); full {
		n = b.Size()
	}
	text = make([]byte, min(n, mostReturned))
	if len(text) == 0 {
		return text, full, nil
	}
	_, err = b.ReadAt(text, 0)
	return text, full, err
}

// settled has the delivery wait for its next try, or does what an operator wished meanwhile.
func (q *Queue) settled(id spool.ID, domain string, st spool.State, err error) {
	q.mu.Lock()
	wish := q.wishes[id]
	delete(q.wishes, id)
	q.mu.Unlock()
	if err != nil || st.Left == 0 {
		return
	}
	if wish != nil {
		if err := wish(); err == nil || errors.Is(err, spool.ErrUnknown) {
			return
		}
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
	var old []spool.ID
	keep := all[:0]
	for _, it := range all {
		d, err := q.s.Get(it.id)
		if err != nil {
			continue
		}
		age := now.Sub(d.Born)
		if !d.Held && (age >= q.set.Load().Schedule.Until || age >= q.set.Load().Schedule.Delayed && !d.Delayed) {
			old = append(old, it.id)
			continue
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
}
