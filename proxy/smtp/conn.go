package smtp

import (
	"crypto/tls"
	"net"
	"runtime"
	"time"
)

// Options bound one Conn; a zero field means its default.
type Options struct {
	// ReadTimeout is the longest wait for the next byte (RFC 5321 4.5.3.2: 5 minutes). It is
	// per read, never for a whole message.
	ReadTimeout time.Duration
	// WriteTimeout is the longest wait for the peer to take a byte; default 5 minutes.
	WriteTimeout time.Duration
	// HandshakeTimeout bounds a TLS handshake as a whole; default 60 seconds.
	HandshakeTimeout time.Duration
	// MaxTotal bounds the bytes read in the connection's life (ErrTotal); 0 means no bound.
	MaxTotal int64
}

// outMax is the amount of unsent output at which it is sent without waiting for Flush.
const outMax = 32 << 10

// Conn is one SMTP connection in either role. It is not safe for use by several goroutines at
// once, Interrupt excepted.
type Conn struct {
	base      net.Conn // as given to NewConn
	nc        net.Conn
	sock      socket // under it
	handshake time.Duration
	maxTotal  int64
	until     moment // bounds everything; 0: nothing does

	buf       []byte // pooled; buf[r:w] is input not yet consumed
	r, w      int
	encrypted bool
	met       bool // the last handshake came as far as a version
	// burst: the last read filled the buffer, so more may be waiting (a pipelining client).
	burst  bool
	bursts uint8 // such reads so far, round and round
	// fromBuf: the last take came from buf, where what it gave still stands before r.
	fromBuf bool
	secret  bool   // what is being read is to leave no copy
	leaves  bool   // what is being read is a command, which may take longer than patience
	piece   piece  // what is being read
	out     []byte // pooled; output not yet sent
	werr    error  // first error of a write: sticky
	rerr    error  // first error of a read that no later read can mend: sticky

	rd, wr          wait
	patience        time.Duration // see SetIdle
	in, sent        int64
	nreads, nwrites uint32

	tick *tickState   // of the body that is being read; may be nil
	ask  func() error // see WriteDataAsking
}

// NewConn makes a Conn of nc; it takes no buffer until there is something to read or write.
// Bodies leave by writev and Probe looks at the socket if nc is a *net.TCPConn, gives access to
// its descriptor (syscall.Conn), or wraps such a one and has a method NetConn() net.Conn. Such
// a connection must not alter the bytes, and on Linux is not asked for them; a method ReadFailed(error) error of it may say
// what an error of a read shall be.
func NewConn(nc net.Conn, o Options) *Conn {
	c := &Conn{base: nc, nc: nc, sock: socketUnder(nc), handshake: or(o.HandshakeTimeout, time.Minute), maxTotal: o.MaxTotal}
	_, c.encrypted = nc.(*tls.Conn)
	c.rd.timeout = or(o.ReadTimeout, 5*time.Minute)
	c.wr.timeout = or(o.WriteTimeout, 5*time.Minute)
	return c
}

