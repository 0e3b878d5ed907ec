package smtp

import (
	"bytes"
	"errors"
	"io"
)

// Facts are what reading a body found out about it, to be stored beside it.
type Facts struct {
	Header   int64 // length of the header with the empty line that ends it; 0: there is no empty line
	Longest  int64 // length of the longest line without its end
	Lines    int
	Dots     int // lines that begin with a dot
	EightBit bool
	BareLF   bool // bare line feeds were made CRLF
	Binary   bool // it cannot be sent with DATA
}

// Facts gives what is known of the body once prefix, header lines that end in CRLF and do not begin with a dot, stands before it.
func (b *Body) Facts(prefix []byte) Facts {
	f := Facts{
		Longest: b.dec.longest, Lines: b.dec.lines, Dots: b.dec.ndots,
		EightBit: b.dec.has8, BareLF: b.dec.bareLF, Binary: !b.Canonical(),
	}
	if b.dec.header > 0 {
		f.Header = b.dec.header + int64(len(prefix))
	}
	for line := range bytes.Lines(prefix) {
		f.Lines++
		f.Longest = max(f.Longest, int64(len(bytes.TrimRight(line, "\r\n"))))
	}
	return f
}

// Rest is the part of a body that is not in memory.
type Rest interface {
	io.ReaderAt
	io.Closer
}

// StoredBody makes a body of size bytes that was read before: fill gets a buffer for the first n of them, the others are in
// rest, which the body closes when it is released and which is nil where n is size. An error of fill is given back.
func StoredBody(n int, fill func([]byte) error, rest Rest, size int64, f Facts) (*Body, error) {
	buf := getBuf(n + len("\r\n.\r\n"))
	if err := fill(buf[:n]); err != nil {
		putBuf(buf)
		return nil, err
	}
	b := &Body{all: buf, mem: buf[:n], size: size}
	if rest != nil {
		b.spill = stored{rest}
	} else {
		b.term = terminate(b.mem)
	}
	b.dec = decoder{
		binary: f.Binary, bareCR: f.Binary, bareLF: f.BareLF || f.Binary, has8: f.EightBit, ndots: f.Dots, lines: f.Lines,
		longest: f.Longest, header: f.Header, pos: size,
	}
	if f.Header == 0 {
		b.dec.header = -1
	}
	return b, nil
}

// stored is a Rest where a Spill is wanted; nobody writes to a body that is complete.
type stored struct{ Rest }

func (stored) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// Move puts what is not in memory into another spill, where there is such a part. After an error the body is as before.
func (b *Body) Move(open func() (Spill, error)) error {
	if !b.Spilled() {
		return nil
	}
	to, err := open()
	if err != nil {
		return err
	}
	from := io.NewSectionReader(b.spill, 0, b.size-int64(len(b.mem)))
	piece := getBuf(size64K)
	defer putBuf(piece)
	if _, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, piece); err != nil {
		return errors.Join(err, to.Close())
	}
	old := b.spill
	b.spill = to
	return old.Close()
}
