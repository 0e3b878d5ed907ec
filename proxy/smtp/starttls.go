package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"reflect"
	"time"
)

// StartServerTLS answers STARTTLS with "220 2.0.0 ready" and does the handshake as server. After an
// error the connection is to be closed.
//
// Plaintext that has come behind the command is thrown away, and what comes later is read by the
// handshake and breaks it: none is ever taken for a command under TLS (RFC 3207 4, CVE-2011-0411).
// Buffered tells beforehand how much it is.
func (c *Conn) StartServerTLS(cfg *tls.Config, ready string) error {
	c.dropInput()
	c.WriteReply(220, Enhanced{2, 0, 0}, ready)
	return c.startTLS(tls.Server, cfg)
}

// ServerTLS does the handshake as server on a connection that is encrypted from its first byte on (RFC 8314 3.3). After an
// error the connection is to be closed.
func (c *Conn) ServerTLS(cfg *tls.Config) error { return c.startTLS(tls.Server, cfg) }

// StartClientTLS does the handshake as client, after the 220 reply to STARTTLS was read. Plaintext
// behind that reply is thrown away, as StartServerTLS does. After an error the connection is to be closed.
func (c *Conn) StartClientTLS(cfg *tls.Config) error {
	c.dropInput()
	return c.startTLS(tls.Client, cfg)
}

// startTLS puts TLS between c and its network connection. The caller should set
// DynamicRecordSizingDisabled in cfg; if it did not, a copy is made that has it: else the first
// 128 KiB leave in records of one packet each, which is a system call each.
func (c *Conn) startTLS(role func(net.Conn, *tls.Config) *tls.Conn, cfg *tls.Config) error {
	if err := c.Flush(); err != nil {
		return err
	}
	if !cfg.DynamicRecordSizingDisabled {
		cfg = cfg.Clone()
		cfg.DynamicRecordSizingDisabled = true
	}
	end := time.Now().Add(c.handshake)
	if until := c.until.time(); c.until != 0 && until.Before(end) {
		end = until
	}
	if err := c.nc.SetDeadline(end); err != nil {
		return err
	}
	t := role(c.nc, cfg)
	err := t.HandshakeContext(context.Background())
	c.met = t.ConnectionState().Version != 0
	if err != nil {
		if isDeadline(err) {
			return ErrTimeout
		}
		return err
	}
	c.dropInput()
	c.nc, c.encrypted = t, true
	c.rd.armed, c.wr.armed = 0, 0
	return t.SetWriteDeadline(time.Time{})
}

// Detach sends what is pending, throws away what was read and not used, and gives the network connection to the caller,
// without deadlines: what goes over it from now on is none of c's business. c is of no further use.
func (c *Conn) Detach() (net.Conn, error) {
	err := c.Flush()
	c.release()
	if err == nil {
		err = c.nc.SetDeadline(time.Time{})
	}
	return c.nc, err
}

// Met tells whether the peers of a handshake that failed had agreed on a version: a client has seen the certificate then,
// or was about to.
func (c *Conn) Met() bool { return c.met }

// PeerAlert is the alert of the peer (RFC 8446 6) in an error of a handshake, or of what came after it. The library gives its
// number as an unexported kind of uint8.
func PeerAlert(err error) (n uint8, ok bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" || op.Err == nil {
		return 0, false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, false
	}
	return uint8(v.Uint()), true
}

// TLS gives the state of TLS on the connection, if there is any.
func (c *Conn) TLS() (tls.ConnectionState, bool) {
	if t, ok := c.nc.(*tls.Conn); ok {
		return t.ConnectionState(), true
	}
	return tls.ConnectionState{}, false
}

// Encrypted tells whether TLS lies under c.
func (c *Conn) Encrypted() bool {
	_, is := c.nc.(*tls.Conn)
	return is
}
