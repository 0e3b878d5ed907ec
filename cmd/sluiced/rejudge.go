package main

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"time"

	"sluice/filter"
	"sluice/filter/content"
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
	again := &rejudge{d: d, other: map[spool.ID]bool{}, checks: filter.NewPipeline(
		filter.Step{Name: "content", Phases: content.Phases, Check: content.NewMarks()},
		filter.Step{Name: "learned", Phases: content.Phases, Check: d.classifier()},
	)}
	for {
		select {
		case <-time.After(max(rejudgeEvery, d.cfg.Load().Content.Wait.D()/20)):
			again.pass()
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
}

func (r *rejudge) pass() {
	m := r.d.mail
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.gave {
		return
	}
	held, due := map[spool.ID]bool{}, []spool.ID{}
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
	for _, id := range due {
		if err := r.one(id); err != nil && !errors.Is(err, spool.ErrUnknown) {
			r.d.log.Error("a message that waits to be judged again stays on hold", "delivery", id, "err", err)
			r.other[id] = true
		}
	}
}

// one judges one message. Its user may have a longer wait than the general one.
func (r *rejudge) one(id spool.ID) error {
	m := r.d.mail
	l, err := m.spool.Look(id)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(l.State.Hold, delayed) {
		r.other[id] = true
		return nil
	}
	if s := r.d.policy.Settings(l.Envelope.User); s != nil && time.Since(l.Envelope.Received) < s.Content.Wait {
		return nil
	}
	body, err := l.Body()
	if err != nil {
		return err
	}
	defer body.Release()
	data := make([]byte, body.Size())
	if _, err := body.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	v := r.checks.Ask(context.Background(), filter.Data, messageOf(&l.Envelope, data))
	f := delivery.Filter{ID: id}
	what := "released"
	switch {
	case !v.Refused() || v.Action == filter.Delay: // as unsure as before: it has waited
		_, err = m.queue.Release(f)
	case v.Action == filter.Reject || v.Action == filter.Quarantine:
		what = "held"
		err = r.shelve(l, data, &v)
		if err == nil {
			_, err = m.queue.Delete(f)
		}
	default:
		what = "on hold"
		_, err = m.queue.Hold(f, heldBecause(&v))
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
	return m
}
