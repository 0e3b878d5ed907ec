package delivery

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"sluice/proxy/dsn"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

// A message to several domains is several deliveries, but its sender hears of what failed in one notice: a delivery that is over
// keeps what he is to hear, on disk, while others of the message are being tried. Whoever is the last of them tells all; where
// that takes longer than patience, the notice goes without the others.

// patience is how long at most what failed waits for what else of the message is being tried.
const patience = 2 * time.Minute

// reports is the lane, of no domain, of deliveries of which only the notice is left.
const reports = "\x00notices"

// waits tells whether all that is left of the delivery is to tell of failures, and others of the message are being tried.
func (t *try) waits(st *spool.State, rep *dsn.Report, now time.Time) bool {
	if st.Left != 0 || len(rep.Rcpts) == 0 || !t.l.Several() || slices.ContainsFunc(rep.Rcpts, func(r dsn.Rcpt) bool { return r.Action != dsn.Failed }) {
		return false
	}
	_, ok := t.q.noticeTo(&t.l.Envelope)
	return ok && t.q.passing(t.l, now)
}

// passing tells whether another delivery of the message is being tried, or just came to be due.
func (q *Queue) passing(l *spool.Lease, now time.Time) (is bool) {
	l.Each(func(d *spool.Delivery) bool {
		is = d.ID != l.ID && (d.Leased || !d.Held && !d.Owed && !d.Due.After(now) && now.Sub(d.Due) < patience)
		return !is
	})
	return is
}

// owe keeps what the report says in the state.
func (t *try) owe(st *spool.State, rep *dsn.Report, now time.Time) {
	for _, i := range t.asked {
		o := &t.told[i]
		if t.action(o, false) != dsn.Failed {
			continue
		}
		r := o.Reply
		r.Rcpt, r.Final, r.Expired = i, true, o.Fate == Expired
		st.Left |= 1 << uint(i)
		st.Replies = append(st.Replies, r)
	}
	st.Due, st.Note = now.Add(patience), "failed; the sender hears of it with what becomes of the message's other recipients"
	rep.Rcpts = nil
}

// owing moves what the state keeps for a report into that.
func (q *Queue) owing(l *spool.Lease, st *spool.State, rep *dsn.Report) {
	st.Replies = slices.DeleteFunc(slices.Clone(st.Replies), func(r spool.Reply) bool {
		if !r.Final || r.Rcpt < 0 || r.Rcpt >= len(l.Envelope.Rcpts) {
			return false
		}
		o := Outcome{Rcpt: l.Envelope.Rcpts[r.Rcpt], Fate: Failed, Reply: r}
		if r.Expired {
			o.Fate = Expired
		}
		rep.Rcpts = append(rep.Rcpts, q.noticed(&l.Envelope, &o, dsn.Failed, st.Last))
		st.Left &^= 1 << uint(r.Rcpt)
		return true
	})
}

// late tells whether the sender of a message that came then is to hear that it takes long.
func (q *Queue) late(received time.Time) bool {
	return q.o.Now().Sub(received) >= q.set.Load().Schedule.Delayed
}

// delays puts into a report what of a delivery has not arrived yet.
func (q *Queue) delays(l *spool.Lease, st *spool.State, rep *dsn.Report) {
	for i, r := range l.Envelope.Rcpts {
		if !l.Open(i) || r.Notify != 0 && r.Notify&smtp.NotifyDelay == 0 {
			continue
		}
		o := Outcome{Rcpt: r, Fate: Deferred, Reply: spool.Reply{Text: st.Note}}
		if k := slices.IndexFunc(st.Replies, func(r spool.Reply) bool { return r.Rcpt == i }); k >= 0 {
			o.Reply = st.Replies[k]
		}
		rep.Rcpts = append(rep.Rcpts, q.noticed(&l.Envelope, &o, dsn.Delayed, st.Last))
	}
	st.Delayed = true
}

// together tells of all that failed of a message, or takes long, once nothing else of it is being tried.
func (q *Queue) together(l *spool.Lease) {
	for l.Several() && !q.passing(l, q.o.Now()) {
		ids := q.untold(l, true)
		if len(ids) == 0 || !q.report(ids[0]) {
			return
		}
	}
}

// untold are deliveries of a message of which its sender is to hear something, this one among them where self says so.
func (q *Queue) untold(l *spool.Lease, self bool) (ids []spool.ID) {
	late := q.late(l.Envelope.Received)
	l.Each(func(d *spool.Delivery) bool {
		if (self || d.ID != l.ID) && !d.Leased && !d.Held && (d.Owed || late && !d.Delayed && d.Attempts > 0) {
			ids = append(ids, d.ID)
		}
		return true
	})
	return ids
}

// report tells the sender what he is to hear of a delivery, with what he is to hear of others of the message, and whether that
// is on disk.
func (q *Queue) report(id spool.ID) bool {
	l, err := q.s.Claim(id)
	if err != nil {
		if d, gerr := q.s.Get(id); errors.Is(err, spool.ErrBusy) && gerr == nil && d.Owed {
			q.put(reports, id, q.o.Now().Add(time.Minute))
		}
		return false
	}
	defer func() {
		if cause := recover(); cause != nil {
			q.panicked(l, cause)
		}
	}()
	st, rep := l.State, dsn.Report{}
	if !q.tell(l, &st, &rep) {
		q.back(l)
		return false
	}
	if _, err = q.write(l, &st, &rep); err != nil {
		q.alarm(err)
	}
	q.wished(id, err == nil && st.Left != 0)
	return err == nil
}

