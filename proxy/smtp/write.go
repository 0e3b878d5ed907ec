package smtp

import "time"

// write sends p whole. On a plain connection the time-out counts from the last progress; a TLS
// connection cannot be resumed after a time-out, so there it counts for one write.
func (c *Conn) write(p []byte) error {
	c.iov[0] = p
	return c.writev(1)
}

// writev sends the first n slices of iov in as few system calls as the connection allows.
func (c *Conn) writev(n int) error {
	defer clear(c.iov[:n])
	if c.encrypted {
		return c.writeEach(c.iov[:n])
	}
	c.vec = c.iov[:n]
	c.wr.fresh = true
	c.nwrites++
	for {
		if c.wr.armed == 0 {
			if err := c.armWrite(time.Now()); err != nil {
				return err
			}
		}
		w, err := c.sendVec()
		c.sent += w
		if err == nil {
			return nil
		}
		if err = c.writeFailed(w > 0, err); err != nil {
			return err
		}
	}
}

// sendVec writes vec, of which the part that was sent is removed. There are several slices only
// if the socket is vectored.
func (c *Conn) sendVec() (int64, error) {
	if len(c.vec) > 1 {
		return c.sock.write(&c.vec)
	}
	n, err := c.nc.Write(c.vec[0])
	c.vec[0] = c.vec[0][n:]
	return int64(n), err
}

// writeEach writes slice by slice for TLS; callers coalesce.
func (c *Conn) writeEach(parts [][]byte) error {
	for _, p := range parts {
		if len(p) == 0 {
			continue
		}
		c.wr.fresh, c.wr.idle = false, time.Now()
		at := c.wr.idle.Add(c.wr.timeout)
		if !c.until.IsZero() && c.until.Before(at) {
			at = c.until
		}
		if err := c.nc.SetWriteDeadline(at); err != nil {
			return err
		}
		c.nwrites++
		n, err := c.nc.Write(p)
		c.sent += int64(n)
		if err != nil && isDeadline(err) {
			return ErrTimeout
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeFailed gives nil if the write may be taken up again.
func (c *Conn) writeFailed(progress bool, err error) error {
	if !isDeadline(err) {
		return err
	}
	now := time.Now()
	if progress {
		c.wr.fresh = true
	}
	if c.wr.over(now, c.until) {
		c.wr.armed = 0
		return ErrTimeout
	}
	return c.armWrite(now)
}

func (c *Conn) armWrite(now time.Time) error {
	return c.nc.SetWriteDeadline(c.wr.next(now, c.until, 0))
}
