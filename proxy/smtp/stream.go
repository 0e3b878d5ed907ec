package smtp

import "strconv"

// Arrived gives how many bytes of a body have come so far, while it is read.
func (b *Body) Arrived() int64 { return b.dec.pos }

// HeaderArrived gives the length of the header with the empty line that ends it, while the body is read; 0 as long as that
// line has not come.
func (b *Body) HeaderArrived() int64 { return max(0, b.dec.header) }

// Beginning gives the first n bytes of those that have come, also while the body is read. They are valid until more
// comes, and must not be changed.
func (b *Body) Beginning(n int64) ([]byte, error) {
	first := b.first()
	if n = min(n, b.dec.pos); n <= int64(len(first)) {
		return first[:n], nil
	}
	p := make([]byte, n)
	copy(p, first)
	_, err := b.spill.ReadAt(p[len(first):], 0)
	return p, err
}

// first gives what has come and lies in memory.
func (b *Body) first() []byte {
	if b.f.buf != nil && b.f.where == toMemory {
		return b.f.buf[b.f.from:b.f.w]
	}
	return b.mem
}

// Stream sends a message while it comes, by DATA or in chunks, and holds its end back. Up to that, whatever ends the
// connection ends it by a reset: the remote drops the message. After an error of one of its methods it must be closed.
type Stream struct {
	s    sender
	off  int64 // how much of the body was taken
	last byte  // of it
	end  bool  // this chunk is the last one
	owed int   // chunks that were written and not answered
}

// BeginStream begins a message after the remote's 354, or in chunks (RFC 3030), with prefix as WriteData has it.
// ErrNotCanonical concerns the prefix.
func (c *Conn) BeginStream(prefix []byte, chunks bool) (*Stream, error) {
	if !isHeader(prefix) {
		return nil, ErrNotCanonical
	}
	if err := c.Flush(); err != nil {
		return nil, err
	}
	s := &Stream{s: sender{c: c, buf: getBuf(size64K)}}
	if s.s.stuff, s.s.bol = !chunks, true; chunks {
		s.s.out = s.chunk
	}
	c.sock.abrupt(true) // however this ends, a kill included
	return s, s.s.raw(prefix)
}

// Pass takes what has come of b and was not taken yet, and writes it but for what does not fill a buffer.
func (s *Stream) Pass(b *Body) error { return s.failed(s.pass(b)) }

func (s *Stream) pass(b *Body) error {
	first := b.first()
	if s.off < int64(len(first)) {
		if err := s.add(first[s.off:]); err != nil {
			return err
		}
	}
	if s.off >= b.dec.pos {
		return nil
	}
	piece := getBuf(size64K)
	defer putBuf(piece)
	for s.off < b.dec.pos {
		p := piece[:min(size64K, b.dec.pos-s.off)]
		if _, err := b.spill.ReadAt(p, s.off-int64(len(first))); err != nil {
			return err
		}
		if err := s.add(p); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stream) add(p []byte) error {
	s.off += int64(len(p))
	s.last = p[len(p)-1]
	return s.s.add(p)
}

// Flush writes what was taken.
func (s *Stream) Flush() error { return s.failed(s.s.flush()) }

// End calls ask and writes the end of the message, of which all was taken: the final dot, or the last chunk. An error of ask
// is given back.
func (s *Stream) End(ask func() error) error {
	dots := s.s.out == nil
	if dots {
		if err := s.Flush(); err != nil {
			return err
		}
	}
	if err := ask(); err != nil {
		return err
	}
	s.s.c.sock.abrupt(false)
	if s.end = true; !dots {
		return s.failed(s.chunk())
	}
	err := s.s.raw([]byte(endOf([]byte{s.last})))
	if err == nil {
		err = s.s.flush()
	}
	return s.failed(err)
}

// Taken gives how many bytes of the body were taken.
func (s *Stream) Taken() int64 { return s.off }

// Owed gives how many chunks were not answered.
func (s *Stream) Owed() int { return s.owed }

// Answered tells that a chunk was answered.
func (s *Stream) Answered() { s.owed-- }

// Release gives the stream's buffer back. It must not be used afterwards.
func (s *Stream) Release() { s.s.release() }

func (s *Stream) failed(err error) error {
	if c := s.s.c; err != nil && c.werr == nil {
		c.werr = err
	}
	return err
}

// chunk writes what was gathered as a chunk.
func (s *Stream) chunk() error {
	c, p := s.s.c, s.s.buf[:s.s.n]
	last := ""
	if s.end {
		last = " LAST"
	}
	if err := c.WriteCommand("BDAT ", strconv.Itoa(len(p)), last); err != nil {
		return err
	}
	c.WriteRaw(p)
	s.owed++
	s.s.n = 0
	return c.Flush()
}
