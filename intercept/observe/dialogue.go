package observe

import (
	"bytes"
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
	askedChunk // that is not the last
	askedEnd   // of the message
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

// Bounds of what a dialogue remembers, whoever speaks.
const (
	maxQuestions = 1024      // commands without a reply
	maxUnread    = 64 << 10  // bytes of one direction that wait for the other
	maxRcpts     = 2000      // of one message
	maxText      = 512       // of a reply
	maxKept      = 128 << 10 // bytes of one message: envelope, replies and the beginning of its body
)

// dialogue reads both directions of one flow. Its source copies the beginning of what a side says before the other speaks
// again, and says where it leaves off and goes on. A dialogue never fails: what it cannot read makes the record say so.
type dialogue struct {
	client, server []byte  // not read yet
	full           [2]bool // by direction, the server's second: what it says now is not copied
	open           []question
	wait           bool // the client's next bytes mean what the reply says
	body           bool // until a lone dot
	dots           smtp.DotReader
	token          bool // the next line belongs to AUTH
	skip           int64
	left           bool // in the midst of a message, whose rest is not read: its reply ends it
	lost           bool // commands were not copied; until the copying goes on
	stopped        bool // it is read no further
	adrift         bool // replies cannot be told apart before a command that begins anew
	turn           bool // the server has spoken since the last command
	check          bool // the next line comes after what was not copied
	message        *control.ObservedMessage
	part           bool      // of the message's body only a part is there
	kept           int       // bytes in message
	at             time.Time // of the last bytes
	out            control.Observed
	told           func(control.ObservedMessage)
}

func newDialogue(told func(control.ObservedMessage)) *dialogue {
	return &dialogue{open: []question{{what: askedGreeting}}, told: told}
}

// held is about how many bytes of memory hang on the dialogue.
func (d *dialogue) held() int {
	return cap(d.client) + cap(d.server) + d.kept + 32*cap(d.open)
}

// add takes further bytes of one direction.
func (d *dialogue) add(server bool, b []byte, at time.Time) {
	if d.out.Opaque || d.stopped || !server && d.left {
		return
	}
	unread := &d.client
	if server {
		unread, d.turn = &d.server, true
	}
	if len(*unread)+len(b) > maxUnread {
		d.gap(server)
		return
	}
	*unread = append(*unread, b...)
	d.read(at)
}

// fill says that the rest of what a direction says now is not copied.
func (d *dialogue) fill(server bool, at time.Time) {
	if server {
		d.full[1] = true
	} else {
		d.full[0] = true
	}
	d.read(at)
}

// resume says that a direction is copied again after n bytes that were not.
func (d *dialogue) resume(server bool, n int64, at time.Time) {
	if d.out.Opaque {
		return
	}
	if server {
		if d.full[1] = false; n > 0 {
			d.server = nil
			d.goAdrift()
		}
		return
	}
	d.read(at)
	if d.full[0] = false; n == 0 && !d.left && !d.lost {
		return
	}
	in := d.skip > 0 || d.left
	d.client, d.check = nil, true
	switch {
	case d.skip > 0:
		d.part = true
		d.skip -= n
		in = d.skip >= 0
		d.skip = max(0, d.skip)
	case d.body:
		d.leaveBody()
		in = true
	}
	d.left, d.lost = false, false
	if !in || d.wait {
		d.goAdrift()
	}
}

// goAdrift gives up the present message and waits for a new beginning.
func (d *dialogue) goAdrift() {
	d.adrift, d.out.Lossy, d.wait, d.body, d.left, d.skip, d.token = true, true, false, false, false, 0, false
	d.open = nil
}

// gap says that bytes of a direction are missing.
func (d *dialogue) gap(server bool) {
	if d.out.Lossy = true; d.body && !server {
		d.leaveBody()
		d.client = nil
		return
	}
	d.goAdrift()
	d.client, d.server = nil, nil
}

// stop ends the reading for good and lets go of everything.
func (d *dialogue) stop() {
	d.goAdrift()
	d.stopped, d.client, d.server, d.message, d.kept = true, nil, nil, nil, 0
}

// leaveBody goes on without having seen the dot: its reply is heard all the same.
func (d *dialogue) leaveBody() {
	if d.body {
		d.body, d.part, d.left = false, true, true
		d.open = append(d.open, question{what: askedEnd})
	}
}

// read goes on as far as both sides allow: a reply may be here before its command.
func (d *dialogue) read(at time.Time) {
	d.at = at
	for d.commands() || d.reply(at) {
	}
	if d.out.Opaque {
		d.client, d.server = nil, nil
	}
	if len(d.client) == 0 {
		d.client = nil // an idle flow holds no buffer
	}
	if len(d.server) == 0 {
		d.server = nil
	}
}

// commands reads what the client said; it tells whether it came further.
func (d *dialogue) commands() bool {
	if d.stopped || d.lost || d.left || d.wait || d.out.Opaque || len(d.open) >= maxQuestions {
		return false
	}
	switch {
	case d.skip > 0:
		n := min(d.skip, int64(len(d.client)))
		d.keep(d.client[:n])
		d.client, d.skip = d.client[n:], d.skip-n
		return d.skip == 0
	case d.body:
		return d.readBody()
	}
	end := bytes.IndexByte(d.client, '\n')
	if end < 0 {
		if d.full[0] {
			d.lost = true
		}
		return false
	}
	line := bytes.TrimSuffix(d.client[:end], []byte("\r"))
	d.client = d.client[end+1:]
	d.command(line)
	return true
}

// readBody looks for the lone dot.
func (d *dialogue) readBody() bool {
	text, rest, ended := d.dots.Read(d.client)
	d.keep(text)
	d.client = rest
	switch {
	case ended:
		d.body = false
		d.open = append(d.open, question{what: askedEnd})
		return true
	case d.full[0]:
		d.leaveBody()
		return true
	}
	return false
}

// keep remembers a part of the message.
func (d *dialogue) keep(p []byte) {
	m := d.message
	if m == nil || len(p) == 0 {
		return
	}
	m.Size += int64(len(p))
	if !d.part && d.kept+len(p) <= maxKept {
		m.Body = append(m.Body, p...)
		d.kept += len(p)
	} else {
		d.part = true
	}
}

func (d *dialogue) command(line []byte) {
	turn := d.turn
	d.turn = false
	if d.token {
		d.token, d.wait = false, true
		d.open = append(d.open, question{what: askedAuth})
		return
	}
	c := smtp.ParseCommand(line)
	if !d.placed(c.Verb, turn) {
		return
	}
	arg := string(c.Arg)
	q := question{what: askedOther, arg: arg}
	switch c.Verb {
	case smtp.EHLO, smtp.HELO:
		q.what = askedHello
	case smtp.MAIL:
		q.what = askedMail
	case smtp.RCPT:
		q.what = askedRcpt
	case smtp.DATA:
		q.what, d.wait = askedData, true
	case smtp.BDAT:
		size, last, err := smtp.ParseBDAT(arg)
		if q.what = askedChunk; err == nil {
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

// placed tells whether a command stands where its reply will be known. After bytes that were not copied it may be none,
// and replies to commands that were among them may be here.
func (d *dialogue) placed(verb smtp.Verb, turn bool) bool {
	if d.check {
		d.check = false
		if verb == smtp.Unknown {
			d.goAdrift()
		} else if len(d.open) == 0 && len(d.server) > 0 {
			d.server, d.out.Lossy = nil, true
		}
	}
	if !d.adrift {
		return true
	}
	switch verb {
	case smtp.MAIL, smtp.EHLO, smtp.HELO, smtp.RSET:
		if !turn {
			return false
		}
		d.finish(d.at)
		d.adrift, d.open, d.server = false, nil, nil
		return true
	}
	return false
}
