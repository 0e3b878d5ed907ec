package notify

import (
	"bytes"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"strings"
	"time"
)

// Mail is one notice by mail.
type Mail struct {
	Gateway string // fully qualified name
	From    string // mailbox that stands as the author
	ReplyTo string // mailbox, or "" for none
	To      string // mailbox
	ID      string // left half of the Message-ID: the same for each try to send the same notice
	Date    time.Time
	Subject string
	Text    string
}

// Bytes returns the message, lines ended by CRLF, in ASCII whatever the text. It says that nobody wrote it (RFC 3834 5);
// it is to be sent with the null sender, so that nothing answers it.
func (m *Mail) Bytes() []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: <%s>", clean(m.From))
	line("To: <%s>", clean(m.To))
	if m.ReplyTo != "" {
		line("Reply-To: <%s>", clean(m.ReplyTo))
	}
	line("Subject: %s", mime.QEncoding.Encode("utf-8", clean(m.Subject)))
	line("Date: %s", m.Date.Format(time.RFC1123Z))
	line("Message-ID: <%s@%s>", clean(m.ID), m.Gateway)
	line("Auto-Submitted: auto-generated")
	line("MIME-Version: 1.0")
	line("Content-Type: text/plain; charset=utf-8")
	line("Content-Transfer-Encoding: quoted-printable")
	line("")
	q := quotedprintable.NewWriter(&b)
	_, _ = q.Write([]byte(strings.ReplaceAll(m.Text, "\n", "\r\n"))) // into memory
	_ = q.Close()
	return b.Bytes()
}

// clean keeps a value from ending its line.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}
