package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// SetUsers replaces the runtime set of sources. The error is an *Error with CodeCeiling that names the prefix when one
// of them is looser than the helper's configuration allows; then nothing has changed.
func (c *Client) SetUsers(ctx context.Context, sources []Source) error {
	return c.parts(ctx, func() *Request {
		n := min(MaxPutUsers, len(sources))
		r := &Request{Op: OpUsers, Sources: sources[:n], More: n < len(sources)}
		sources = sources[n:]
		return r
	})
}

// PutUsers adds sources to the runtime set, or changes them; at most MaxPutUsers. The errors are those of SetUsers.
func (c *Client) PutUsers(ctx context.Context, sources ...Source) error {
	return c.ChangeUsers(ctx, sources, nil)
}

// ChangeUsers puts sources into the runtime set and takes the entries of prefixes out of it, at most MaxPutUsers of each;
// a prefix that has none is no error. All of it is done or nothing. The errors are those of SetUsers.
func (c *Client) ChangeUsers(ctx context.Context, put []Source, gone []netip.Prefix) error {
	if len(put) > MaxPutUsers || len(gone) > MaxPutUsers {
		return fmt.Errorf("could not change %d sources at once: more than %d; use SetUsers", max(len(put), len(gone)), MaxPutUsers)
	}
	_, err := c.do(ctx, &Request{Op: OpPutUsers, Sources: put, Gone: gone})
	return err
}

// SetExemptions replaces the exemptions that the proxy adds to those of the configuration, at most MaxExemptions. The
// error is an *Error with CodeCeiling that names the destination when one is looser than the configuration allows; then
// nothing has changed.
func (c *Client) SetExemptions(ctx context.Context, list []Exemption) error {
	return c.parts(ctx, func() *Request {
		n := min(MaxPutUsers, len(list))
		r := &Request{Op: OpExempt, Exemptions: list[:n], More: n < len(list)}
		list = list[n:]
		return r
	})
}

// SetLocks replaces the whole set of locks, as after a start of the proxy.
func (c *Client) SetLocks(ctx context.Context, locks []Lock) error {
	const entries = 800 // prefixes of at most 48 bytes each; a lock counts as three
	return c.parts(ctx, func() *Request {
		n, size := 0, 0
		for n < len(locks) && (n == 0 || size+3+len(locks[n].Prefixes) <= entries) {
			size += 3 + len(locks[n].Prefixes)
			n++
		}
		r := &Request{Op: OpLocks, Locks: locks[:n], More: n < len(locks)}
		locks = locks[n:]
		return r
	})
}

// Lock puts one lock in force; when it returns, the kernel holds it.
func (c *Client) Lock(ctx context.Context, l Lock) error {
	if lane := c.lane.Load(); lane != nil {
		defer lane.urgent.put(l)() // until it is in the tables, or refused
	}
	return c.urgent(ctx, &Request{Op: OpLock, Lock: &l})
}

// Unlock lifts the lock of a user; a user who has none is no error.
func (c *Client) Unlock(ctx context.Context, user uint32) error {
	return c.urgent(ctx, &Request{Op: OpUnlock, User: user})
}

// SetLockExempt replaces the set of destinations that even a locked user reaches: the mail exchanges of the
// administrator's mailbox, at most MaxLockExempt addresses (FEATURES INT6). They stay until the next call.
func (c *Client) SetLockExempt(ctx context.Context, addrs []netip.Addr) error {
	_, err := c.do(ctx, &Request{Op: OpLockExempt, Exempt: addrs})
	return err
}

// Announce announces a planned restart of at most MaxRestart: connections wait instead of meeting the fail mode.
func (c *Client) Announce(ctx context.Context, d time.Duration) error {
	_, err := c.do(ctx, &Request{Op: OpAnnounce, For: d})
	return err
}

// Bypass puts a bypass in force, in place of one for the same prefix; when it returns, the kernel holds it. The error is
// an *Error with CodeCeiling for anybody but root.
func (c *Client) Bypass(ctx context.Context, b Bypass) error {
	_, err := c.do(ctx, &Request{Op: OpBypass, Bypass: &b})
	return err
}

// EndBypass ends the bypass of a prefix, or every one for the zero prefix; one that is not there is an *Error with
// CodeInvalid. The other error is that of Bypass.
func (c *Client) EndBypass(ctx context.Context, p netip.Prefix) error {
	req := &Request{Op: OpBypassEnd}
	if p.IsValid() {
		req.Bypass = &Bypass{Prefix: p}
	}
	_, err := c.do(ctx, req)
	return err
}

// Counters returns the kernel's counters by name.
func (c *Client) Counters(ctx context.Context) (map[string]uint64, error) {
	rep, err := c.do(ctx, &Request{Op: OpCounters})
	if err != nil {
		return nil, err
	}
	return rep.Counters, nil
}

// UserCounters returns the kernel's counters of every user that has any.
func (c *Client) UserCounters(ctx context.Context) ([]UserCount, error) {
	rep, err := c.do(ctx, &Request{Op: OpUserCounters})
	if err != nil {
		return nil, err
	}
	return rep.Users, nil
}

// Status returns the helper's view of itself.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	rep, err := c.do(ctx, &Request{Op: OpStatus})
	if err != nil {
		return nil, err
	}
	if rep.Status == nil {
		return nil, fmt.Errorf("%w: a reply without a status", errMessage)
	}
	return rep.Status, nil
}

// Connect returns a connection to dst, port 25, whose source is src, the customer's own address. The helper starts it
// and this side waits for its end, at most until the context does; a refused or failed connection is an *net.OpError.
func (c *Client) Connect(ctx context.Context, src netip.Addr, dst netip.AddrPort) (*net.TCPConn, error) {
	failed := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Source: &net.TCPAddr{IP: src.AsSlice()}, Addr: net.TCPAddrFromAddrPort(dst), Err: err}
	}
	rep, err := c.do(ctx, &Request{Op: OpConnect, Connect: &Connect{Src: src, Dst: dst}})
	if e := (*Error)(nil); errors.As(err, &e) && e.Code == CodeUnreachable {
		return nil, failed(e)
	}
	if err != nil {
		return nil, err
	}
	if len(rep.Files) != 1 {
		closeAll(rep.Files)
		return nil, fmt.Errorf("%w: %d sockets instead of one", errMessage, len(rep.Files))
	}
	tc, err := completeConnect(ctx, rep.Files[0])
	if err != nil {
		return nil, failed(err)
	}
	return tc, nil
}