func or(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// SetReadTimeout sets the longest wait for the next byte from now on. A wait ends between d and
// d/4 more. It costs nothing unless d is much shorter than before.
func (c *Conn) SetReadTimeout(d time.Duration) { c.rd.set(or(d, 5*time.Minute)) }

// SetWriteTimeout sets the longest wait for the peer to take a byte from now on.
func (c *Conn) SetWriteTimeout(d time.Duration) { c.wr.set(or(d, 5*time.Minute)) }

// SetIdle has ReadCommand give ErrIdle once nothing has come for d to 2d and nothing is buffered, so that the caller can
// wait by other means and call it again; 0 has it wait itself.
func (c *Conn) SetIdle(d time.Duration) { c.patience = d }

// SetUntil bounds all reads and writes by the moment t, whatever progress they make; the zero
// time lifts the bound.
func (c *Conn) SetUntil(t time.Time) {
	c.until = momentOf(t)
	c.rd.by(c.until)
	c.wr.by(c.until)
}

// NetConn gives the connection under c: after STARTTLS the *tls.Conn.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Buffered gives the number of input bytes that have been read from the network but not used.
func (c *Conn) Buffered() int { return c.w - c.r }

// Pending gives the number of output bytes not yet sent.
func (c *Conn) Pending() int { return len(c.out) }

// BytesIn gives the number of bytes read so far, below SMTP and above TLS.
func (c *Conn) BytesIn() int64 { return c.in }

// BytesOut gives the number of bytes written so far, below SMTP and above TLS.
func (c *Conn) BytesOut() int64 { return c.sent }

// Reads gives the number of reads that brought data.
func (c *Conn) Reads() int64 { return int64(c.nreads) }

// Writes gives the number of writes to the network, a vectored write counting once.
func (c *Conn) Writes() int64 { return int64(c.nwrites) }

// read reads into p once data is there; it flushes the output first, since the peer may be
// waiting for it.
func (c *Conn) read(p []byte) (int, error) {
	if err := c.Flush(); err != nil {
		return 0, err
	}
	if c.rerr != nil {
		return 0, c.rerr
	}
	if c.maxTotal > 0 {
		rest := c.maxTotal - c.in
		if rest <= 0 {
			return 0, ErrTotal
		}
		p = p[:min(int64(len(p)), rest)]
	}
	if c.rd.armed == 0 || c.leaves && c.rd.armed > 2*c.patience {
		if err := c.armRead(time.Now()); err != nil {
			return 0, err
		}
	}
	c.rd.fresh = true
	for {
		n, err := c.receive(p)
		if n > 0 {
			c.in += int64(n)
			c.nreads++
			return n, nil // an error beside data comes again with the next read
		}
		if err = c.readFailed(err); err != nil {
			return 0, err
		}
	}
}

// receive reads from the connection: from the socket under it where nothing lies between that concerns the bytes.
func (c *Conn) receive(p []byte) (int, error) {
	if c.encrypted || !c.sock.reads() {
		return c.nc.Read(p)
	}
	n, err := c.sock.read(p)
	if err != nil {
		if told, ok := c.nc.(interface{ ReadFailed(error) error }); ok {
			err = told.ReadFailed(err)
		}
	}
	return n, err
}

// readFailed gives nil if a deadline passed that was only a slice of the time-out.
func (c *Conn) readFailed(err error) error {
	if err == nil {
		return nil
	}
	if !isDeadline(err) {
		c.rerr = err
		return err
	}
	now, begun := time.Now(), !c.rd.fresh
	if c.rd.over(now, c.until.time()) || c.piece.over(now, c.rd.timeout, c.w > c.r) {
		c.rd.armed = 0
		return ErrTimeout
	}
	if c.leaves && begun && c.r == c.w {
		c.rd.armed = 0
		return ErrIdle
	}
	c.tick.wake(now)
	return c.armRead(now)
}

func (c *Conn) armRead(now time.Time) error {
	longest := c.tick.slice()
	if c.leaves {
		longest = c.patience
	}
	return c.nc.SetReadDeadline(c.rd.next(now, c.until.time(), longest))
}

// fill reads more input behind what is buffered, growing the buffer up to most bytes. It must
// not be called when most bytes are buffered already.
func (c *Conn) fill(most int) error {
	want := size1K
	if c.burst { // the last read found more than fitted
		want = size16K
	}
	switch left := c.w - c.r; {
	case c.buf == nil || left == 0 && len(c.buf) != want:
		c.resize(want)
	case c.burst && len(c.buf) < want:
		c.resize(want)
	case c.w < len(c.buf):
	case c.r > 0:
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	default:
		c.resize(min(4*left, max(most, left+1)))
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	room := c.buf[c.w:]
	n, err := c.read(room)
	c.w += n
	c.burst = n == len(room)
	if c.burst { // a peer that always has more must not keep the processor from those who send little
		if c.bursts++; c.bursts%burstTurn == 0 {
			runtime.Gosched()
		}
	}
	return err
}

// burstTurn is how many full reads in a row one connection has before it is another's turn.
const burstTurn = 4

// resize takes another buffer of at least n bytes for what is buffered.
func (c *Conn) resize(n int) {
	b := getBuf(n)
	secret := c.secretHere()
	c.w = copy(b, c.buf[c.r:c.w])
	c.r = 0
	if secret {
		clear(c.buf)
	}
	if c.buf != nil {
		putBuf(c.buf)
	}
	c.buf = b
}

// unread puts bytes that were read for another purpose back in front of an empty buffer.
func (c *Conn) unread(p []byte) {
	c.r, c.w = 0, 0
	if len(p) > len(c.buf) {
		if c.buf != nil {
			putBuf(c.buf)
		}
		c.buf = getBuf(len(p))
	}
	c.w = copy(c.buf, p)
}

// dropInput forgets all buffered input and gives the buffer back.
func (c *Conn) dropInput() {
	if c.buf != nil {
		putBuf(c.buf)
	}
	c.buf, c.r, c.w = nil, 0, 0
	c.sock.rest()
}

// reserve makes room for n more bytes of output.
func (c *Conn) reserve(n int) {
	if cap(c.out)-len(c.out) >= n {
		return
	}
	b := getBuf(len(c.out) + n)
	b = b[:copy(b, c.out)]
	if c.out != nil {
		putBuf(c.out)
	}
	c.out = b
}

// WriteRaw appends b to the output as it is: a reply made with AppendReply, or Reply.Raw.
func (c *Conn) WriteRaw(b []byte) {
	if c.werr != nil {
		return
	}
	c.reserve(len(b))
	c.out = append(c.out, b...)
	c.spillOut()
}

// spillOut sends the output if much has gathered; the error is kept for Flush.
func (c *Conn) spillOut() {
	if len(c.out) >= outMax {
		c.flushOut()
	}
}

// Flush sends the output in one write. After an error it gives the same error always.
func (c *Conn) Flush() error {
	if len(c.out) > 0 {
		c.flushOut()
	}
	return c.werr
}

func (c *Conn) flushOut() {
	if c.werr == nil {
		c.werr = c.write(c.out)
	}
	putBuf(c.out)
	c.out = nil
}

// Idle gives the read buffer back if nothing is buffered: for a connection that is kept without
// being read. What the last ReadCommand gave is not valid any more.
func (c *Conn) Idle() {
	if c.r == c.w {
		c.dropInput()
	}
}

// Interrupt closes the connection under c, so that a read or write in another goroutine ends with an
// error. Close is still to be called by the goroutine that owns c.
func (c *Conn) Interrupt() error { return c.base.Close() }

// Close closes the connection without sending what is pending and gives the buffers back.
func (c *Conn) Close() error {
	c.release()
	return c.nc.Close()
}

func (c *Conn) release() {
	c.dropInput()
	if c.out != nil {
		putBuf(c.out)
		c.out = nil
	}
	if c.werr == nil {
		c.werr = net.ErrClosed
	}
	if c.rerr == nil {
		c.rerr = net.ErrClosed
	}
}

// mostUnheard is how much a peer may still send after the last reply: closed before it is read, that reply could be lost.
const mostUnheard = 4 << 20

// CloseAfterPeer sends what is pending and waits up to wait for the peer to close, throwing away
// what it still sends; then it closes the connection. So the last reply cannot be overtaken by a
// reset, and the client that said QUIT closes first and keeps the TIME_WAIT.
func (c *Conn) CloseAfterPeer(wait time.Duration) error {
	defer c.Close()
	if err := c.Flush(); err != nil {
		return err
	}
	if err := c.nc.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	b := getBuf(size1K)
	defer func() { putBuf(b) }()
	for total := 0; total < mostUnheard; { // a peer that goes on talking is not waited for
		n, err := c.nc.Read(b)
		if err != nil {
			return nil // closed as hoped, or too late: both end here
		}
		if total += n; n == len(b) && n == size1K { // it has much to say: not in four thousand pieces
			putBuf(b)
			b = getBuf(size64K)
		}
	}
	return nil
}
