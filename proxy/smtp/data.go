package smtp

import "io"

// ReadData reads a message after DATA was answered with 354 (which need not be flushed), to
// CRLF "." CRLF. The body must be released by the caller.
//
// Recoverable errors, the message having been read to its end: ErrBareCR, ErrNUL, ErrBareLF,
// ErrBodyLine, ErrTooLarge, ErrSpill. Others: ErrTimeout, ErrFlood, ErrTotal,
// io.ErrUnexpectedEOF, network errors. With an error the body is nil.
func (c *Conn) ReadData(o *DataOptions) (*Body, error) {
	b := new(Body)
	if err := c.ReadDataInto(b, o); err != nil {
		return nil, err
	}
	return b, nil
}

// ReadDataInto does as ReadData with a Body of the caller's, new or released, so that a session
// need not allocate one for each message. With an error b is released.
func (c *Conn) ReadDataInto(b *Body, o *DataOptions) error {
	*b = Body{}
	b.init(o, true)
	c.startTick(b)
	err := c.readDots(b)
	c.stopTick(b)
	if err != nil {
		b.Release()
		return err
	}
	return nil
}

func (c *Conn) readDots(b *Body) error {
	c.piece = piece{until: momentOf(b.o.Until)}
	defer func() { c.piece = piece{} }()
	for !b.dec.done {
		n, err := c.take(b.room())
		if err != nil {
			return err
		}
		b.took(n)
		if b.tooMuch() {
			return ErrFlood
		}
	}
	if f := &b.f; f.p < f.e {
		c.pushBack(f.buf[f.p:f.e])
	}
	return b.close()
}

// take gives buffered input first, else reads.
func (c *Conn) take(p []byte) (int, error) {
	if c.fromBuf = c.r < c.w; c.fromBuf {
		n := copy(p, c.buf[c.r:c.w])
		c.r += n
		return n, nil
	}
	n, err := c.read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// pushBack gives back the last bytes of the last take: they belong to the next command.
func (c *Conn) pushBack(p []byte) {
	if c.fromBuf { // they are still there: many small messages in one packet cost no copying
		c.r -= len(p)
		return
	}
	c.unread(p)
}

// BeginChunks makes b, new or released, an empty body that ReadChunk fills and Finish closes.
func (b *Body) BeginChunks(o *DataOptions) {
	*b = Body{}
	b.init(o, false)
}

// SkipChunk reads the n bytes that follow a BDAT command and throws them away: whatever was wrong with
// the command, they are no commands.
func (c *Conn) SkipChunk(n int64) error {
	room := getBuf(size16K)
	defer putBuf(room)
	for n > 0 {
		got, err := c.take(room[:min(int64(len(room)), n)])
		if err != nil {
			return err
		}
		n -= int64(got)
	}
	return nil
}

// ReadChunk reads the n bytes that follow a BDAT command into b (RFC 3030), begun by NewBody or BeginChunks.
// The last chunk is followed by b.Finish. Errors are those of ReadData; those that are recoverable
// come after the whole chunk was read, and again with each chunk that follows.
func (c *Conn) ReadChunk(b *Body, n int64) error {
	c.startTick(b)
	defer c.stopTick(b)
	c.piece = piece{until: momentOf(b.o.Until)}
	defer func() { c.piece = piece{} }()
	for n > 0 {
		room := b.room()
		got, err := c.take(room[:min(int64(len(room)), n)])
		if err != nil {
			return err
		}
		n -= int64(got)
		b.took(got)
		if b.tooMuch() {
			return ErrFlood
		}
	}
	return b.refusal()
}
