package sevenbit

import (
	"bufio"
	"bytes"
	"encoding/base64"
)

// encoder writes the body of one part. What it gets are lines, or pieces of them; whole when the line's end is there.
type encoder interface {
	write(text []byte, whole bool) error
	// end writes what is left; bounded when the last line end belongs to the boundary that follows.
	end(bounded bool) error
}

// longest is the longest line of encoded text (RFC 2045 6.7, 6.8).
const longest = 76

// quoted writes quoted-printable. Line ends stay what they are.
type quoted struct {
	out   *bufio.Writer
	col   int
	space byte // one that may prove to end its line; 0: none
}

func (q *quoted) write(text []byte, whole bool) error {
	body := text
	if whole {
		body = bytes.TrimSuffix(text, []byte("\r\n"))
	}
	for _, c := range body {
		if q.space != 0 {
			q.plain(q.space)
			q.space = 0
		}
		switch {
		case c == ' ' || c == '\t':
			q.space = c
		case c > ' ' && c <= '~' && c != '=':
			q.plain(c)
		default:
			q.escaped(c)
		}
	}
	if !whole {
		return nil
	}
	q.trailing()
	q.col = 0
	_, err := q.out.WriteString("\r\n")
	return err
}

// trailing writes a space that ends its line, where transports may lose it.
func (q *quoted) trailing() {
	if q.space != 0 {
		q.escaped(q.space)
		q.space = 0
	}
}

func (q *quoted) plain(c byte) {
	q.room(1)
	q.out.WriteByte(c)
}

func (q *quoted) escaped(c byte) {
	const hex = "0123456789ABCDEF"
	q.room(3)
	q.out.WriteByte('=')
	q.out.WriteByte(hex[c>>4])
	q.out.WriteByte(hex[c&15])
}

// room breaks the line softly where n more bytes and a break would not fit.
func (q *quoted) room(n int) {
	if q.col+n > longest-1 {
		q.out.WriteString("=\r\n")
		q.col = 0
	}
	q.col += n
}

func (q *quoted) end(bool) error {
	q.trailing()
	return nil
}

// sixtyfour writes base64.
type sixtyfour struct {
	out  *bufio.Writer
	rest []byte // not enough for a line yet
	crlf bool   // the last line's end, which may belong to a boundary
}

// lineBytes make one line of base64.
const lineBytes = longest / 4 * 3

func (s *sixtyfour) write(text []byte, whole bool) error {
	if s.crlf {
		s.rest = append(s.rest, "\r\n"...)
	}
	if s.crlf = whole && bytes.HasSuffix(text, []byte("\r\n")); s.crlf {
		text = text[:len(text)-2]
	}
	s.rest = append(s.rest, text...)
	n := 0
	for len(s.rest)-n >= lineBytes {
		if err := s.encode(s.rest[n : n+lineBytes]); err != nil {
			return err
		}
		n += lineBytes
	}
	s.rest = append(s.rest[:0], s.rest[n:]...)
	return nil
}

func (s *sixtyfour) encode(b []byte) error {
	var room [longest]byte
	n := base64.StdEncoding.EncodedLen(len(b))
	base64.StdEncoding.Encode(room[:n], b)
	s.out.Write(room[:n])
	_, err := s.out.WriteString("\r\n")
	return err
}

func (s *sixtyfour) end(bounded bool) error {
	if s.crlf && !bounded {
		s.rest = append(s.rest, "\r\n"...)
	}
	for len(s.rest) > 0 {
		n := min(len(s.rest), lineBytes)
		if err := s.encode(s.rest[:n]); err != nil {
			return err
		}
		s.rest = s.rest[n:]
	}
	return nil
}
