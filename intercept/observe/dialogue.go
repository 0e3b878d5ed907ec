package observe

import (
	"bytes"
	"fmt"
	"time"

	"sluice/intercept/control"
	"sluice/proxy/smtp"
)

// asked is what a reply answers.
type asked uint8

const (
	askedGreeting asked = iota
	askedHello
	askedMail
	askedRcpt
	askedData
	askedEnd // of the message
	askedReset
	askedTLS
	askedAuth
	askedOther
)

// question is a command that waits for its reply.
type question struct {
	what asked
	arg  string
}

// maxQuestions bounds commands without a reply; the bound on bytes would allow thousands.
const maxQuestions = 1024

// dialogue reads both directions of one flow. Its source bounds how many bytes it gets of each; what a direction says from
// there is not known. It never fails: what it cannot read makes the record say so.
type dialogue struct {
	client, server []byte  // not read yet
	full           [2]bool // by direction, the server's second: nothing more is copied
	open           []question
	wait           bool // the client's next bytes mean what the reply says
	body           bool // until a lone dot
	token          bool // the next line belongs to AUTH
	skip           int64
	blind          bool // the client's bytes cannot be read further
	deaf           bool // nor the server's
	message        *control.ObservedMessage
	out            control.Observed
}

func newDialogue() *dialogue {
	return &dialogue{open: []question{{what: askedGreeting}}}
}

// add takes further bytes of one direction.
func (d *dialogue) add(server bool, b []byte, at time.Time) {
	if d.out.Opaque {
		return
	}
	if server {
		d.server = append(d.server, b...)
	} else {
		d.client = append(d.client, b...)
	}
	d.read(at)
}

// fill says that nothing more of a direction will come, though it may say more.
func (d *dialogue) fill(server bool, at time.Time) {
	if server {
		d.full[1] = true
	} else {
		d.full[0] = true
	}
	d.read(at)
}

// gap says that bytes of a direction are missing.
func (d *dialogue) gap(server bool) {
	d.out.Lossy = true
	if server {
		d.deaf = true
		return
	}
	d.blind = true
	d.leaveBody()
}

// leaveBody goes on without having seen the dot: its reply is heard all the same.
func (d *dialogue) leaveBody() {
	if d.body {
		d.body = false
		d.open = append(d.open, question{what: askedEnd})
	}
}

// read goes on as far as both sides allow: a reply may be here before its command.
func (d *dialogue) read(at time.Time) {
	for d.commands() || d.reply(at) {
	}
	if d.out.Opaque {
		d.client, d.server = nil, nil
	}
}

// commands reads what the client said; it tells whether it came further.
func (d *dialogue) commands() bool {
	if d.blind || d.wait || d.out.Opaque || len(d.open) >= maxQuestions {
		return false
	}
	switch {
	case d.skip > 0:
		n := min(d.skip, int64(len(d.client)))
		d.client, d.skip = d.client[n:], d.skip-n
		if d.skip > 0 {
			return d.cutOff()
		}
		return true
	case d.body:
		return d.readBody()
	}
	end := bytes.IndexByte(d.client, '\n')
	if end < 0 {
		return d.cutOff()
	}
	line := bytes.TrimSuffix(d.client[:end], []byte("\r"))
	d.client = d.client[end+1:]
	d.command(line)
	return true
}

// cutOff ends the reading of a client who said more than is copied. The reply to an unfinished message is still heard.
func (d *dialogue) cutOff() bool {
	if d.full[0] {
		d.blind, d.out.Truncated = true, true
	}
	return false
}

// readBody looks for the lone dot.
func (d *dialogue) readBody() bool {
	rest := d.client
	for {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			break
		}
		if line := bytes.TrimSuffix(rest[:end], []byte("\r")); len(line) == 1 && line[0] == '.' {
			d.client, d.body = rest[end+1:], false
			d.open = append(d.open, question{what: askedEnd})
			return true
		}
		rest = rest[end+1:]
	}
	d.client = rest // only an unfinished line is kept
	if d.full[0] {
		d.cutOff()
		d.leaveBody()
		return true
	}
	return false
}

