package proxy

import (
	"context"
	"errors"
	"strings"

	"sluice/filter"
	"sluice/intercept/flow"
	"sluice/proxy/pool"
	"sluice/proxy/smtp"
)

// keepMessage keeps a good message at a smarthost, and answers 250 once it is on disk.
func (s *session) keepMessage(body *smtp.Body, e *ending) {
	s.stage(onward)
	err := s.store(body, nil)
	if err == nil {
		s.kept(deliveredFromHere, e)
		return
	}
	s.sayUnkept(err)
	e.status, e.note = Deferred, err.Error()
	s.finish(*e)
}

// holdMessage keeps a message that the filter neither lets go nor refuses, where its user's settings say so (DEL1): the
// destination forgets its envelope, and the client hears 250 once it is on disk. With false the client keeps it.
func (s *session) holdMessage(body *smtp.Body, v *filter.Verdict, e *ending) bool {
	if !v.Action.Withheld() || !s.user.KeepWithheld && s.house == nil { // whoever hands in at a smarthost does not come again
		return false
	}
	said := *v // v is used again for the next message
	if err := s.store(body, &said); err != nil {
		e.note = "could not be kept: " + err.Error()
		return false
	}
	s.kept(lookedAt, e)
	return true
}

// keepDeferred keeps a message that its destination put off, where its user's settings say so (DEL2). With false the
// client keeps it.
func (s *session) keepDeferred(body *smtp.Body, e *ending) bool {
	if !s.user.KeepDeferred {
		return false
	}
	if err := s.store(body, nil); err != nil {
		e.note = joined(e.note, "could not be kept: "+err.Error())
		return false
	}
	s.kept(triedAgain, e)
	return true
}

// later answers recipient i where it is kept for a later try: from the first one on that the destination puts off, where
// none is taken before and the user's settings say so. Else the client hears of each, and splits.
func (s *session) later(i int, r *smtp.Reply) bool {
	t := &s.tx
	one := t.asked[i : i+1]
	switch {
	case r.Class() != 4 && !t.keeping, r.Class() == 5:
		return false
	case !t.keeping:
		t.keeping = len(t.passed) == 0 && s.user.KeepDeferred && s.keepable(one, false) == nil
		if !t.keeping {
			return false
		}
	case !strings.EqualFold(one[0].Domain, t.passed[0].Domain) && s.keepable(one, false) != nil:
		if r.Class() == 4 {
			return false
		}
		s.say(sendApart)
		s.noteRcpt(one[0].Address, sendApart.code, s.set.Name+": "+sendApart.text)
		return true
	}
	s.noteOne(i)
	return true
}

var sendApart = answer{452, smtp.Enhanced{4, 5, 3}, "send to this recipient in another message"}

// noteLater answers the recipients of this batch from i on, of whom the destination says nothing.
func (s *session) noteLater(i int) {
	for ; i < len(s.tx.asked); i++ {
		s.noteOne(i)
	}
	s.tx.seen()
}

// noteOne answers one recipient whose mail is kept for a later try.
func (s *session) noteOne(i int) {
	s.conn.WriteRaw(s.set.fixed.rcptOK)
	s.accept(i, 250, "noted")
}

// deliverLater keeps a message whose recipients its destination put off.
func (s *session) deliverLater(body *smtp.Body, e *ending) {
	if s.keepDeferred(body, e) {
		return
	}
	s.say(notKept)
	e.status = Deferred
	s.finish(*e)
}

// What is said behind 250 and the message's id.
const (
	deliveredFromHere = "it is delivered from here"
	lookedAt          = "it is looked at before it is delivered"
	triedAgain        = "the destination put it off, it is tried again from here"
)

// kept answers a message that is on disk.
func (s *session) kept(what string, e *ending) {
	t := &s.tx
	s.say(answer{250, smtp.Enhanced{2, 0, 0}, "kept as " + t.msg.ID + ", " + what})
	e.status, e.accepted = Queued, len(t.passed)
	if err := s.conn.Flush(); err != nil {
		e.note = joined(e.note, leftUnheard)
	}
	s.finish(*e)
}

// LateKeeper keeps intercepted mail. Later tells why mail to a domain may not be kept: it would go to the domain's mail
// exchangers, and somebody has to hear of a failure; held tells that a person looks at it first. It may ask the DNS, until
// ctx ends.
type LateKeeper interface {
	Keeper
	Later(ctx context.Context, f *flow.Flow, m *smtp.Mail, domain string, held bool) error
}

// Why intercepted mail is not kept whatever its user's settings say: it could not be delivered later as it would have been
// now.
var (
	errNoKeeper = errors.New("there is no spool")
	errAuthed   = errors.New("the client authenticated at its destination, which nobody can do in its place later")
	errOwnWay   = errors.New("it leaves from the customer's own address, which no later delivery does")
)

// store has the message on disk, with what the filter said where it withholds it.
func (s *session) store(body *smtp.Body, withheld *filter.Verdict) error {
	t := &s.tx
	k := Kept{
		ID: t.msg.ID, Flow: s.flow, Login: s.login(), Mail: &t.mail, Rcpts: t.passed, Body: body, At: t.start,
		Secure: s.secure.Load(), HandedIn: s.house != nil, Withheld: withheld, Risky: t.risk, Forwarded: t.msg.Forwarded, Group: t.msg.Found.Group,
	}
	if s.house == nil {
		s.signedHere(body)
		if err := s.keepable(t.passed, withheld != nil); err != nil {
			return err
		}
		d, err := s.srv.cfg.Keeper.Begin()
		if err != nil {
			return err
		}
		s.draft = d // dropped at the end of the transaction
		if err := body.Move(d.OpenSpill); err != nil {
			return err
		}
	}
	s.addTrace(nil)
	k.Trace = s.trace
	k.As, t.rec.Signed = s.signsAs(body)
	t.rec.Size = body.Size()
	return s.draft.Keep(&s.ctx, &k)
}

// keepable tells why a message to these recipients may not be kept, for somebody to look at or for a later try.
func (s *session) keepable(rcpts []smtp.Rcpt, held bool) error {
	t := &s.tx
	switch {
	case s.srv.cfg.Keeper == nil:
		return errNoKeeper
	case s.authed:
		return errAuthed
	case s.decide(&s.ctx, rcpts[0].Domain).Own, s.remote != nil && s.remote.Route().Own && s.tx.way.Why != pool.Signed:
		return errOwnWay
	}
	last := ""
	for i := range rcpts {
		if i > 0 && strings.EqualFold(rcpts[i].Domain, last) {
			continue
		}
		last = rcpts[i].Domain
		if err := s.srv.cfg.Keeper.Later(&s.ctx, s.flow, &t.mail, last, held); err != nil {
			return err
		}
	}
	return nil
}

// joined puts two notes together.
func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
