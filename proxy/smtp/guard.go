package smtp

import "time"

// Guard decides right before the last write of a message whether it leaves.
type Guard interface {
	// Beside gives the connection that is looked at together with the one of the message; nil: there is none.
	Beside() *Conn
	// Quiet looks at both by itself, before Go or after, and gives what stands against the message.
	Quiet() error
	// Go is asked whether the message may go; from then on it is on its way.
	Go() error
}

// asked asks the guard, if there is one, once.
func (c *Conn) asked() error {
	g := c.guard
	if g == nil {
		return nil
	}
	c.guard = nil
	if err := g.Quiet(); err != nil {
		return err
	}
	return g.Go()
}

// last writes p, with which a message ends, once the guard was asked. Where both connections can be looked at by one system call,
// nobody has spoken and p leaves at once, the answer is waited for, too: after a look at the socket and a write there is none yet,
// and to try to read it would be a system call in vain.
func (c *Conn) last(p []byte) error {
	g := c.guard
	if g == nil {
		return c.write(p)
	}
	beside := g.Beside()
	if !c.plain() || beside != nil && !beside.plain() || c.Buffered() > 0 || c.rerr != nil || c.maxTotal > 0 {
		if err := c.asked(); err != nil {
			return err
		}
		return c.write(p)
	}
	c.guard = nil
	if err := g.Go(); err != nil {
		return err
	}
	rest, err := c.say(p, beside)
	if err != nil || len(rest) == 0 {
		return err
	}
	if len(rest) == len(p) {
		if err := g.Quiet(); err != nil {
			return err
		}
	}
	return c.write(rest)
}

// plain tells whether reads and looks go to the socket itself.
func (c *Conn) plain() bool { return !c.encrypted && c.sock.reads() }

// say writes p where neither peer has said anything or left, and takes the first bytes of the answer into the buffer. It gives what
// is left to be written: all of p where somebody has. What became of the answer the next read tells.
func (c *Conn) say(p []byte, beside *Conn) (rest []byte, err error) {
	if c.rd.armed == 0 {
		if err := c.armRead(time.Now()); err != nil {
			return p, err
		}
	}
	if c.buf == nil {
		c.buf = getBuf(size1K)
	}
	c.rd.fresh = true
	w := c.sock.work()
	w.said = p
	if beside != nil {
		w.beside = beside.sock.raw
	}
	n, err := c.sock.take(w, w.speak, c.buf)
	err = c.told(err)
	rest, werr := w.said, w.werr
	w.said, w.beside, w.werr = nil, nil, nil
	if len(rest) < len(p) {
		c.nwrites++
		c.sent += int64(len(p) - len(rest))
	}
	switch {
	case werr != nil:
		return rest, werr
	case len(rest) > 0:
		return rest, nil
	case err == nil:
		c.r, c.w, c.burst = 0, n, n == len(c.buf)
		c.in += int64(n)
		c.nreads++
	case !isDeadline(err):
		c.rerr = err
	}
	return nil, nil
}
