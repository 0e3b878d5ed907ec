package observe

import (
	"fmt"
	"time"

	"sluice/intercept/control"
	"sluice/proxy/smtp"
)

// reply reads the next reply, if it is whole and its command is known; it tells whether it came further.
func (d *dialogue) reply(at time.Time) bool {
	if d.adrift {
		d.server = nil
		return false
	}
	if d.stopped || d.out.Opaque || len(d.open) == 0 {
		return false
	}
	code, text, n, err := smtp.CutReply(d.server)
	if err != nil {
		d.gap(true)
		return false
	}
	if n == 0 {
		return false
	}
	d.server = d.server[n:]
	text = text[:min(len(text), maxText)]
	d.last(code, text)
	q := d.open[0]
	d.open = d.open[1:]
	d.answer(q, code, text, at)
	return true
}

func (d *dialogue) last(code int, text string) { d.out.Last = fmt.Sprintf("%d %s", code, text) }

func (d *dialogue) answer(q question, code int, text string, at time.Time) {
	good := code/100 == 2
	if more := code/100 == 3; more && q.what < askedData || more && q.what == askedEnd || good && q.what == askedData {
		d.goAdrift() // no answer to this question
		return
	}
	switch q.what {
	case askedHello:
		if good {
			d.finish(at)
			d.out.Helo = q.arg
		}
	case askedMail:
		d.begin(q.arg, code, text, at)
	case askedRcpt:
		d.rcpt(q.arg, code, text)
	case askedData:
		d.wait = false
		if code == 354 {
			d.body, d.dots = true, smtp.NewDotReader()
		} else {
			d.heard(code, text)
		}
	case askedChunk:
		if !good {
			d.end(code, text, at)
		}
	case askedEnd:
		if d.left && !d.full[0] { // what comes now is a command again
			d.left, d.check = false, true
		}
		d.end(code, text, at)
	case askedReset:
		if good {
			d.finish(at)
		}
	case askedTLS:
		d.wait = false
		if code == 220 {
			d.finish(at)
			d.out.Opaque = true
		}
	case askedAuth:
		d.wait, d.token = false, code == 334
	}
}

// begin begins a message, or puts down one that was refused at once.
func (d *dialogue) begin(arg string, code int, text string, at time.Time) {
	mail, err := smtp.ParseMail(arg)
	good := code/100 == 2
	if !good && (d.message != nil || err != nil) {
		return // inside another one, or a mistake that the destination saw, too
	}
	d.finish(at)
	d.message, d.kept, d.part = d.newMessage(arg, mail, err, at), len(arg)+len(text), false
	d.heard(code, text)
	if !good {
		d.finish(at)
	}
}

func (d *dialogue) newMessage(arg string, mail smtp.Mail, err error, at time.Time) *control.ObservedMessage {
	m := &control.ObservedMessage{Start: at, From: mail.Address, Said: max(mail.Size, 0), UTF8: mail.UTF8, Eight: mail.Body == smtp.Body8BitMIME}
	if err != nil { // the destination took what is none
		m.From, m.Wrong = arg, true
	}
	return m
}

func (d *dialogue) rcpt(arg string, code int, text string) {
	m := d.message
	if m == nil || len(m.To) >= maxRcpts {
		return
	}
	r, err := smtp.ParseRcpt(arg)
	if err != nil && code/100 != 2 {
		return
	}
	if err == nil {
		arg = r.Address
	}
	if d.kept += len(arg) + len(text) + 64; d.kept > maxKept {
		text = ""
	}
	m.To = append(m.To, control.ObservedRecipient{Address: arg, Code: code, Reply: text})
	d.heard(code, text)
}

// heard remembers the last reply of the message.
func (d *dialogue) heard(code int, text string) {
	if d.message != nil {
		d.message.Code, d.message.Reply = code, text
	}
}

// end finishes the message with the reply that decided it.
func (d *dialogue) end(code int, text string, at time.Time) {
	if d.message != nil {
		d.heard(code, text)
		d.message.Whole = true
		d.finish(at)
	}
}

// finish puts the message down as it is.
func (d *dialogue) finish(at time.Time) {
	if d.message == nil {
		return
	}
	m := *d.message
	m.End = at
	m.Torn = !m.Whole && (d.adrift || d.lost || d.full[1])
	if d.part || d.adrift || !m.Whole && !m.Sent {
		m.Size = 0
	}
	d.message, d.kept = nil, 0
	d.told(m)
}

// farewell hears what nobody asked for, such as 421.
func (d *dialogue) farewell() {
	if d.adrift || len(d.open) > 0 {
		return
	}
	switch code, text, n, err := smtp.CutReply(d.server); {
	case err != nil:
		d.out.Lossy = true
	case n > 0:
		d.last(code, text[:min(len(text), maxText)])
	}
}

// breakOff puts the open message down: the connection was reset, or is over. What was asked and never answered is told
// without a code.
func (d *dialogue) breakOff(at time.Time) {
	for _, q := range d.open {
		switch q.what {
		case askedMail:
			d.finish(at)
			mail, err := smtp.ParseMail(q.arg)
			d.message, d.part = d.newMessage(q.arg, mail, err, at), false
		case askedRcpt:
			d.rcpt(q.arg, 0, "")
		case askedEnd:
			if d.message != nil {
				d.message.Code, d.message.Reply, d.message.Sent = 0, "", !d.left
			}
		}
	}
	d.farewell()
	d.finish(at)
	d.open = nil
}

// close ends the reading and gives the flow's record.
func (d *dialogue) close(at time.Time) *control.Observed {
	d.out.End = at
	if !d.out.Opaque {
		d.out.Truncated = d.out.Truncated || d.lost || d.full[1]
		d.breakOff(at)
	}
	return &d.out
}
