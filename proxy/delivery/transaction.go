package delivery

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/proxy/relay"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

// outcome is what came of a transaction.
type outcome uint8

const (
	answered outcome = iota // whoever was asked has an answer
	lost                    // the session ended before anybody had one; another way is to be tried
	notNow                  // the message cannot be made fit for this way, and why is ours; the same
	unproven                // the way does not keep REQUIRETLS; the same
)

// transfer leads one transaction.
func (t *try) transfer(s *relay.Session, w *way, body *smtp.Body) outcome {
	t.res.Host, t.res.Target, t.res.Source, t.up = w.host, w.target, s.Source(), w.up
	if !t.res.Source.IsValid() {
		t.res.Source = s.Local()
	}
	t.res.Leg = s.Leg()
	if t.l.Envelope.RequireTLS && !w.keeps(s) {
		t.end(s, true)
		return unproven
	}
	body, r, ok := t.fit(s.Caps(), body)
	if !ok {
		t.all(r)
		t.end(s, true)
		if r.Code/100 == 5 {
			return answered
		}
		return notNow
	}
	t.portion(s.Caps().Limits.RcptMax)
	mail := t.mail(s.Caps(), body)
	rcpts := t.rcpts(s.Caps().Has(smtp.ExtDSN))
	h := &answers{t: t, host: w.host}
	if err := s.Group(&mail, rcpts, h); err != nil {
		return t.broken(s, err, h.n)
	}
	taken := slices.DeleteFunc(slices.Clone(t.asked), func(i int) bool { return t.told[i].Fate != Delivered })
	if len(taken) == 0 {
		t.slow()
		t.end(s, true)
		t.through = true
		return answered
	}
	reply, err := s.Deliver(t.signatures(s.Caps(), body), body, time.Now().Add(10*time.Minute), t)
	if err != nil {
		f := asFailure(err)
		t.res.Ambiguous = f.Sent
		for _, i := range append(taken, t.rest...) {
			t.told[i].Fate, t.told[i].Reply = Deferred, spool.Reply{Code: temporary(f.Code), Enh: f.Enh, Text: f.Text, Host: hostIf(f.Raw != nil, w.host)}
		}
		if t.res.Note = f.Error(); !f.Sent {
			t.missed = t.res.Note
		}
		t.end(s, false)
		return answered
	}
	if t.through = reply.Class() != 4; !t.through {
		taken = append(taken, t.rest...)
	}
	for _, i := range taken {
		t.told[i].Reply, t.told[i].Behind = replyOf(reply, w.host), true
		t.told[i].Fate = fateOf(reply.Code)
		if t.told[i].Fate == Delivered && t.told[i].Rcpt.Notify&smtp.NotifySuccess != 0 && !s.Caps().Has(smtp.ExtDSN) {
			t.told[i].Fate = Relayed
		}
	}
	t.slow()
	t.end(s, true)
	return answered
}

// broken is a transaction that ended before its recipients were all heard; n of them were.
func (t *try) broken(s *relay.Session, err error, n int) outcome {
	f := asFailure(err)
	t.whole()
	for k, i := range t.asked {
		if k < n && t.told[i].Fate == Failed { // that one is certain
			continue
		}
		t.told[i].Fate, t.told[i].Reply = Deferred, spool.Reply{Code: temporary(f.Code), Enh: f.Enh, Text: f.Text, Host: hostIf(f.Raw != nil, t.res.Host)}
	}
	t.missed, t.res.Note = f.Error(), f.Error()
	t.end(s, false)
	if n > 0 {
		return answered
	}
	return lost
}

// answers hears the replies to recipients.
type answers struct {
	t    *try
	host string
	n    int
}

// Answer notes one.
func (h *answers) Answer(i int, r *smtp.Reply) {
	o := &h.t.told[h.t.asked[i]]
	o.Reply, o.Fate = replyOf(r, h.host), fateOf(r.Code)
	h.n++
}

