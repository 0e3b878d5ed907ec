package smtp

import "time"

// probeWait is how long Probe reads where it cannot look at the socket, or where bytes have
// arrived that TLS may take for itself.
const probeWait = time.Millisecond

// Probe looks, without waiting, whether the peer has closed the connection or sent anything.
// pending: input waits, in the Conn or the socket; for a client that expects no reply this means
// that the server said something unasked (a 421 before it closes, most often). err: the
// connection is gone (io.EOF, a reset). With false and nil it is as idle as can be seen from here.
func (c *Conn) Probe() (pending bool, err error) {
	if c.Buffered() > 0 {
		return true, nil
	}
	if c.rerr != nil {
		return false, c.rerr
	}
	wait := probeWait
	if waiting, known, err := c.sock.peek(); known {
		switch {
		case err != nil:
			c.rerr = err
			return false, err
		case !c.encrypted:
			return waiting, nil
		case !waiting:
			wait = -time.Second // what TLS holds back is read even so, the socket is not
		}
	}
	return c.probeRead(wait)
}

// HungUp tells, without waiting, whether the peer has ended its side of the connection or reset it, also where it sent
// much before that nobody has read; false where the socket cannot be looked at.
func (c *Conn) HungUp() bool { return c.sock.hungUp() }

// Unread tells, without a system call, whether input has been taken from the network that nobody has read: what is
// buffered here, and whole records that TLS holds back.
func (c *Conn) Unread() bool {
	if c.Buffered() > 0 || !c.encrypted || c.rerr != nil {
		return c.Buffered() > 0
	}
	pending, _ := c.probeRead(-time.Second) // a deadline in the past: the socket is not asked; an error shows again at the next read
	return pending
}

// LastReply reads the reply that a server sent before it closed, or without being asked, also after a write to it has
// failed; it waits for it up to wait. The connection is to be closed in any case.
func (c *Conn) LastReply(r *Reply, wait time.Duration) error {
	werr := c.werr
	c.werr = nil
	c.SetUntil(time.Now().Add(wait))
	err := c.ReadReply(r)
	c.werr = werr
	return err
}

// probeRead reads with a very short deadline and keeps what comes. Under TLS it takes session
// tickets and alerts out of the way, which are not input.
func (c *Conn) probeRead(wait time.Duration) (pending bool, err error) {
	c.rd.armed = 0
	if err := c.nc.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return false, err
	}
	if c.buf == nil {
		c.buf = getBuf(size1K)
	}
	n, err := c.nc.Read(c.buf)
	c.r, c.w = 0, n
	c.in += int64(n)
	switch {
	case n > 0:
		return true, nil
	case err == nil || isDeadline(err):
		return false, nil
	}
	c.rerr = err
	return false, c.rerr
}
