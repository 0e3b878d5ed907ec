package proxy

import (
	"bytes"
	"context"
	"strings"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
	"sluice/proxy/smtp"
)

// Overheard is a transaction that was not ours to stop: its client and its destination spoke past us.
type Overheard struct {
	Start  time.Time
	Helo   string
	Mail   smtp.Mail
	Wrong  error       // why the destination took what is no MAIL; its argument is Mail.Address then
	To     []Recipient // and what the destination said to each
	Body   []byte      // the beginning of the message, dots unstuffed, as far as it was seen
	Size   int64       // bytes of the whole message; 0: none came, or it is not known
	Status Status      // how the destination let it end
	Whole  bool        // the message came to its end and was answered
}

// Would is what enforcement would have done with an overheard transaction.
type Would struct {
	Verdict   filter.Verdict
	Identity  string // of the message
	Forwarded bool   // it was only passed on
	Likely    uint8  // see message.Found
	Code      string // public code of what would have stopped it
	Reply     string // the reply of ours that would have stopped it, or one of its recipients; "" where none would
}

// Would asks the filter as a session does, without a session: by is the pipeline, whose limits this transaction is booked
// against. The locks that are not enforced hear of it, see Config.Unenforced, and nothing else does.
func (s *Server) Would(f *flow.Flow, id string, o *Overheard, by *filter.Pipeline) Would {
	e := evaluation{ctx: s.base, srv: s, set: s.set.Load(), user: s.cfg.Policy.Settings(f.User.ID), by: by, Overheard: o, msg: message.Message{
		ID: id, Flow: f, Helo: o.Helo, Received: o.Start,
		Envelope: message.Envelope{
			From: message.Address(o.Mail.Address), FromSize: max(o.Mail.Size, 0), SMTPUTF8: o.Mail.UTF8, Body8Bit: o.Mail.Body == smtp.Body8BitMIME,
		},
	}}
	e.msg.Forwarded = e.msg.Envelope.From.Rewritten()
	if e.user == nil {
		return e.stopped(filter.Verdict{Cause: -1}, "", unknownUser)
	}
	w := e.run()
	w.Identity, w.Forwarded, w.Likely = e.msg.Identity, e.msg.Forwarded, e.msg.Found.Likely
	return w
}

// evaluation is one transaction on its way through the phases.
type evaluation struct {
	*Overheard
	ctx  context.Context
	srv  *Server
	set  *resolved
	user *policy.Settings
	by   *filter.Pipeline
	msg  message.Message

	invalid int // recipients that the destination does not know
}

func (e *evaluation) stopped(v filter.Verdict, code string, a answer) Would {
	return Would{Verdict: v, Code: code, Reply: line(a.code, a.enh, e.set.Name+": "+a.text)}
}

func (e *evaluation) refused(v filter.Verdict) Would {
	switch {
	case v.Action == filter.Discard:
		return e.stopped(v, v.Decisive().Code, taken)
	case v.Action == filter.HighRisk && e.set.Pools.Risky() != nil:
		return Would{Verdict: v} // it would have gone by another way
	}
	w := e.stopped(v, "", refusal(e.set, &v, ""))
	if h := v.Decisive(); h != nil {
		w.Code = h.Code
	}
	return w
}

func (e *evaluation) run() Would {
	if e.Wrong != nil {
		if code, enh, text, ok := smtp.ReplyFor(e.Wrong); ok {
			return e.stopped(filter.Verdict{Cause: -1}, "SYNTAX", answer{code, enh, text})
		}
	}
	for _, p := range []filter.Phase{filter.Connect, filter.Helo, filter.Mail} {
		if v := e.by.Ask(e.ctx, p, &e.msg); v.Refused() {
			return e.refused(v)
		}
	}
	w := Would{Verdict: filter.Verdict{Cause: -1}}
	accepted := e.recipients(&w)
	if e.Whole && w.Reply == "" {
		w = e.data()
	}
	if e.Status != Delivered {
		accepted = 0
	}
	e.by.Settle(&e.msg, filter.Outcome{Accepted: accepted, Verdict: &w.Verdict, Lost: e.Status == Lost, Invalid: e.invalid})
	return w
}