// tell puts into a report what the sender is to hear of a delivery; false: nothing.
func (q *Queue) tell(l *spool.Lease, st *spool.State, rep *dsn.Report) bool {
	switch {
	case st.Owed():
		q.owing(l, st, rep)
	case q.late(l.Envelope.Received) && !st.Delayed && st.Left != 0:
		q.delays(l, st, rep)
	default:
		return false
	}
	return true
}

// gather claims what else of the message the sender can hear of now.
func (q *Queue) gather(l *spool.Lease, rep *dsn.Report) (also []spool.Settled) {
	if !l.Several() {
		return nil
	}
	for _, id := range q.untold(l, false) {
		c, err := q.s.Claim(id)
		if err != nil {
			continue // it tells by itself
		}
		s := spool.Settled{Lease: c, State: c.State}
		if !q.tell(c, &s.State, rep) {
			q.back(c)
			continue
		}
		also = append(also, s)
	}
	return also
}

func (q *Queue) back(l *spool.Lease) {
	if err := l.Return(); err != nil {
		q.alarm(err)
	}
}

// write has the state on disk, with the notice in the same step where there is one, whose id it returns.
func (q *Queue) write(l *spool.Lease, st *spool.State, rep *dsn.Report) (spool.ID, error) {
	to, ok := q.noticeTo(&l.Envelope)
	if len(rep.Rcpts) == 0 || !ok {
		return 0, l.Settle(*st)
	}
	also := q.gather(l, rep)
	ids, err := q.notice(l, st, rep, to, also)
	if err == nil {
		for _, s := range also {
			q.wished(s.ID, s.State.Left != 0)
		}
		return ids[0], nil
	}
	if errors.Is(err, spool.ErrBad) || errors.Is(err, spool.ErrClosed) {
		return 0, err
	}
	for _, s := range also {
		q.back(s.Lease)
	}
	// What happened must be written in any case; that nobody was told is for an operator to know.
	q.alarm(fmt.Errorf("no notice could be made for message %s: %w", l.Envelope.Message, err))
	return 0, l.Settle(*st)
}

// noticeTo tells where a notice goes. Nobody hears of what became of a notice (RFC 5321 4.5.5).
func (q *Queue) noticeTo(e *spool.Envelope) (string, bool) {
	switch {
	case e.From == "" || e.Class == spool.ClassNotice:
		return "", false
	case q.o.Senders != nil:
		return q.o.Senders.NoticeTo(e)
	}
	return e.From, e.Verified
}

// noticed is what a report says of a recipient who was tried at a time.
func (q *Queue) noticed(e *spool.Envelope, o *Outcome, action string, at time.Time) dsn.Rcpt {
	r := dsn.Rcpt{
		Original: o.Rcpt.ORcpt, Final: o.Rcpt.Address, Action: action, Status: o.Reply.Enh, RemoteMTA: o.Reply.Host, LastAttempt: at,
		Code: o.Reply.Code, Text: o.Reply.Text, Remote: o.Reply.Host != "",
	}
	class := uint16(5)
	switch {
	case action == dsn.Delayed:
		class = 4
		r.Until = e.Received.Add(q.set.Load().Schedule.Until)
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

// notice commits a notice together with what it is about.
func (q *Queue) notice(l *spool.Lease, st *spool.State, rep *dsn.Report, to string, also []spool.Settled) ([]spool.ID, error) {
	e := &l.Envelope
	rep.Reporter, rep.To, rep.EnvID, rep.Arrived, rep.Message = q.o.Name, to, e.EnvID, e.Received, e.Message
	rep.ID, rep.Now, rep.From = l.ID.String()+"."+strconv.Itoa(st.Attempts)+"."+e.Message, q.o.Now(), e.From
	body, err := l.Body()
	if err == nil {
		defer body.Release()
		rep.Original, rep.Full, err = returned(body, e.Ret == "FULL" && !e.RequireTLS) // RFC 8689 5: the notice may go anywhere
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
	env := &spool.Envelope{
		Message: e.Message, User: e.User, UserName: e.UserName, Received: q.o.Now(), Class: spool.ClassNotice,
		Rcpts: []spool.Rcpt{{Address: to, Notify: smtp.NotifyNever}}, UTF8: rep.UTF8(),
	}
	return l.SettleWith(*st, l.Draft(), env, made, also...)
}

// mostReturned bounds what of a message goes back with a notice.
const mostReturned = 64 << 10

// returned gives what of the message a notice holds: all where that was asked for and it is small, else its header.
func returned(b *smtp.Body, whole bool) (text []byte, full bool, err error) {
	n := b.HeaderLen()
	if full = whole && b.Size() <= mostReturned && b.Canonical(); full {
		n = b.Size()
	}
	text = make([]byte, min(n, mostReturned))
	if len(text) == 0 {
		return text, full, nil
	}
	_, err = b.ReadAt(text, 0)
	return text, full, err
}