func (d *dialogue) command(line []byte) {
	if d.token {
		d.token, d.wait = false, true
		d.open = append(d.open, question{what: askedAuth})
		return
	}
	c := smtp.ParseCommand(line)
	arg := string(c.Arg)
	q := question{what: askedOther, arg: arg}
	switch c.Verb {
	case smtp.EHLO, smtp.HELO:
		q.what = askedHello
	case smtp.MAIL:
		q.what = askedMail
		if m, err := smtp.ParseMail(arg); err == nil {
			q.arg = m.Address
		}
	case smtp.RCPT:
		q.what = askedRcpt
		if r, err := smtp.ParseRcpt(arg); err == nil {
			q.arg = r.Address
		}
	case smtp.DATA:
		q.what, d.wait = askedData, true
	case smtp.BDAT:
		size, last, err := smtp.ParseBDAT(arg)
		if err == nil {
			d.skip = size
		}
		if last {
			q.what = askedEnd
		}
	case smtp.RSET:
		q.what = askedReset
	case smtp.STARTTLS:
		q.what, d.wait = askedTLS, true
	case smtp.AUTH:
		q.what, q.arg, d.wait = askedAuth, "", true // its argument is a secret
	}
	d.open = append(d.open, q)
}

// reply reads the next reply, if it is whole and its command is known; it tells whether it came further.
func (d *dialogue) reply(at time.Time) bool {
	if d.deaf || d.out.Opaque || len(d.open) == 0 {
		return false
	}
	code, text, n, err := smtp.CutReply(d.server)
	if err != nil {
		d.gap(true)
		return false
	}
	if n == 0 {
		if d.full[1] {
			d.deaf, d.out.Truncated = true, true
		}
		return false
	}
	d.server = d.server[n:]
	d.last(code, text)
	q := d.open[0]
	d.open = d.open[1:]
	d.answer(q, code, text, at)
	return true
}

func (d *dialogue) last(code int, text string) { d.out.Last = fmt.Sprintf("%d %s", code, text) }

func (d *dialogue) answer(q question, code int, text string, at time.Time) {
	good := code/100 == 2
	switch q.what {
	case askedHello:
		if good {
			d.finish(at)
			d.out.Helo = q.arg
		}
	case askedMail:
		d.mail(q.arg, code, text, at)
	case askedRcpt:
		if d.message != nil {
			d.message.To = append(d.message.To, control.ObservedRecipient{Address: q.arg, Code: code, Reply: text})
			d.message.Code, d.message.Reply = code, text
		}
	case askedData:
		d.wait = false
		if code/100 == 3 {
			d.body = true
		} else {
			d.end(code, text, false, at)
		}
	case askedEnd:
		d.end(code, text, true, at)
	case askedReset:
		d.finish(at)
	case askedTLS:
		d.wait = false
		if good {
			d.finish(at)
			d.out.Opaque = true
		}
	case askedAuth:
		d.wait, d.token = false, code == 334
	}
}

// mail begins a message, or puts down one that was refused at once.
func (d *dialogue) mail(from string, code int, text string, at time.Time) {
	good := code/100 == 2
	if !good && d.message != nil { // inside another one: out of order
		return
	}
	d.finish(at)
	d.message = &control.ObservedMessage{Start: at, From: from, Code: code, Reply: text}
	if !good {
		d.finish(at)
	}
}

// end finishes the message with the reply that decided it.
func (d *dialogue) end(code int, text string, whole bool, at time.Time) {
	if d.message == nil {
		return
	}
	d.message.Code, d.message.Reply, d.message.Whole = code, text, whole
	d.finish(at)
}

// finish puts the message down as it is.
func (d *dialogue) finish(at time.Time) {
	if d.message == nil {
		return
	}
	d.message.End = at
	d.out.Messages = append(d.out.Messages, *d.message)
	d.message = nil
}

// farewell hears what nobody asked for, such as 421.
func (d *dialogue) farewell() {
	if d.deaf || len(d.open) > 0 {
		return
	}
	switch code, text, n, err := smtp.CutReply(d.server); {
	case err != nil:
		d.out.Lossy = true
	case n > 0:
		d.last(code, text)
	}
}

// close ends the reading and gives the record. What was asked and never answered stands in it without a code.
func (d *dialogue) close(at time.Time) *control.Observed {
	if !d.out.Opaque {
		for _, q := range d.open {
			switch q.what {
			case askedMail:
				d.finish(at)
				d.message = &control.ObservedMessage{Start: at, From: q.arg}
			case askedRcpt:
				if d.message != nil {
					d.message.To = append(d.message.To, control.ObservedRecipient{Address: q.arg})
				}
			case askedEnd:
				if d.message != nil {
					d.message.Code, d.message.Reply = 0, ""
				}
			}
		}
		d.farewell()
		d.finish(at)
	}
	d.out.End = at
	return &d.out
}
