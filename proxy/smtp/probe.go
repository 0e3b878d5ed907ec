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
