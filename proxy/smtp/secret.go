package smtp

// What a client says in an AUTH dialogue is nobody's but its own and the destination's: it leaves no copy in buffers that
// are used again.

// ReadSecret reads one line of an AUTH dialogue as ReadLine does. The caller passes it on at once and calls WipeInput.
func (c *Conn) ReadSecret(limit int) ([]byte, error) {
	c.secret = true
	line, err := c.ReadLine(limit)
	c.secret = false
	return line, err
}

// WipeInput overwrites all input that has been consumed; what ReadCommand or ReadSecret gave is gone.
func (c *Conn) WipeInput() {
	clear(c.buf[:c.r])
	clear(c.buf[c.w:])
}

// WriteSecret sends what is pending, then line with CRLF behind it, and keeps no copy.
func (c *Conn) WriteSecret(line []byte) error {
	if err := c.Flush(); err != nil {
		return err
	}
	b := getBuf(len(line) + 2)
	n := copy(b, line)
	n += copy(b[n:], "\r\n")
	c.werr = c.write(b[:n])
	clear(b[:n])
	putBuf(b)
	return c.werr
}

// secretHere tells whether what is buffered may hold a secret.
func (c *Conn) secretHere() bool {
	in := c.buf[c.r:c.w]
	return c.secret || len(in) >= 4 && verbOf(in[:4]) == AUTH
}
