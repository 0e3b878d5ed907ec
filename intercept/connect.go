package intercept

import (
	"errors"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"sluice/intercept/control"
	"sluice/intercept/ruleset"
)

// connect starts a connection from a customer's own address and returns the socket while it is connecting.
func (e *Engine) connect(c *control.Connect) (*os.File, error) {
	if err := e.mayConnect(c); err != nil {
		return nil, err
	}
	f, err := e.connectAt(c.Src, c.Dst)
	if err != nil {
		return nil, control.Errorf(control.CodeUnreachable, "could not connect from %v to %v: %v", c.Src, c.Dst, err)
	}
	return f, nil
}

// mayConnect holds the two things that keep this from being a spoofing service: the source is a customer's, and the
// destination is port 25 of somebody else.
func (e *Engine) mayConnect(c *control.Connect) error {
	src, dst := c.Src, c.Dst.Addr()
	refuse := func(why string) error {
		return control.Errorf(control.CodeRefused, "could not connect from %v to %v: %s", src, c.Dst, why)
	}
	switch {
	case !slices.Contains(e.mailPorts(), c.Dst.Port()):
		return refuse("only port 25 is allowed, and what else the configuration intercepts")
	case !plain(src) || !plain(dst) || src.Is4() != dst.Is4():
		return refuse("not two plain unicast addresses of one family")
	case e.isLocal(src):
		return refuse("the source is the gateway's own; bind it without the helper")
	case e.isLocal(dst):
		return refuse("the destination is the gateway itself")
	case !e.isCustomer(src):
		return refuse("the source is no customer's: neither named in the configuration nor routed to a customer interface")
	}
	return nil
}

func plain(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.Is4In6() && a.Zone() == ""
}

func (e *Engine) isLocal(a netip.Addr) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.ContainsFunc(e.local, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isCustomer tells whether root's configuration names a or the host routes it to a customer interface. What the proxy
// put into the source table is its own word and proves nothing.
func (e *Engine) isCustomer(a netip.Addr) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if _, ok := e.ceiling.Sources().Cover(netip.PrefixFrom(a, a.BitLen())); ok {
		return true
	}
	index, ok := e.kernel.Reaches(a)
	return ok && e.ifaces[index].Role == ruleset.Customer
}

// connectAt connects where the proxy's sockets stand.
func (e *Engine) connectAt(src netip.Addr, dst netip.AddrPort) (f *os.File, err error) {
	r, _ := e.quarters.get()
	if !e.entered() {
		return nil, errHeld
	}
	if r == nil {
		return e.startConnect(src, dst)
	}
	err = r.Do(func() (err error) { f, err = e.startConnect(src, dst); return err })
	return f, err
}

// startConnect makes the transparent socket and starts the handshake. The mark, which the proxy cannot take away, has the
// guard at the uplink ask whether a connection of this socket is the one that begins here.
func (e *Engine) startConnect(src netip.Addr, dst netip.AddrPort) (*os.File, error) {
	e.mu.RLock()
	mark := int(e.cfg.JudgedMark)
	e.mu.RUnlock()
	family := unix.AF_INET
	if src.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return nil, err
	}
	err = transparent(fd, src.Is6())
	if err == nil {
		// The port is chosen at connect, per destination, else all connections of a source would share one range.
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}
	if err == nil {
		err = e.bindPreserved(fd, mark, src, dst)
	}
	if err == nil {
		if err = unix.Connect(fd, sockaddr(dst)); err == unix.EINPROGRESS {
			err = nil
		}
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "connecting"), nil
}

func (e *Engine) bindPreserved(fd, mark int, src netip.Addr, dst netip.AddrPort) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
		return err
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return err
	}
	if err := e.data.Preserve(cookie, src, dst); err != nil {
		return err
	}
	return unix.Bind(fd, sockaddr(netip.AddrPortFrom(src, 0)))
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}
