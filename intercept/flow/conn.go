package flow

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is one intercepted connection. It is a net.Conn whose LocalAddr is the original destination; its errors are
// *net.OpError as those of the standard library.
type Conn struct {
	file *os.File
	flow Flow
	by   Attributor
	once sync.Once
}

func newConn(fd int, f Flow, by Attributor) *Conn {
	return &Conn{file: os.NewFile(uintptr(fd), "flow"), flow: f, by: by}
}

// Flow says whose connection this is. The first call attributes it, which may wait for the store: call it from the
// session's goroutine, not from the accept loop. User.ID is 0 when nobody answers for the source.
func (c *Conn) Flow() Flow { return *c.Attributed() }

// Attributed gives what Flow does, in place: whoever leads the connection may say that somebody else answers for it.
func (c *Conn) Attributed() *Flow {
	c.once.Do(func() {
		if c.by == nil {
			return
		}
		if u, ok := c.by.Attribute(c.flow.Client.Addr()); ok {
			c.flow.User = u
		}
	})
	return &c.flow
}

// ID returns the flow's id without attributing it.
func (c *Conn) ID() ID { return c.flow.ID }

// Read reads from the client.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.file.Read(b)
	return n, c.wrap("read", err)
}

// Write writes all of b to the client.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.file.Write(b)
	return n, c.wrap("write", err)
}

// wrap turns the error of a file into that of a connection.
func (c *Conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
		if errno, ok := err.(syscall.Errno); ok {
			err = os.NewSyscallError(op, errno)
		}
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// LocalAddr is the original destination.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.flow.Target) }

// RemoteAddr is the customer.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.flow.Client) }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error { return c.wrap("set", c.file.SetDeadline(t)) }

// SetReadDeadline sets the moment at which a waiting Read gives up.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.wrap("set", c.file.SetReadDeadline(t)) }

// SetWriteDeadline sets the moment at which a waiting Write gives up.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.wrap("set", c.file.SetWriteDeadline(t)) }

// SyscallConn gives access to the socket.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.file.SyscallConn() }

// CloseWrite sends a FIN; the client can still be read.
func (c *Conn) CloseWrite() error {
	return c.control("close", func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// Reset closes the connection with a RST instead of a FIN.
func (c *Conn) Reset() error {
	err := c.control("reset", func(fd int) error {
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	})
	return errors.Join(err, c.Close())
}

func (c *Conn) control(op string, f func(fd int) error) error {
	rc, err := c.file.SyscallConn()
	if err != nil {
		return c.wrap(op, err)
	}
	cerr := rc.Control(func(fd uintptr) { err = f(int(fd)) })
	if cerr != nil { // the file is closed
		return c.wrap(op, net.ErrClosed)
	}
	if err != nil {
		return c.wrap(op, os.NewSyscallError(op, err))
	}
	return nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.wrap("close", c.file.Close()) }
