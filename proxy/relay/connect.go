package relay

import (
	"context"
	"net"
)

// Connect opens no more than the TCP connection of a route. The error is a *Failure.
func (d *Dialer) Connect(ctx context.Context, r Route) (net.Conn, error) {
	nc, f := d.connect(ctx, &r)
	if f != nil {
		return nil, f
	}
	return nc, nil
}
