package proxy

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"sluice/proxy/smtp"
)

// Bounds of what a tap remembers of a dialogue that it does not lead; beyond them it goes blind, and the bytes flow on.
const (
	tapLine  = 4 << 10  // bytes of one command or reply line that are looked at
	tapHeld  = 64 << 10 // bytes of the client behind a command whose reply decides what they are
	tapAsked = 1000     // commands without a reply yet
)

// tap reads the dialogue of a client and a destination that speak with each other, and finds the messages in it. It
// changes nothing and keeps nobody waiting. One caller at a time.
type tap struct {
	room   func(delta int) bool // for bytes of a body in memory
	most   int                  // of them for one body
	done   func(*overheard)     // a transaction has ended
	state  tapState
	blind  string // why nothing can be read any more
	line   lineBuffer
	held   []byte
	asked  []asked
	answer lineBuffer
	greets bool // the greeting came
	more   bool // the reply goes on in the next line
	chunk  int64
	dots   smtp.DotReader
	helo   string
	heard  string // the destination's last reply
	tx     *overheard
}

// tapState is what the client's next bytes are.
type tapState uint8

const (
	tapCommand tapState = iota
	tapHold             // they cannot be told before the reply to DATA or STARTTLS
	tapBody
	tapChunk
)

// asked is a command that was not answered yet.
type asked struct {
	verb string // "" for the end of a message
	arg  string
}

// overheard is a transaction that the tap saw.
type overheard struct {
	Overheard
	code  int // the reply that ended it; 0: there was none
	reply string
	sent  bool // it came to its end, and no answer came
}

// lineBuffer gathers a line and forgets what is too long of it.
type lineBuffer struct{ b []byte }

// add takes bytes up to a line end; it returns the line without its end once that came, and the rest.
func (l *lineBuffer) add(p []byte) (line string, ok bool, rest []byte) {
	n := bytes.IndexByte(p, '\n')
	if n < 0 {
		l.b = append(l.b, p[:min(len(p), tapLine-min(len(l.b), tapLine))]...)
		return "", false, nil
	}
	l.b = append(l.b, p[:min(n, tapLine-min(len(l.b), tapLine))]...)
	line = strings.TrimRight(string(l.b), "\r")
	l.b = l.b[:0]
	return line, true, p[n+1:]
}

// fromClient reads what the client says, before the destination hears it.
func (t *tap) fromClient(p []byte) {
	for len(p) > 0 && t.blind == "" {
		switch t.state {
		case tapCommand:
			line, ok, rest := t.line.add(p)
			if p = rest; ok {
				t.command(line)
			}
		case tapHold:
			if len(t.held)+len(p) > tapHeld {
				t.goBlind("the client did not wait for a reply")
				return
			}
			t.held = append(t.held, p...)
			return
		case tapBody:
			p = t.body(p)
		case tapChunk:
			n := min(t.chunk, int64(len(p)))
			t.keep(p[:n])
			t.chunk -= n
			p = p[n:]
			if t.chunk == 0 {
				t.state = tapCommand
			}
		}
	}
}

func (t *tap) command(line string) {
	verb, arg, _ := strings.Cut(line, " ")
	verb, arg = strings.ToUpper(verb), strings.Trim(arg, " \t")
	switch verb {
	case "":
		verb = "?"
	case "DATA", "STARTTLS":
		t.state = tapHold
	case "BDAT":
		size, last, err := smtp.ParseBDAT(arg)
		if err != nil {
			t.goBlind("a BDAT that cannot be read")
			return
		}
		if t.chunk = size; size > 0 {
			t.state = tapChunk
		}
		if last {
			arg = "LAST"
		}
	}
	t.expect(verb, arg)
}

func (t *tap) expect(verb, arg string) {
	if len(t.asked) >= tapAsked {
		t.goBlind("too many commands without a reply")
		return
	}
	t.asked = append(t.asked, asked{verb, arg})
}

// body takes bytes of a message behind DATA and returns what follows its end.
func (t *tap) body(p []byte) []byte {
	text, rest, ended := t.dots.Read(p)
	t.keep(text)
	if ended {
		t.state = tapCommand
		t.expect("", "")
	}
	return rest
}

// keep remembers a part of the message, as far as there is room.
func (t *tap) keep(p []byte) {
	if t.tx == nil {
		return
	}
	t.tx.Size += int64(len(p))
	n := min(len(p), t.most-len(t.tx.Body))
	if n > 0 && int64(len(t.tx.Body)+len(p)) == t.tx.Size && t.room(n) {
		t.tx.Body = append(t.tx.Body, p[:n]...)
	}
}

