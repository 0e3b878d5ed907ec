package view

import (
	"bytes"
	"io"
	"mime"
	"strings"
	"unicode/utf8"

	"sluice/filter/message"
)

// header is what the header of a part says about its content.
type header struct {
	end         int // where the body begins
	contentType []byte
	encoding    []byte
	disposition []byte
	id          bool // it has a Content-ID
}

// fields calls yield for each field of data, folding left in, and returns where the body begins. Where a line is no
// field the header ends, and that line belongs to the body.
func fields(data []byte, yield func(name, value []byte)) int {
	at := 0
	for n := 0; at < len(data); n++ {
		end := lineEnd(data, at)
		if c := data[at]; (c == '\r' || c == '\n') && len(bytes.TrimRight(data[at:end], "\r\n")) == 0 {
			return end
		}
		colon := bytes.IndexByte(data[at:end], ':')
		if colon <= 0 {
			return at
		}
		name := message.Name(data[at : at+colon])
		if bytes.IndexByte(name, ' ') >= 0 {
			return at
		}
		for end < len(data) && (data[end] == ' ' || data[end] == '\t') {
			end = lineEnd(data, end)
		}
		if n < maxFields && colon <= maxName {
			yield(name, bytes.TrimSpace(data[at+colon+1:end]))
		}
		at = end
	}
	return at
}

// lineEnd returns the offset behind the line that starts at at.
func lineEnd(data []byte, at int) int {
	if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(data)
}

func (h *header) take(name, value []byte) {
	if len(name) < 10 || name[0]|0x20 != 'c' {
		return
	}
	switch {
	case h.contentType == nil && strings.EqualFold(string(name), "content-type"):
		h.contentType = value[:min(len(value), maxField)]
	case h.encoding == nil && strings.EqualFold(string(name), "content-transfer-encoding"):
		h.encoding = value[:min(len(value), 200)]
	case h.disposition == nil && strings.EqualFold(string(name), "content-disposition"):
		h.disposition = value[:min(len(value), maxField)]
	case strings.EqualFold(string(name), "content-id"):
		h.id = true
	}
}

// partHeader reads the header of a part inside a message.
func partHeader(data []byte) (h header) {
	h.end = fields(data, h.take)
	return h
}

// topHeader reads the header of the message itself.
func (r *Reader) topHeader(data []byte) (h header) {
	v := &r.v
	h.end = fields(data, func(name, value []byte) {
		h.take(name, value)
		f := Field{lower(name), r.words(value[:min(len(value), maxField)])}
		v.Fields = append(v.Fields, f)
		switch f.Name {
		case "subject":
			if v.Subject == nil {
				v.Subject = f.Value
			}
		case "from":
			if v.From.Addr == "" {
				v.From = r.mailbox(value)
			}
		case "reply-to":
			if v.ReplyTo.Addr == "" {
				v.ReplyTo = r.mailbox(value)
			}
		}
	})
	return h
}

// usual are the names of fields that most messages have.
var usual = func() map[string]string {
	m := map[string]string{}
	for _, name := range strings.Fields("from to cc subject date message-id mime-version content-type content-transfer-encoding content-disposition content-language reply-to sender received in-reply-to references user-agent x-mailer x-priority " +
		"importance list-id list-unsubscribe list-unsubscribe-post return-path dkim-signature precedence organization auto-submitted x-php-originating-script x-originating-ip thread-topic thread-index") {
		m[name] = name
	}
	return m
}()

// lower returns a field's name in lower case.
func lower(name []byte) string {
	var room [32]byte
	if len(name) > len(room) {
		return strings.ToLower(string(name))
	}
	low := room[:len(name)]
	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		low[i] = c
	}
	if s, ok := usual[string(low)]; ok {
		return s
	}
	return strings.ToLower(string(name))
}

// mailbox returns the first address of a field as it was written, encoded words not yet decoded, since what they hide
// must not be taken for an address.
func (r *Reader) mailbox(value []byte) Mailbox {
	value = value[:min(len(value), maxField)]
	open, close := -1, len(value)
	quoted := false
scan:
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			open = i
		case c == '>' && open >= 0, c == ',' && open < 0:
			close = i
			break scan
		}
	}
	name := value[:max(open, 0)]
	addr := value[open+1 : close]
	if open < 0 { // a bare address, its name perhaps in a comment
		if i := bytes.IndexByte(addr, '('); i >= 0 {
			addr, name = addr[:i], bytes.Trim(addr[i:], "() ")
		}
	}
	return Mailbox{string(bytes.Trim(bytes.TrimSpace(r.words(name)), `"'`)), strings.ToLower(string(bytes.TrimSpace(addr)))}
}

// words returns value in UTF-8: unfolded, its encoded words decoded.
func (r *Reader) words(value []byte) []byte {
	if len(value) == 0 {
		return nil // a field without a value is one that is not there
	}
	r.head = append(r.head, value...)
	out := r.head[len(r.head)-len(value) : len(r.head) : len(r.head)]
	if bytes.IndexByte(out, '\n') >= 0 {
		out = unfold(out)
	}
	if bytes.Contains(out, []byte("=?")) {
		d := mime.WordDecoder{CharsetReader: func(charset string, in io.Reader) (io.Reader, error) {
			b, err := io.ReadAll(io.LimitReader(in, maxField))
			if err != nil {
				return nil, err
			}
			return bytes.NewReader(toUTF8(nil, b, charset)), nil
		}}
		if s, err := d.DecodeHeader(string(out)); err == nil {
			out = []byte(s)
		}
	}
	if !utf8.Valid(out) {
		out = toUTF8(nil, out, "")
	}
	return out
}

// unfold takes line ends out, in place.
func unfold(b []byte) []byte {
	out := b[:0]
	for _, c := range b {
		if c != '\r' && c != '\n' {
			out = append(out, c)
		}
	}
	return out
}

// mediaType returns the declared media type in lower case; text/plain where there is none (RFC 2045 5.2).
func (h *header) mediaType() string {
	t, _, _ := bytes.Cut(h.contentType, []byte{';'})
	t = bytes.TrimSpace(t)
	if bytes.IndexByte(t, '/') <= 0 {
		return "text/plain"
	}
	return strings.ToLower(string(t[:min(len(t), 80)]))
}
