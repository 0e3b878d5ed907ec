package proxy

import (
	"errors"
	"net"
	"sync/atomic"
	"time"

	"sluice/proxy/park"
)

// The stages of a session, as Live tells them. Only an idle session may be woken to be ended.
const (
	waiting  uint32 = iota // for its greeting
	idle                   // for a command, no transaction open
	envelope               // in a command, or between MAIL and DATA
	upload                 // the body is coming
	judging
	onward // the message goes to the destination
	dotted // its final dot has left: the destination's answer is waited for
	unread // what goes by is encrypted between client and destination
	closing
	woken // was idle when the server began to stop, or when the user was locked
)

var stages = [...]string{"waiting", "idle", "envelope", "data", "verdict", "onward", "sent", "unread", "closing", "closing"}

// errWoken is what the read of an idle session gives when the session is to end.
var errWoken = errors.New("the session is ended by the gateway")

// clientConn is the client's connection with a stage, so that another goroutine can end an idle wait and nothing else.
// It does not touch the bytes.
type clientConn struct {
	net.Conn
	place park.Place // where the session waits without a goroutine
	stage atomic.Uint32
	hurry atomic.Bool // its end is waited for
}

// NetConn gives the connection below, for vectored writes and probes of the socket.
func (c *clientConn) NetConn() net.Conn { return c.Conn }

// wake ends the wait for a command of an idle session, and shortens that for the FIN of one that ends.
func (c *clientConn) wake() {
	if c.end() {
		return
	}
	c.hurry.Store(true)
	if c.stage.Load() == closing {
		_ = c.Conn.SetReadDeadline(time.Now().Add(hasty)) // an error means that it is closed already
	}
}

// end ends the wait for a command; false where no command is waited for.
func (c *clientConn) end() bool {
	if !c.stage.CompareAndSwap(idle, woken) {
		return false
	}
	_ = c.Conn.SetReadDeadline(past) // an error means that it is closed already
	c.place.Wake()
	return true
}

var past = time.Unix(1, 0)

// SetReadDeadline keeps a woken connection from waiting again, and one that closes from waiting long, whoever comes last.
func (c *clientConn) SetReadDeadline(t time.Time) error {
	err := c.Conn.SetReadDeadline(t)
	switch {
	case c.stage.Load() == woken:
		err = c.Conn.SetReadDeadline(past)
	case c.stage.Load() == closing && c.hurry.Load():
		err = c.Conn.SetReadDeadline(time.Now().Add(hasty))
	}
	return err
}

// Read reads.
func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.ReadFailed(err)
}

// ReadFailed has the wait of a woken connection end with errWoken, which unlike a passed deadline is final.
func (c *clientConn) ReadFailed(err error) error {
	if err != nil && c.stage.Load() == woken {
		return errWoken
	}
	return err
}