func (t *tap) goBlind(why string) {
	t.end()
	t.blind, t.held, t.asked = why, nil, nil
}

// fromServer reads what the destination says, before the client hears it.
func (t *tap) fromServer(p []byte) {
	for len(p) > 0 && t.blind == "" {
		line, ok, rest := t.answer.add(p)
		if p = rest; !ok {
			return
		}
		code, err := strconv.Atoi(line[:min(3, len(line))])
		if err != nil || code < 100 || code > 599 {
			t.goBlind("the destination does not speak SMTP")
			return
		}
		if t.more = len(line) > 3 && line[3] == '-'; t.more {
			continue
		}
		t.heard = line[:min(len(line), mostLine)]
		t.replied(code)
	}
}

// replied books a reply to the oldest command without one.
func (t *tap) replied(code int) {
	if !t.greets {
		t.greets = true
		return
	}
	if len(t.asked) == 0 { // an unasked 421, most likely
		return
	}
	a := t.asked[0]
	t.asked = t.asked[1:]
	good := code/100 == 2
	switch a.verb {
	case "EHLO", "HELO":
		if good {
			t.end()
			t.helo = a.arg
		}
	case "MAIL":
		t.begin(a.arg, code)
	case "RCPT":
		t.rcpt(a.arg, code)
	case "DATA":
		t.release(code == 354, tapBody)
	case "STARTTLS":
		t.release(false, tapCommand)
		if code == 220 {
			t.goBlind("encrypted: the client went STARTTLS with the destination")
		}
	case "BDAT":
		if a.arg == "LAST" || !good {
			t.final(code)
		}
	case "":
		t.final(code)
	case "RSET":
		if good {
			t.end()
		}
	}
}

// release lets the bytes that were held be read for what they are.
func (t *tap) release(body bool, state tapState) {
	held := t.held
	t.held, t.state = nil, tapCommand
	if body {
		t.state, t.dots = state, smtp.NewDotReader()
	}
	t.fromClient(held)
}

func (t *tap) begin(arg string, code int) {
	mail, err := smtp.ParseMail(arg)
	if code/100 != 2 && (t.tx != nil || err != nil) {
		return // nested, or a mistake that the destination saw, too
	}
	t.end() // it took a nested one: what was open is over
	if err != nil {
		mail.Address = strings.Clone(arg)
	}
	t.tx = &overheard{Overheard: Overheard{Start: time.Now(), Helo: t.helo, Mail: mail, Wrong: err}}
	if code/100 != 2 {
		t.tx.code, t.tx.reply = code, t.heard
		t.end()
	}
}

func (t *tap) rcpt(arg string, code int) {
	if t.tx == nil || len(t.tx.To) >= mostRcpts {
		return
	}
	r, err := smtp.ParseRcpt(arg)
	if err != nil && code/100 != 2 {
		return
	}
	t.tx.To = append(t.tx.To, Recipient{Address: strings.Clone(r.Address), Code: code, Reply: t.heard[min(4, len(t.heard)):]})
}

// final books the reply to the end of a message.
func (t *tap) final(code int) {
	if t.tx != nil {
		t.tx.code, t.tx.reply, t.tx.Whole = code, t.heard, true
		t.end()
	}
}

// end hands over the open transaction, if there is one.
func (t *tap) end() {
	if t.tx != nil {
		tx := t.tx
		t.tx = nil
		t.done(tx)
	}
}

// close hands over what the end of the connection left open.
func (t *tap) close() {
	for _, a := range t.asked {
		if t.tx != nil && (a.verb == "" || a.verb == "BDAT" && a.arg == "LAST") {
			t.tx.sent = true
		}
	}
	t.end()
}

// settled tells whether every message whose end was passed on has its answer, so that none hangs in the air when the
// connection ends here. Of what is encrypted nobody can tell.
func (t *tap) settled() bool {
	if t.state == tapHold && len(t.held) > 0 { // a client that does not wait may have sent the whole message
		return false
	}
	for _, a := range t.asked {
		if a.verb == "" || a.verb == "BDAT" && a.arg == "LAST" {
			return false
		}
	}
	return true
}

// between tells whether a reply of ours would be understood: the dialogue is plain and no reply is half said.
func (t *tap) between() bool { return t.blind == "" && t.greets && !t.more && len(t.answer.b) == 0 }

// open tells whether something would be lost if the connection ended now.
func (t *tap) open() bool { return t.tx != nil || len(t.asked) > 0 || t.state != tapCommand }
