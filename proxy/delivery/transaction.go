package delivery

import (
	"fmt"
	"strings"

	"sluice/proxy/relay"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

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
	case e.RequireTLS && !(c.Encrypted && c.Verified && c.Has(smtp.ExtRequireTLS)): // RFC 8689 4.2.1
		return ours(554, smtp.Enhanced{5, 7, 30}, "REQUIRETLS is asked for, and the destination cannot keep it"), false
	case !body.Canonical() && !(c.Has(smtp.ExtBinaryMIME) && c.Has(smtp.ExtChunking)):
		return ours(554, smtp.Enhanced{5, 6, 3}, "the message is binary, and the destination takes text alone"), false
	}
	return spool.Reply{}, true
}
