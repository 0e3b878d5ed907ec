package main

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"time"

	"sluice/filter"
	mail "sluice/filter/message"
	"sluice/intercept/flow"
	"sluice/proxy/delivery"
	"sluice/proxy/quarantine"
	"sluice/proxy/spool"
)

// delayed is how the reason of a hold begins that ends when the message was judged again, see heldBecause.
var delayed = filter.Delay.String() + ": "

// rejudgeEvery bounds how often it is looked for messages whose wait is over.
const rejudgeEvery = 2 * time.Second

// judgeAgain looks for messages in the queue that wait to be judged again (CON9), until ctx ends or another process has
// the queue.
func (d *daemon) judgeAgain(ctx context.Context) {
	again := &rejudge{d: d, other: map[spool.ID]bool{}, unasked: map[spool.ID]time.Time{}, checks: filter.NewPipeline(d.opinions()...)}
	for {
		select {
		case <-time.After(max(rejudgeEvery, d.cfg.Load().Content.Wait.D()/20)):
			again.pass(ctx)
		case <-d.handedOver:
			return
		case <-ctx.Done():
			return
		}
	}
}

// rejudge judges what waited long enough.
type rejudge struct {
	d      *daemon
	checks *filter.Pipeline
	other  map[spool.ID]bool // held for other reasons: they need not be read again
	// About these somebody who has to be asked could not be, since when: a list, a plug-in.
	unasked map[spool.ID]time.Time
}

// unaskedPause is how soon it is tried again to ask about a message.
const unaskedPause = time.Minute

func (r *rejudge) pass(ctx context.Context) {
	for _, id := range r.due() {
		if ctx.Err() != nil {
			return
		}
		if err := r.one(ctx, id); err != nil && !errors.Is(err, spool.ErrUnknown) {
			r.d.log.Error("a message that waits to be judged again stays on hold", "delivery", id, "err", err)
			r.other[id] = true
		}
	}
}

// due are the deliveries on hold that have waited so long that they may have to be judged.
func (r *rejudge) due() (due []spool.ID) {
	m := r.d.mail
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.gave {
		return nil
	}
	held := map[spool.ID]bool{}
	now := time.Now()
	for from := uint32(0); ; {
		from = m.spool.Each(from, func(x *spool.Delivery) bool {
			if x.Held {
				if held[x.ID] = r.other[x.ID]; !r.other[x.ID] && now.Sub(x.Born) >= r.d.cfg.Load().Content.Wait.D() {
					due = append(due, x.ID)
				}
			}
			return true
		})
		if from == 0 {
			break
		}
	}
	r.other = held
	for id := range r.unasked {
		if _, is := held[id]; !is {
			delete(r.unasked, id)
		}
	}
	return due
}

// one judges one message. Nothing is held up meanwhile: who is asked may take long to answer.
func (r *rejudge) one(ctx context.Context, id spool.ID) error {
	if since, is := r.unasked[id]; is && time.Since(since) < unaskedPause {
		return nil
	}
	l, data, err := r.read(id)
	if l == nil || err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.d.cfg.Load().SMTP.FilterTimeout.D())
	defer cancel()
	v := r.checks.Ask(ctx, filter.Data, messageOf(&l.Envelope, data))
	if v.Action == filter.Defer && v.Class == filter.Policy { // somebody who has to be asked does not answer: it waits on
		r.unasked[id] = time.Now()
		return nil
	}
	return r.settle(id, data, &v)
}

// read returns a message whose wait is over; nil where it is not, or waits for a person. Its user may have a longer wait than
// the general one.
func (r *rejudge) read(id spool.ID) (*spool.Lease, []byte, error) {
	m := r.d.mail
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.gave {
		return nil, nil, nil
	}
	l, err := m.spool.Look(id)
	if err != nil {
		return nil, nil, err
	}
	if !strings.HasPrefix(l.State.Hold, delayed) {
		r.other[id] = true
		return nil, nil, nil
	}
	if s := r.d.policy.Settings(l.Envelope.User); s != nil && time.Since(l.Envelope.Received) < s.Content.Wait {
		return nil, nil, nil
	}
	body, err := l.Body()
	if err != nil {
		return nil, nil, err
	}
	defer body.Release()
	data := make([]byte, body.Size())
	if _, err := body.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	return l, data, nil
}

// settle does what follows from the verdict, unless a person was faster.
func (r *rejudge) settle(id spool.ID, data []byte, v *filter.Verdict) error {
	m := r.d.mail
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.gave {
		return nil
	}
	l, err := m.spool.Look(id)
	if err != nil || !strings.HasPrefix(l.State.Hold, delayed) {
		return err
	}
	f := delivery.Filter{ID: id}
	what := "released"
	switch {
	case !v.Refused() || v.Action == filter.Delay: // as unsure as before: it has waited
		_, err = m.queue.Release(f)
	case v.Action == filter.Discard:
		what = "discarded"
		_, err = m.queue.Delete(f)
	case v.Action == filter.Reject || v.Action == filter.Quarantine:
		what = "held"
		if err = r.shelve(l, data, v); err == nil {
			_, err = m.queue.Delete(f)
		}
	default:
		what = "on hold"
		_, err = m.queue.Hold(f, heldBecause(v))
	}
	if err == nil {
		r.d.log.Info("judged again", "delivery", id, "message", l.Envelope.Message, "user", l.Envelope.UserName, "it is", what)
	}
	return err
}

// shelve keeps a message that is found to be bad now. Its sender was told 250.
func (r *rejudge) shelve(l *spool.Lease, data []byte, v *filter.Verdict) error {
	env := l.Envelope
	e := quarantine.Entry{User: env.User, UserName: env.UserName, Login: env.Identity, Client: env.Client, From: env.From, Size: int64(len(data)), Message: env.Message, Class: v.Class.String()}
	for _, to := range env.Rcpts {
		e.To = append(e.To, to.Address)
	}
	if h := v.Decisive(); h != nil {
		e.Check, e.Code, e.Evidence = h.Check, h.Code, h.Evidence
	}
	e.Group, _ = v.Copies()
	var err error
	if e.Print, err = quarantine.Fingerprint(env.User, env.From, e.To, nil, strings.NewReader(string(data))); err != nil {
		return err
	}
	_, err = r.d.held.Keep(&quarantine.Letter{Entry: e, Envelope: &env, Text: strings.NewReader(string(data))})
	return err
}

// messageOf is a kept message as checks see it.
func messageOf(env *spool.Envelope, data []byte) *mail.Message {
	m := &mail.Message{ID: env.Message, Data: data, DataSize: int64(len(data)), Received: env.Received,
		Flow: &flow.Flow{User: flow.User{ID: env.User, Name: env.UserName}, Client: netip.AddrPortFrom(env.Client, 0)}, Envelope: mail.Envelope{From: mail.Address(env.From), SMTPUTF8: env.UTF8}}
	for i := range env.Rcpts {
		m.Envelope.To = append(m.Envelope.To, mail.Address(env.Rcpts[i].Address))
	}
	m.Forwarded = mail.PassedOn(m)
	return m
}
