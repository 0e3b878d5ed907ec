package smtp

import (
	"bytes"
	"strconv"
)

// Bounds of what a remote server may reply, and of what we write.
const (
	MaxReply     = 64 << 10 // a whole reply, line ends included
	MaxReplyLine = 4 << 10  // one of its lines; RFC 5321 4.5.3.1.5 says 512, servers send more
	maxOwnLine   = 512      // a line of ours, line end included
)

// Reply is a reply of a remote server.
type Reply struct {
	Code int      // 200–599
	Enh  Enhanced // of the first line, if its class agrees with Code; else zero
	// Raw is the reply byte for byte, its line ends made CRLF. It is reused by the next
	// ReadReply into the same Reply: use Clone to keep it.
	Raw []byte
}

// Class gives the first digit of the code: 2, 3, 4 or 5; 0 if the reply is empty.
func (r *Reply) Class() int { return r.Code / 100 }

// Clone gives a copy that the next ReadReply does not touch.
func (r *Reply) Clone() Reply {
	c := *r
	c.Raw = bytes.Clone(r.Raw)
	return c
}

// EachLine calls f with the text of each line, without code and line end, until f gives false.
// The slices are parts of Raw.
func (r *Reply) EachLine(f func(text []byte) bool) {
	for raw := r.Raw; len(raw) > 0; {
		i := bytes.IndexByte(raw, '\n')
		if i < 0 {
			return
		}
		line := bytes.TrimSuffix(raw[:i], []byte("\r"))
		raw = raw[i+1:]
		if !f(line[min(4, len(line)):]) {
			return
		}
	}
}

// Text gives the texts of all lines joined by blanks, for logs.
func (r *Reply) Text() string {
	var out []byte
	r.EachLine(func(text []byte) bool {
		if len(out) > 0 {
			out = append(out, ' ')
		}
		out = append(out, text...)
		return true
	})
	return string(out)
}

// ReadReply reads a reply, multi-line or not, into r, and sends pending output first if it has
// to wait. Lines that end in LF alone and a code without text are accepted (RFC 5321 4.2).
//
// ErrBadReply: no three-digit code of 200–599, codes that differ between lines, no blank or
// hyphen behind the code, NUL or a bare CR. ErrReplyTooLong: over MaxReply or MaxReplyLine. After
// these, as after any other error, the connection is to be closed.
func (c *Conn) ReadReply(r *Reply) error {
	r.Code, r.Enh, r.Raw = 0, Enhanced{}, r.Raw[:0]
	if cap(r.Raw) > MaxReplyLine { // one endless reply is no reason to hold its room for the connection's life
		r.Raw = nil
	}
	c.piece = piece{kind: aReply}
	defer func() { c.piece = piece{} }()
	for {
		line, _, err := c.readLine(MaxReplyLine)
		switch err {
		case nil:
		case ErrLineTooLong, ErrFlood:
			return ErrReplyTooLong
		case ErrCommandBytes:
			return ErrBadReply
		default:
			return err
		}
		more, err := r.add(line)
		if err != nil || !more {
			return err
		}
	}
}

// add takes one line, without its end, and tells whether more follow.
func (r *Reply) add(line []byte) (more bool, err error) {
	code, more, ok := splitReply(line)
	if !ok || (r.Code != 0 && code != r.Code) {
		return false, ErrBadReply
	}
	if len(r.Raw)+len(line)+2 > MaxReply {
		return false, ErrReplyTooLong
	}
	if r.Code == 0 && len(line) > 4 {
		if e := ParseEnhanced(line[4:]); int(e[0]) == code/100 {
			r.Enh = e
		}
	}
	r.Code = code
	r.Raw = append(r.Raw, line...)
	r.Raw = append(r.Raw, '\r', '\n')
	return more, nil
}

// splitReply reads the code of a reply line and whether it is one before the last.
func splitReply(line []byte) (code int, more, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return 0, false, false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, false, true
	}
	return code, line[3] == '-', line[3] == '-' || line[3] == ' '
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

// WriteReply appends a reply to the output, one line per text; see AppendReply.
func (c *Conn) WriteReply(code int, enh Enhanced, lines ...string) {
	if c.werr != nil {
		return
	}
	c.reserve(replyBound(lines))
	c.out = AppendReply(c.out, code, enh, lines...)
	c.spillOut()
}

// replyBound gives a size that AppendReply will not pass.
func replyBound(lines []string) int {
	n := 64
	for _, l := range lines {
		n += len(l) + 32*(1+len(l)/(maxOwnLine/2))
	}
	return n
}

// AppendReply appends the wire form of a reply to dst: each line with the code and, if enh is
// not zero, the enhanced code (RFC 2034 4). Control characters of the texts, line ends among
// them, become blanks, so that a text can never pass for another reply. Lines are split to keep
// to 512 bytes (RFC 5321 4.5.3.1.5).
func AppendReply(dst []byte, code int, enh Enhanced, lines ...string) []byte {
	if len(lines) == 0 {
		return appendReplyLine(dst, code, enh, "", true)
	}
	for i, text := range lines {
		last := i == len(lines)-1
		for {
			n := splitAt(text, maxOwnLine-32)
			dst = appendReplyLine(dst, code, enh, text[:n], last && n == len(text))
			if text = text[n:]; text == "" {
				break
			}
		}
	}
	return dst
}

// splitAt gives where to cut text to at most limit bytes: behind the last blank of the second half, else
// before a UTF-8 sequence.
func splitAt(text string, limit int) int {
	if len(text) <= limit {
		return len(text)
	}
	for i := limit; i > limit/2; i-- {
		if text[i-1] == ' ' {
			return i
		}
	}
	for i := limit; i > limit-4; i-- {
		if text[i]&0xC0 != 0x80 {
			return i
		}
	}
	return limit
}

func appendReplyLine(dst []byte, code int, enh Enhanced, text string, last bool) []byte {
	dst = strconv.AppendInt(dst, int64(code), 10)
	if last {
		dst = append(dst, ' ')
	} else {
		dst = append(dst, '-')
	}
	if enh[0] != 0 {
		dst = append(enh.append(dst), ' ')
	}
	from := len(dst)
	dst = append(dst, text...)
	for i, b := range dst[from:] {
		if b < ' ' || b == 0x7F {
			dst[from+i] = ' '
		}
	}
	return append(dst, '\r', '\n')
}

// WriteCommand appends a command to the output: the parts as they are, then CRLF. Nothing is
// written if they hold CR, LF or NUL (ErrUnsafeCommand) or after a failed write.
func (c *Conn) WriteCommand(parts ...string) error {
	n := 2
	for _, p := range parts {
		for i := range len(p) {
			if b := p[i]; b == '\r' || b == '\n' || b == 0 {
				return ErrUnsafeCommand
			}
		}
		n += len(p)
	}
	if c.werr != nil {
		return c.werr
	}
	c.reserve(n)
	for _, p := range parts {
		c.out = append(c.out, p...)
	}
	c.out = append(c.out, '\r', '\n')
	c.spillOut()
	return c.werr
}
