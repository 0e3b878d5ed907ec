// Package sevenbit rewrites 8-bit messages for servers that take 7-bit text alone (RFC 6152 section 3, RFC 2045).
package sevenbit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Errors of Convert, beside those of reader and writer.
var (
	// ErrSigned: a signature covers what would have to be changed.
	ErrSigned = errors.New("a signature covers its 8-bit text")
	// ErrUnfit: there is no way to write it in 7 bits that a reader would understand; what it wraps says why.
	ErrUnfit = errors.New("its 8-bit text cannot be encoded")
)

func unfit(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnfit, fmt.Sprintf(format, args...))
}

// Convert writes the message in src, whose lines end in CRLF, to dst so that no byte is above 127: the parts that hold such bytes
// are encoded, and everything else stays as it is byte by byte. Src is read twice. The error is ErrSigned or
// ErrUnfit, before anything is written, or one of src or dst.
func Convert(dst io.Writer, src io.ReaderAt, size int64) error {
	look := &scan{}
	if err := walk(io.NewSectionReader(src, 0, size), look); err != nil {
		return err
	}
	w := &rewrite{found: look.found, out: bufio.NewWriterSize(dst, 32<<10)}
	if err := walk(io.NewSectionReader(src, 0, size), w); err != nil {
		return err
	}
	return w.out.Flush()
}

// content is what was found out about the body of one entity.
type content struct {
	eight bool // bytes above 127
	other bool // which are not UTF-8
}

// scan looks at all before anything is written.
type scan struct {
	found []content
}

func (s *scan) header(e *entity) error {
	s.found = append(s.found, content{})
	for _, f := range e.fields {
		if !seven(f) {
			return unfit("its header has 8-bit characters")
		}
	}
	return nil
}

func (s *scan) line(e *entity, text []byte, _ bool) error {
	if seven(text) {
		return nil
	}
	f := &s.found[e.number]
	if !f.eight {
		if err := e.changeable(); err != nil {
			return err
		}
	}
	f.eight, f.other = true, f.other || !utf8ish(text)
	return nil
}

func (*scan) between(e *entity, text []byte) error {
	if !seven(text) {
		return e.covered()
	}
	return nil
}

func (*scan) delimiter(e *entity, text []byte) error {
	if !seven(text) {
		return unfit("a boundary has 8-bit characters")
	}
	return nil
}

func (*scan) end(*entity) error { return nil }

// rewrite writes the message with what was found.
type rewrite struct {
	found []content
	out   *bufio.Writer
	enc   encoder // of the body that is being written; nil: as it is
}

func (w *rewrite) header(e *entity) error {
	f := w.found[e.number]
	how := ""
	switch {
	case e.container() && (e.encoding == "8bit" || e.encoding == "binary"):
		how = "7bit"
	case f.eight:
		how = e.fitting()
	}
	for _, field := range e.fields {
		if how == "" || !named(field, encodingField) {
			w.out.Write(field)
			if how != "" && field[len(field)-1] != '\n' {
				w.out.WriteString("\r\n")
			}
		}
	}
	if f.eight && e.top() && !e.mime {
		w.out.WriteString("MIME-Version: 1.0\r\n")
	}
	if f.eight && e.top() && e.media == "" {
		charset := "utf-8"
		if f.other {
			charset = "unknown-8bit" // RFC 1428
		}
		w.out.WriteString("Content-Type: text/plain; charset=" + charset + "\r\n")
	}
	if how != "" {
		w.out.WriteString(encodingField + ": " + how + "\r\n")
	}
	if e.ended {
		w.out.WriteString("\r\n")
	}
	switch {
	case how == "quoted-printable":
		w.enc = &quoted{out: w.out}
	case how == "base64":
		w.enc = &sixtyfour{out: w.out}
	default:
		w.enc = nil
	}
	return nil
}

func (w *rewrite) line(_ *entity, text []byte, whole bool) error {
	if w.enc == nil {
		_, err := w.out.Write(text)
		return err
	}
	return w.enc.write(text, whole)
}

// between writes what stands around the parts of a multipart, which no reader shows.
func (w *rewrite) between(_ *entity, text []byte) error {
	for i, c := range text {
		if c >= 0x80 {
			text[i] = '?'
		}
	}
	_, err := w.out.Write(text)
	return err
}

func (w *rewrite) delimiter(_ *entity, text []byte) error {
	_, err := w.out.Write(text)
	return err
}

func (w *rewrite) end(e *entity) error {
	if w.enc == nil {
		return nil
	}
	err := w.enc.end(e.bounded)
	w.enc = nil
	return err
}

func seven(text []byte) bool {
	for _, c := range text {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
