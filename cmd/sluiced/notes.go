package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sluice/filter"
	"sluice/filter/limit"
	"sluice/filter/lock"
	mail "sluice/filter/message"
	"sluice/intercept/control"
	"sluice/intercept/flow"
)

// note is what one process tells another. Of each kind there is at most one.
type note struct {
	Lock   *lock.Lock  `json:"lock,omitempty"`   // a lock, a change of one, or its end
	Cut    uint32      `json:"cut,omitempty"`    // a locked user whose sessions end at once
	Booked *booked     `json:"booked,omitempty"` // by the one that goes, after it gave its counts away
	Judged *judged     `json:"judged,omitempty"` // by the one that goes; it has locked nobody
	Places []place     `json:"places,omitempty"` // sessions of the one that goes: first all, then each change
	Admin  *adminSpent `json:"admin,omitempty"`  // by the one that goes, as it hands over
}

// judged is a verdict as far as it counts for locks.
type judged struct {
	User flow.User    `json:"user"`
	ID   string       `json:"id"`
	From mail.Address `json:"from"`
	Body []byte       `json:"body,omitempty"` // digest of a bad body, to tell copies apart
	Hit  *filter.Hit  `json:"hit,omitempty"`  // what decided, or what is doubtful about it; nil for a good message

	Identity  string `json:"identity,omitempty"`
	Forwarded bool   `json:"forwarded,omitempty"`
	Likely    uint8  `json:"likely,omitempty"` // see mail.Found
}

// adminSpent is how many mails a locked user has sent to the administrator in the present hour.
type adminSpent struct {
	User uint32 `json:"user"`
	N    int    `json:"n"`
}

type booked struct {
	Key limit.Key `json:"key"`
	N   int       `json:"n"`
}

// tellOthers passes a note to the other processes, where there are any.
func (d *daemon) tellOthers(n note) {
	b, err := json.Marshal(n)
	if err == nil && len(b) > control.MaxNote && n.Lock != nil { // its evidence is on disk
		short := *n.Lock
		short.Evidence = nil
		b, err = json.Marshal(note{Lock: &short})
	}
	if err == nil {
		err = d.link.call(func(ctx context.Context, c *control.Client) error { return c.Tell(ctx, b) })
	}
	if err != nil && !errors.Is(err, errAway) && !errors.Is(err, control.ErrLost) { // it refreshes when it is back
		d.log.Warn("could not tell other processes of sluiced what happened here", "err", err)
	}
}

// heard does what another process, or the helper in its name, says.
func (d *daemon) heard(e control.Event) {
	if e.Retire {
		d.retire()
		return
	}
	var n note
	if err := json.Unmarshal(e.Note, &n); err != nil {
		d.log.Warn("another process of sluiced said what this version does not understand", "err", err)
		return
	}
	switch {
	case n.Lock != nil:
		d.locks.Heard(*n.Lock)
		if n.Lock.Ended.IsZero() && n.Lock.Identity == "" {
			d.proxy.Locked(n.Lock.User.ID)
		}
	case n.Cut != 0:
		d.proxy.Cut(n.Cut)
	case n.Booked != nil && !d.retired():
		d.counts.counts.Settle(n.Booked.Key, 0, n.Booked.N)
	case n.Places != nil && !d.retired():
		d.elsewhere.moved(n.Places)
	case n.Admin != nil && !d.retired():
		d.proxy.SpendAdmin(n.Admin.User, n.Admin.N)
	case n.Judged != nil && !d.retired():
		d.locks.Judged(n.Judged.rebuild())
	}
}

// toldCounts tells the process that has the counts what is booked here after they were given to it.
type toldCounts struct {
	*limit.Counts
	file   *countsFile
	others func(note)
}

func (d *daemon) toldCounts() toldCounts { return toldCounts{d.counts.counts, d.counts, d.tellOthers} }

func (c toldCounts) Settle(k limit.Key, reserved, n int) {
	c.Counts.Settle(k, reserved, n)
	c.tell(k, n)
}

func (c toldCounts) SettleHour(user uint32, reserved, n limit.Hour) {
	c.Counts.SettleHour(user, reserved, n)
	if n != (limit.Hour{}) && c.file.given.Load() {
		c.tell(limit.Key{User: user, What: limit.Messages, Window: time.Hour}, n.Messages)
		c.tell(limit.Key{User: user, What: limit.Recipients, Window: time.Hour}, n.Recipients)
	}
}

func (c toldCounts) tell(k limit.Key, n int) {
	if n > 0 && c.file.given.Load() {
		c.others(note{Booked: &booked{k, n}})
	}
}

// toldLocks tells the process that has taken over what is judged here, for a spammer may have sessions with both.
type toldLocks struct {
	*lock.Locks
	d *daemon
}

func (l toldLocks) Judged(m *mail.Message, v *filter.Verdict) {
	l.d.samples.note(m, v) // first: a lock that follows finds it
	l.Locks.Judged(m, v)
	if !l.d.retired() {
		return
	}
	if _, locked := l.Locked(m.Flow.User.ID); !locked {
		l.d.tellOthers(note{Judged: newJudged(m, v)})
	}
}

func newJudged(m *mail.Message, v *filter.Verdict) *judged {
	j := &judged{User: m.Flow.User, ID: m.ID, From: m.Envelope.From, Identity: m.Identity, Forwarded: m.Forwarded, Likely: m.Found.Likely}
	h := v.Counting()
	if h == nil {
		h = v.Decisive()
	}
	if h == nil {
		h = v.Doubt()
	}
	if h != nil {
		hit := *h
		hit.Text, hit.Evidence = "", hit.Evidence[:min(len(hit.Evidence), 200)]
		var each bool
		hit.Group, each = v.Copies()
		hit.Outside = hit.Outside || each
		digest := sha256.New()
		digest.Write(mail.Body(m.Data))
		if each {
			fmt.Fprint(digest, m.Envelope.To)
		}
		j.Hit, j.Body = &hit, digest.Sum(nil)
	}
	return j
}

// rebuild makes a message and a verdict that count like the ones told of. A copy of the same bad body that this process
// judged itself counts apart: that errs towards the lock.
func (j *judged) rebuild() (*mail.Message, *filter.Verdict) {
	m := &mail.Message{ID: j.ID, Flow: &flow.Flow{User: j.User}, Envelope: mail.Envelope{From: j.From}, Identity: j.Identity, Forwarded: j.Forwarded, Found: mail.Found{Likely: j.Likely}}
	m.Data = append([]byte("\r\n"), j.Body...)
	var hits []filter.Hit
	if j.Hit != nil {
		hits = []filter.Hit{*j.Hit}
	}
	v := filter.Judge(hits)
	return m, &v
}
