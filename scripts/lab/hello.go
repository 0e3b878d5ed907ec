package lab

import (
	"context"
	"fmt"
)

// Hello is SMTP and an EHLO with the customer's own name.
func (l *Lab) Hello(ctx context.Context, host, laddr, raddr string) (*Client, error) {
	c, err := l.SMTP(ctx, host, laddr, raddr)
	if err != nil {
		return nil, err
	}
	r, err := c.Cmd("EHLO mail." + host + ".example")
	if err == nil && r.Code != 250 {
		err = fmt.Errorf("EHLO of %s at %s was answered %s", host, raddr, r)
	}
	if err != nil {
		_ = c.Close() // the error above says more
		return nil, err
	}
	return c, nil
}