func replyOf(r *smtp.Reply, host string) spool.Reply {
	return spool.Reply{Code: r.Code, Enh: r.Enh, Text: withoutCode(r), Host: host}
}

// withoutCode is the text of a reply without the enhanced code that stands beside it already.
func withoutCode(r *smtp.Reply) string {
	text := r.Text()
	if r.Enh != (smtp.Enhanced{}) {
		text = strings.TrimSpace(strings.TrimPrefix(text, r.Enh.String()))
	}
	return text
}

// mail is the argument of MAIL as the destination can take it.
func (t *try) mail(c *relay.Caps, body *smtp.Body) smtp.Mail {
	e := &t.l.Envelope
	m := smtp.Mail{Path: smtp.Path{Address: e.From}, Size: t.size(c, body), Body: e.Body, UTF8: e.UTF8}
	var p strings.Builder
	if c.Has(smtp.ExtSize) {
		fmt.Fprintf(&p, " SIZE=%d", m.Size)
	}
	switch {
	case !body.Canonical():
		m.Body = smtp.BodyBinaryMIME
		p.WriteString(" BODY=BINARYMIME")
	case body.Has8Bit() && c.Has(smtp.Ext8BitMIME):
		m.Body = smtp.Body8BitMIME
		p.WriteString(" BODY=8BITMIME")
	default:
		m.Body = smtp.BodyDefault
	}
	if e.UTF8 {
		p.WriteString(" SMTPUTF8")
	}
	if e.RequireTLS {
		p.WriteString(" REQUIRETLS")
	}
	if c.Has(smtp.ExtDSN) {
		if e.Ret != "" {
			p.WriteString(" RET=" + e.Ret)
		}
		if e.EnvID != "" {
			p.WriteString(" ENVID=" + e.EnvID)
		}
	}
	m.Params = smtp.Params(p.String())
	return m
}

// rcpts are the arguments of RCPT for those that are asked.
func (t *try) rcpts(dsn bool) []smtp.Rcpt {
	out := make([]smtp.Rcpt, len(t.asked))
	for k, i := range t.asked {
		r := &t.l.Envelope.Rcpts[i]
		out[k] = smtp.Rcpt{Path: smtp.Path{Address: r.Address, Domain: r.Domain()}}
		if !dsn {
			continue
		}
		p := ""
		if r.Notify != 0 {
			p = " NOTIFY=" + notifyText(r.Notify)
		}
		if r.ORcpt != "" {
			p += " ORCPT=" + r.ORcpt
		}
		out[k].Params, out[k].Notify, out[k].ORcpt = smtp.Params(p), r.Notify, r.ORcpt
	}
	return out
}

func notifyText(n smtp.Notify) string {
	if n == smtp.NotifyNever {
		return "NEVER"
	}
	var words []string
	for _, w := range []struct {
		bit  smtp.Notify
		name string
	}{{smtp.NotifySuccess, "SUCCESS"}, {smtp.NotifyFailure, "FAILURE"}, {smtp.NotifyDelay, "DELAY"}} {
		if n&w.bit != 0 {
			words = append(words, w.name)
		}
	}
	return strings.Join(words, ",")
}

// unfit tells why the destination cannot take this message, as the standards have it (DEL3).
func (t *try) unfit(c *relay.Caps, body *smtp.Body) (spool.Reply, bool) {
	e := &t.l.Envelope
	switch {
	case e.UTF8 && !c.Has(smtp.ExtSMTPUTF8): // RFC 6531 3.5
		return ours(553, smtp.Enhanced{5, 6, 7}, "the destination does not take internationalized mail (SMTPUTF8)"), false
	case !body.Canonical() && !(c.Has(smtp.ExtBinaryMIME) && c.Has(smtp.ExtChunking)):
		return ours(554, smtp.Enhanced{5, 6, 3}, "the message is binary, and the destination takes text alone"), false
	}
	return spool.Reply{}, true
}
