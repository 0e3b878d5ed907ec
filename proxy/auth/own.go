package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Own is a customer's own server that knows his mailboxes' passwords (AUT5). It is spoken to over TLS alone, and its
// certificate is verified: a password is handed to it.
type Own struct {
	Addr     string // host:port
	Implicit bool   // TLS from the first byte on (465), else STARTTLS
	// TLS are further settings; nil verifies the host's name by the system's roots.
	TLS *tls.Config
	// Dial opens the connection; nil dials from any address of the host.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// ownPatience bounds a whole question, if the client's own patience does not.
const ownPatience = 20 * time.Second

// String tells one server from another.
func (o *Own) String() string {
	if o == nil {
		return ""
	}
	return fmt.Sprintf("%s implicit=%t", o.Addr, o.Implicit)
}

// check tells whether the server takes the login; an error means that it did not say.
func (o *Own) check(ctx context.Context, login, password string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, ownPatience)
	defer cancel()
	c, err := o.open(ctx)
	if err != nil {
		return false, fmt.Errorf("the customer's server %s: %w", o.Addr, err)
	}
	defer c.Close()
	err = c.Auth(sasl.NewPlainClient("", login, password))
	var reply *smtp.SMTPError
	switch {
	case err == nil:
		_ = c.Quit() // the answer stands
		return true, nil
	case errors.As(err, &reply) && reply.Code == 535:
		return false, nil
	}
	return false, fmt.Errorf("the customer's server %s: %w", o.Addr, err)
}

func (o *Own) open(ctx context.Context) (*smtp.Client, error) {
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, err
	}
	dial := o.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	nc, err := dial(ctx, "tcp", o.Addr)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { nc.Close() }) // whatever it waits for
	set := o.TLS.Clone()
	if set == nil {
		set = new(tls.Config)
	}
	set.MinVersion = max(set.MinVersion, tls.VersionTLS12)
	if set.ServerName == "" {
		set.ServerName = host
	}
	if o.Implicit {
		t := tls.Client(nc, set)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, nc.Close())
		}
		return smtp.NewClient(t), nil
	}
	c, err := smtp.NewClientStartTLS(nc, set)
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return c, nil
}
