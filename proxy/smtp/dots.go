package smtp

// DotReader takes the dots out of a message that a listener overhears, and finds its end (RFC 5321 4.5.2). Only CRLF ends
// a line, and every byte stays as it is.
type DotReader struct {
	fresh bool // at the beginning of a line
	dot   bool // a dot began it
	cr    bool // the byte before was a CR
	out   []byte
}

// NewDotReader is one at the beginning of a message.
func NewDotReader() DotReader { return DotReader{fresh: true} }

// Read gives the message's bytes in p, valid until the next call, and, once the end came, what is behind it.
func (d *DotReader) Read(p []byte) (text, rest []byte, ended bool) {
	d.out = d.out[:0]
	for i, c := range p {
		if d.fresh && c == '.' {
			d.fresh, d.dot, d.cr = false, true, false
			continue
		}
		end := c == '\n' && d.cr
		switch {
		case d.dot && end:
			return d.out, p[i+1:], true
		case d.dot && d.cr: // "." CR and no LF: the CR was text
			d.out = append(d.out, '\r')
			d.dot = false
		case d.dot && c == '\r':
			d.cr = true
			continue
		}
		d.out = append(d.out, c)
		d.dot, d.fresh, d.cr = false, end, c == '\r'
	}
	return d.out, nil, false
}
