// Package dsn writes notices that tell a sender what became of a message (RFC 3464).
package dsn

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"sluice/proxy/smtp"
)

// The actions of RFC 3464 2.3.3.
const (
	Failed  = "failed"
	Delayed = "delayed"
	Relayed = "relayed"
)

// Report is one notice about one message.
type Report struct {
	Reporter string    // name of the gateway
	To       string    // who hears of it
	From     string    // the sender of the message
	Message  string    // its id in the gateway's log
	EnvID    string    // ENVID of the message, xtext as written; "" where it had none
	Arrived  time.Time // of the message
	ID       string    // left half of the notice's Message-ID
	Now      time.Time
	Rcpts    []Rcpt
	Original []byte // the message, or its header
	Full     bool   // Original is the whole message
}

// Rcpt is what is said about one recipient.
type Rcpt struct {
	Original    string // ORCPT as written; "" where there was none
	Final       string
	Action      string
	Status      smtp.Enhanced
	RemoteMTA   string // who answered; "" where nobody did
	Remote      bool   // code and text are those of RemoteMTA, and not ours
	Code        int
	Text        string
	LastAttempt time.Time
	Until       time.Time // for how long it will be tried; of a delay
	Expired     bool
}

// UTF8 tells whether the notice itself needs SMTPUTF8 on its way.
func (r *Report) UTF8() bool { return !ascii(r.To) }

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// Make writes the notice, lines ended by CRLF. An error says what is missing.
func (r *Report) Make() ([]byte, error) {
	if r.To == "" || len(r.Rcpts) == 0 {
		return nil, errors.New("a notice needs somebody to hear it and something to say")
	}
	var b bytes.Buffer
	mark := r.boundary()
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: Mail delivery <postmaster@%s>", r.Reporter)
	line("To: <%s>", clean(r.To))
	line("Subject: %s", r.subject())
	line("Date: %s", r.Now.Format(time.RFC1123Z))
	line("Message-ID: <%s@%s>", clean(r.ID), r.Reporter)
	line("Auto-Submitted: auto-replied") // RFC 3834 5
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"%s\"", mark)
	line("")
	line("--%s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n", mark)
	r.words(line)
	line("\r\n--%s", mark)
	if r.global() { // RFC 6533
		line("Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n")
	} else {
		line("Content-Type: message/delivery-status\r\n")
	}
	r.status(line)
	line("--%s", mark)
	r.original(&b, line)
	line("--%s--", mark)
	return b.Bytes(), nil
}

// boundary is a line that does not stand in what is returned.
func (r *Report) boundary() string {
	for i := 0; ; i++ {
		m := fmt.Sprintf("=_notice_%x_%d", r.Now.UnixNano(), i)
		if !bytes.Contains(r.Original, []byte(m)) {
			return m
		}
	}
}

func (r *Report) subject() string {
	switch r.worst() {
	case Failed:
		return "Undelivered mail"
	case Delayed:
		return "Delayed mail (still being tried)"
	}
	return "Relayed mail"
}

func (r *Report) worst() string {
	worst := Relayed
	for _, p := range r.Rcpts {
		if p.Action == Failed {
			return Failed
		}
		if p.Action == Delayed {
			worst = Delayed
		}
	}
	return worst
}

// words says it to people.
func (r *Report) words(line func(string, ...any)) {
	line("This is the mail gateway %s.", r.Reporter)
	for _, group := range []struct{ action, text string }{
		{Failed, "Your message could not be delivered to:"},
		{Delayed, "Your message could not be delivered yet; that goes on being tried. You need not send it again. It waits for:"},
		{Relayed, "Your message was handed to a server that does not confirm delivery. No further notice will come for:"},
	} {
		said := false
		for i := range r.Rcpts {
			p := &r.Rcpts[i]
			if p.Action != group.action {
				continue
			}
			if !said {
				line("\r\n%s", group.text)
				said = true
			}
			line("\r\n    <%s>", clean(p.Final))
			if p.Expired {
				line("    It was tried for as long as mail is tried here. The last answer was:")
			}
			if p.Text != "" {
				line("    %s", clean(p.said()))
			}
			if !p.Until.IsZero() {
				line("    It is tried until %s.", p.Until.UTC().Format(time.RFC1123Z))
			}
		}
	}
	line("\r\nThe message came from <%s> on %s; the gateway's log knows it as %s.", clean(r.From), r.Arrived.UTC().Format(time.RFC1123Z), clean(r.Message))
}

