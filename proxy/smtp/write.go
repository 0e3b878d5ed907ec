package smtp

import (
	"sync"
	"time"
)

// gather is the slices of one vectored write. It is apart from Conn, since a connection seldom writes, and taken from a
// pool, since it escapes.
type gather struct {
	parts [4][]byte
	n     int
	out   sending // of parts
}

var gathers = sync.Pool{New: func() any {
	g := new(gather)
	g.out.try = g.out.attempt
	return g
}}

func newGather() *gather { return gathers.Get().(*gather) }

func (g *gather) add(p []byte) {
	g.parts[g.n] = p
	g.n++
}

func (g *gather) release() {
	clear(g.parts[:g.n])
	g.n, g.out.vec = 0, nil
	gathers.Put(g)
}

// write sends p whole. On a plain connection the time-out counts from the last progress; a TLS
// connection cannot be resumed after a time-out, so there it counts for one write.
func (c *Conn) write(p []byte) error {
	w := c.sock.work()
	w.one[0] = p
	err := c.writeParts(w.one[:], &w.out)
	w.one[0], w.out.vec = nil, nil
	return err
}

// writev sends the slices of g in as few system calls as the connection allows, and releases g.
func (c *Conn) writev(g *gather) error {
	err := c.writeParts(g.parts[:g.n], &g.out)
	g.release()
	return err
}

func (c *Conn) writeParts(parts [][]byte, w *sending) error {
	if c.encrypted {
		return c.writeEach(parts)
	}
	w.vec = parts
	c.wr.fresh = true
	c.nwrites++
	for {
		if c.wr.armed == 0 {
			if err := c.armWrite(time.Now()); err != nil {
				return err
			}
		}
		n, err := c.sendVec(w)
		c.sent += n
		if err == nil {
			return nil
		}
		if err = c.writeFailed(n > 0, err); err != nil {
			return err
		}
	}
}

// sendVec writes w.vec, of which the part that was sent is removed. There are several slices only
// if the socket is vectored.
func (c *Conn) sendVec(w *sending) (int64, error) {
	if len(w.vec) > 1 || c.sock.reads() {
		return c.sock.write(w)
	}
	n, err := c.nc.Write(w.vec[0])
	w.vec[0] = w.vec[0][n:]
	return int64(n), err
}

// writeEach writes slice by slice for TLS; callers coalesce.
func (c *Conn) writeEach(parts [][]byte) error {
	for _, p := range parts {
		if len(p) == 0 {
			continue
		}
		now := time.Now()
		c.wr.fresh, c.wr.idle = false, momentOf(now)
		at := now.Add(c.wr.timeout)
		if until := c.until.time(); c.until != 0 && until.Before(at) {
			at = until
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
	if c.wr.over(now, c.until.time()) {
		c.wr.armed = 0
		return ErrTimeout
	}
	return c.armWrite(now)
}

func (c *Conn) armWrite(now time.Time) error {
	return c.nc.SetWriteDeadline(c.wr.next(now, c.until.time(), 0))
}
