package smtp

import "bytes"

// WriteData sends a message after the remote's 354: pending output, prefix (header lines to stand
// before the body, may be nil), the body with dots stuffed, and CRLF "." CRLF; a CRLF is added if
// the body does not end in one. If no line begins with a dot nothing is copied on a plain TCP
// connection, and all leaves in one system call. It flushes.
//
// ErrNotCanonical, if body or prefix hold a bare CR, bare LF or NUL, or the prefix is not made of whole
// lines: nothing of the message was written. After any other error the connection must be
// closed, by which the remote drops the message.
func (c *Conn) WriteData(prefix []byte, b *Body) error {
	if !b.Canonical() || !isHeader(prefix) {
		return ErrNotCanonical
	}
	if c.werr != nil {
		return c.werr
	}
	switch {
	case b.Dots() > 0 || b.Spilled():
		c.werr = c.sendStuffed(prefix, b)
	case c.encrypted || !c.sock.vectored():
		c.werr = c.sendJoined(prefix, b)
	default:
		c.werr = c.sendWhole(prefix, b)
	}
	if c.out != nil {
		putBuf(c.out)
		c.out = nil
	}
	return c.werr
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

// sendWhole writes everything with one vectored write.
func (c *Conn) sendWhole(prefix []byte, b *Body) error {
	n := 0
	for _, p := range [][]byte{c.out, prefix, b.mem[:len(b.mem)+b.term]} {
		if len(p) > 0 {
			c.iov[n] = p
			n++
		}
	}
	if b.term == 0 {
		c.iov[n] = []byte(endOf(b.mem))
		n++
	}
	return c.writev(n)
}

// sendJoined writes everything from one buffer: for TLS, where each write makes a record of its
// own, and connections without writev.
func (c *Conn) sendJoined(prefix []byte, b *Body) error {
	s := sender{c: c, buf: getBuf(min(size64K, len(c.out)+len(prefix)+len(b.mem)+8))}
	defer s.release()
	for _, p := range [][]byte{c.out, prefix, b.mem} {
		if err := s.add(p); err != nil {
			return err
		}
	}
	if err := s.add([]byte(endOf(b.mem))); err != nil {
		return err
	}
	return s.flush()
}

// sendStuffed writes a body that has dots to be doubled or a part in a spill.
func (c *Conn) sendStuffed(prefix []byte, b *Body) error {
	s := sender{c: c, buf: getBuf(size64K)}
	defer s.release()
	if err := s.add(c.out); err != nil {
		return err
	}
	if err := s.add(prefix); err != nil {
		return err
	}
	s.stuff, s.bol = b.Dots() > 0, true
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
	s.stuff = false
	if err := s.add([]byte(endOf(tail))); err != nil {
		return err
	}
	return s.flush()
}

// sender gathers bytes in a buffer, doubling dots if asked to, and writes it when it is full.
type sender struct {
	c     *Conn
	buf   []byte
	n     int
	stuff bool
	bol   bool // the next byte begins a line
}

func (s *sender) release() { putBuf(s.buf) }

func (s *sender) flush() error {
	if s.n == 0 {
		return nil
	}
	err := s.c.write(s.buf[:s.n])
	s.n = 0
	return err
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
		i := bytes.Index(p[:], lfDot)
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
