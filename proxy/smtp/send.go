package smtp

import (
	"bytes"
	"strconv"
)

// WriteData sends a message after the remote's 354: pending output, prefix (header lines to stand
// before the body, may be nil), the body with dots stuffed, and CRLF "." CRLF; a CRLF is added if
// the body does not end in one. If no line begins with a dot the body is not copied on a plain TCP
// connection, and all leaves in one system call. It flushes.
//
// ErrNotCanonical, if body or prefix hold a bare CR, bare LF or NUL, or the prefix is not made of whole
// lines: nothing of the message was written. After any other error the connection must be
// closed, by which the remote drops the message.
func (c *Conn) WriteData(prefix []byte, b *Body) error {
	if !b.Canonical() || !isHeader(prefix) {
		return ErrNotCanonical
	}
	return c.send(prefix, b, true)
}

// WriteDataAsking does as WriteData and calls ask right before the last write, of which a body of
// more than 64 KiB needs several: what the remote has by then is not a message yet. An error of
// ask is given back, and the connection must be closed.
func (c *Conn) WriteDataAsking(prefix []byte, b *Body, ask func() error) error {
	c.ask = ask
	err := c.WriteData(prefix, b)
	c.ask = nil
	return err
}

// WriteChunk sends a message as one chunk, "BDAT size LAST" with prefix and body behind it
// (RFC 3030), and flushes: no 354 is waited for, and binary bodies pass. Errors are those of
// WriteData; ErrNotCanonical concerns the prefix only.
func (c *Conn) WriteChunk(prefix []byte, b *Body) error {
	if !isHeader(prefix) {
		return ErrNotCanonical
	}
	var digits [20]byte
	size := strconv.AppendInt(digits[:0], int64(len(prefix))+b.Size(), 10)
	if err := c.WriteCommand("BDAT ", string(size), " LAST"); err != nil {
		return err
	}
	return c.send(prefix, b, false)
}

// WriteFirstChunk sends fields, whole header lines, as a chunk that others follow. It flushes. ErrNotCanonical: they are none, and
// nothing was written.
func (c *Conn) WriteFirstChunk(fields []byte) error {
	if !isHeader(fields) {
		return ErrNotCanonical
	}
	if err := c.WriteCommand("BDAT ", strconv.Itoa(len(fields))); err != nil {
		return err
	}
	c.WriteRaw(fields)
	return c.Flush()
}

// WriteChunkAsking does as WriteChunk and asks as WriteDataAsking does.
func (c *Conn) WriteChunkAsking(prefix []byte, b *Body, ask func() error) error {
	c.ask = ask
	err := c.WriteChunk(prefix, b)
	c.ask = nil
	return err
}

// send writes pending output, prefix and body; dots tells whether it is a dot stream.
func (c *Conn) send(prefix []byte, b *Body, dots bool) error {
	if c.werr != nil {
		return c.werr
	}
	dotted := dots && b.Dots() > 0
	whole, copied := c.framed(prefix, b, dots), false
	if dotted {
		whole = c.stuffed(prefix, b)
		copied = whole != nil
	}
	switch plain := !c.encrypted && c.sock.vectored(); {
	case whole != nil:
		if c.werr = c.asked(); c.werr == nil {
			c.werr = c.write(whole)
		}
		if copied {
			putBuf(whole)
		}
	case b.Spilled() || dotted:
		c.werr = c.sendPieces(prefix, b, dots)
	case !plain:
		c.werr = c.sendJoined(prefix, b, dots)
	default:
		c.werr = c.sendWhole(prefix, b, dots)
	}
	if c.out != nil {
		putBuf(c.out)
		c.out = nil
	}
	return c.werr
}

// framed gives pending output, prefix, a body of at most 64 KiB and the end of data as one piece, where it can be put around
// the body as that lies; else nil.
func (c *Conn) framed(prefix []byte, b *Body, dots bool) []byte {
	start, end := cap(b.all)-cap(b.mem), len(b.mem)
	if dots {
		end += b.term
	}
	from := start - len(c.out) - len(prefix)
	if from < 0 || len(b.mem) == 0 || end > size64K || b.Spilled() || dots && (b.Dots() > 0 || b.term == 0) {
		return nil
	}
	p := b.all[from : start+end]
	copy(p[copy(p, c.out):], prefix)
	return p
}

// stuffed gives the same of a message of at most 64 KiB, of whose lines that begin with a dot all are known, in a buffer of the
// pool, with these stuffed: they need not be looked for. Else nil.
func (c *Conn) stuffed(prefix []byte, b *Body) []byte {
	spots, known := b.spots()
	end := endOf(b.mem)
	n := len(c.out) + len(prefix) + len(b.mem) + len(spots) + len(end)
	if !known || n > size64K || b.Spilled() {
		return nil
	}
	buf := getBuf(n)
	p := append(append(buf[:0], c.out...), prefix...)
	from := uint32(0)
	for _, at := range spots {
		p = append(append(p, b.mem[from:at]...), '.')
		from = at
	}
	return append(append(p, b.mem[from:]...), end...)
}