// recipients asks about those that the destination took, and tells how many these are.
func (e *evaluation) recipients(w *Would) (accepted int) {
	for i := range e.To {
		if e.To[i].Code/100 != 2 {
			if unknownRecipient(e.To[i].Code, e.To[i].Reply) {
				e.invalid++
			}
			continue
		}
		accepted++
		e.msg.Rcpt = message.Address(e.To[i].Address)
		if v := e.by.Ask(e.ctx, filter.Rcpt, &e.msg); !v.Refused() {
			e.msg.Envelope.To = append(e.msg.Envelope.To, e.msg.Rcpt)
		} else if w.Reply == "" {
			*w = e.refused(v)
		}
		e.msg.Rcpt = ""
	}
	return accepted
}

// data judges the message, tells the locks that are not enforced, and answers as judge does.
func (e *evaluation) data() Would {
	if e.Size > maxSizeOf(e.set, e.user) {
		code, enh, why, _ := smtp.ReplyFor(smtp.ErrTooLarge)
		return e.stopped(filter.Verdict{Cause: -1}, "SIZE", answer{code, enh, why})
	}
	e.msg.Data, e.msg.DataSize = e.Body, e.Size
	defer func() { e.msg.Data = nil }()
	e.msg.Forwarded = message.PassedOn(&e.msg) || e.srv.foreign(e.ctx, &e.msg)
	header := e.Body
	if n := bytes.Index(header, []byte("\r\n\r\n")); n >= 0 {
		header = header[:n+2]
	}
	v := e.srv.verdict(e.ctx, e.set, e.by, &e.msg, header, time.Now())
	locked := e.locked(&v)
	switch {
	case v.Refused() && (v.Class.Bad() && !v.Action.Withheld() || !locked):
		return e.refused(v)
	case locked:
		return e.stopped(v, lockedCode, lockedAnswer(e.set, "", ""))
	}
	return Would{Verdict: v}
}

// locked tells the locks that are not enforced of a verdict, and whether the user would be locked now.
func (e *evaluation) locked(v *filter.Verdict) bool {
	locks := e.srv.cfg.Unenforced
	if locks == nil {
		return false
	}
	locks.Judged(&e.msg, v)
	_, is := locks.Locked(e.msg.Flow.User.ID)
	if is && e.set.Admin != "" && len(e.To) == 1 && strings.EqualFold(e.To[0].Address, e.set.Admin) {
		return false // the administrator can be written to
	}
	return is
}

// judgeOverheard finds what would have been done with a message of a session in shadow, and logs it.
func (s *session) judgeOverheard(o *overheard) {
	defer s.srv.reserve(-len(o.Body))
	id := transactionID(s.flow.ID, int(s.sent.Add(1)))
	o.Status = o.ended()
	w := s.srv.Would(s.flow, id, &o.Overheard, s.srv.set.Load().Pipeline)
	s.srv.cfg.Log.Put(&Record{
		ID: id, Flow: *s.flow, Start: o.Start, Duration: time.Since(o.Start), Helo: o.Helo, Identity: w.Identity, From: o.Mail.Address, To: o.To, Size: o.Size,
		Status: o.Status, Verdict: w.Verdict, Reply: o.reply, Remote: o.reply, Source: s.flow.Client.Addr(), Shadow: true, Would: w.Reply, Forwarded: w.Forwarded, Likely: w.Likely,
	})
}

// ended tells how the destination let the transaction end.
func (o *overheard) ended() Status {
	return Ended(o.code, o.To, o.sent)
}

// Ended is the status of a transaction that ended with a reply code, 0 where none came; sent: the message had come to
// its end.
func Ended(code int, to []Recipient, sent bool) Status {
	switch {
	case code/100 == 2:
		return Delivered
	case code/100 == 4:
		return Deferred
	case code != 0:
		return Refused
	case sent:
		return Ambiguous
	}
	t := transaction{tried: len(to)}
	for _, r := range to {
		if r.Code/100 == 2 {
			return Lost
		}
		t.temp = t.temp || r.Code/100 == 4
	}
	return t.outcome()
}