func (p *Rcpt) said() string {
	switch {
	case p.RemoteMTA != "":
		return fmt.Sprintf("%s said: %d %s", p.RemoteMTA, p.Code, p.Text)
	case p.Action == Relayed:
		return p.Text
	}
	return p.Text
}

// global tells whether an address needs UTF-8.
func (r *Report) global() bool {
	for i := range r.Rcpts {
		if !ascii(r.Rcpts[i].Final) {
			return true
		}
	}
	return false
}

// status writes the part for programs (RFC 3464 2.2, 2.3).
func (r *Report) status(line func(string, ...any)) {
	if r.EnvID != "" {
		line("Original-Envelope-Id: %s", clean(unxtext(r.EnvID)))
	}
	line("Reporting-MTA: dns; %s", r.Reporter)
	line("Arrival-Date: %s\r\n", r.Arrived.Format(time.RFC1123Z))
	for i := range r.Rcpts {
		p := &r.Rcpts[i]
		kind := "rfc822"
		if !ascii(p.Final) {
			kind = "utf-8"
		}
		if t, addr, ok := strings.Cut(p.Original, ";"); ok {
			line("Original-Recipient: %s;%s", clean(t), clean(unxtext(addr)))
		}
		line("Final-Recipient: %s; %s", kind, clean(p.Final))
		line("Action: %s", p.Action)
		line("Status: %s", p.Status)
		if p.RemoteMTA != "" {
			line("Remote-MTA: dns; %s", clean(strings.Trim(p.RemoteMTA, "[]")))
		}
		if p.Remote && p.Code > 0 {
			line("Diagnostic-Code: smtp; %s", fold(clean(fmt.Sprintf("%d %s", p.Code, p.Text))))
		}
		if !p.LastAttempt.IsZero() {
			line("Last-Attempt-Date: %s", p.LastAttempt.Format(time.RFC1123Z))
		}
		if !p.Until.IsZero() {
			line("Will-Retry-Until: %s", p.Until.Format(time.RFC1123Z))
		}
		line("")
	}
}

// original returns the message, or its header.
func (r *Report) original(b *bytes.Buffer, line func(string, ...any)) {
	kind := "text/rfc822-headers"
	if r.Full {
		kind = "message/rfc822"
	}
	if !ascii(string(r.Original)) {
		line("Content-Type: %s\r\nContent-Transfer-Encoding: 8bit\r\n", kind)
	} else {
		line("Content-Type: %s\r\n", kind)
	}
	b.Write(r.Original)
	if !bytes.HasSuffix(r.Original, []byte("\r\n")) {
		line("")
	}
}

// clean makes one harmless line of a stranger's words.
func clean(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 900 {
		s = s[:900]
		for !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
	}
	return s
}

// fold breaks a field at blanks, so that no line is longer than 78 characters where that can be.
func fold(s string) string {
	var b strings.Builder
	width := len("Diagnostic-Code: smtp; ")
	for i, w := range strings.Fields(s) {
		switch {
		case i == 0:
		case width+1+len(w) > 76:
			b.WriteString("\r\n ")
			width = 1
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(w)
		width += len(w)
	}
	return b.String()
}

// unxtext undoes xtext (RFC 3461 4); what is none stays as it is.
func unxtext(s string) string {
	if !strings.Contains(s, "+") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		if s[i] == '+' && i+2 < len(s) {
			if n, err := fmt.Sscanf(s[i+1:i+3], "%02X", &c); err == nil && n == 1 {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