// isHeader tells whether p is empty or made of whole lines that end in CRLF and do not begin with a
// dot, without NUL or bare CR or LF.
func isHeader(p []byte) bool {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 1 || bytes.IndexByte(p[:i], '\r') != i-1 || bytes.IndexByte(p[:i], 0) >= 0 || p[0] == '.' {
			return false
		}
		p = p[i+1:]
	}
	return true
}

// asked calls ask, if there is one, once.
func (c *Conn) asked() error {
	if c.ask == nil {
		return nil
	}
	ask := c.ask
	c.ask = nil
	return ask()
}

// sendWhole writes everything as it is with one vectored write, or two where somebody is to be asked before the end of a
// body that a slow remote may take minutes for.
func (c *Conn) sendWhole(prefix []byte, b *Body, dots bool) error {
	mem := b.mem
	apart := dots && c.ask != nil && len(mem) > size64K
	if !apart {
		if err := c.asked(); err != nil {
			return err
		}
	}
	if dots && !apart {
		mem = b.mem[:len(b.mem)+b.term]
	}
	g := newGather()
	for _, p := range [...][]byte{c.out, prefix, mem} {
		if len(p) > 0 {
			g.add(p)
		}
	}
	if dots && b.term == 0 && !apart {
		g.add([]byte(endOf(b.mem)))
	}
	if g.n == 0 {
		g.release()
		return nil // an empty chunk, its command already sent
	}
	if err := c.writev(g); err != nil || !apart {
		return err
	}
	if err := c.asked(); err != nil {
		return err
	}
	return c.write([]byte(endOf(b.mem)))
}

// sendJoined writes everything from one buffer: for TLS, where each write makes a record of its
// own, and connections without writev.
func (c *Conn) sendJoined(prefix []byte, b *Body, dots bool) error {
	s := sender{c: c, buf: getBuf(min(size64K, len(c.out)+len(prefix)+len(b.mem)+8))}
	defer s.release()
	for _, p := range [][]byte{c.out, prefix, b.mem} {
		if err := s.add(p); err != nil {
			return err
		}
	}
	return s.end(b.mem, dots)
}

// sendPieces writes a body that has dots to be doubled or a part in a spill.
func (c *Conn) sendPieces(prefix []byte, b *Body, dots bool) error {
	s := sender{c: c, buf: getBuf(size64K)}
	defer s.release()
	if err := s.add(c.out); err != nil {
		return err
	}
	if err := s.add(prefix); err != nil {
		return err
	}
	s.stuff, s.bol = dots && b.Dots() > 0, true
	if err := s.add(b.mem); err != nil {
		return err
	}
	tail := b.mem
	if b.Spilled() {
		piece := getBuf(size64K)
		defer putBuf(piece)
		for off := int64(len(b.mem)); off < b.size; {
			n, err := b.ReadAt(piece[:min(size64K, b.size-off)], off)
			if err != nil {
				return err
			}
			if err := s.add(piece[:n]); err != nil {
				return err
			}
			off += int64(n)
			tail = piece[:n]
		}
	}
	return s.end(tail, dots)
}

// sender gathers bytes in a buffer, doubling dots if asked to, and writes it when it is full.
type sender struct {
	c     *Conn
	buf   []byte
	n     int
	stuff bool
	bol   bool // the next byte begins a line

	flushed bool         // something was written
	out     func() error // writes what was gathered in another way; nil: as it is
}

func (s *sender) release() { putBuf(s.buf) }

func (s *sender) flush() error {
	if s.n == 0 {
		return nil
	}
	if s.out != nil {
		return s.out()
	}
	err := s.c.write(s.buf[:s.n])
	s.n, s.flushed = 0, true
	return err
}

// end writes what is left, after the end of data for a dot stream that ends in tail.
func (s *sender) end(tail []byte, dots bool) error {
	if dots && s.c.ask != nil && s.n > 0 && s.flushed { // a chunk has no end of data: its last bytes are what is held back
		if err := s.flush(); err != nil {
			return err
		}
	}
	if err := s.c.asked(); err != nil {
		return err
	}
	if dots {
		if err := s.raw([]byte(endOf(tail))); err != nil {
			return err
		}
	}
	return s.flush()
}

// add takes p, stuffed if wanted.
func (s *sender) add(p []byte) error {
	if !s.stuff {
		return s.raw(p)
	}
	for len(p) > 0 {
		if s.bol && p[0] == '.' {
			if err := s.raw(dotByte); err != nil {
				return err
			}
		}
		// The next dot that begins a line: everything before it goes as it is.
		i := bytes.Index(p, lfDot)
		if i < 0 {
			s.bol = p[len(p)-1] == '\n'
			return s.raw(p)
		}
		if err := s.raw(p[:i+1]); err != nil {
			return err
		}
		p, s.bol = p[i+1:], true
	}
	return nil
}

var (
	lfDot   = []byte("\n.")
	dotByte = []byte{'.'}
)

func (s *sender) raw(p []byte) error {
	for {
		n := copy(s.buf[s.n:], p)
		s.n += n
		p = p[n:]
		if len(p) == 0 {
			return nil
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
}
