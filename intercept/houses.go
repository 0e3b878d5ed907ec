package intercept

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"sluice/intercept/control"
)

// houses holds the listening sockets of the smarthost for as long as the helper lives, as socket does that of intercepted
// mail: the proxy may not bind low ports, and connections wait here while it restarts.
type houses struct {
	mu    sync.Mutex
	files map[netip.AddrPort]*os.File
	told  string // what was missing when the log was last told
}

// keepHouses opens what is missing, and tells the log of what cannot be opened, once.
func (e *Engine) keepHouses() {
	text := ""
	if err := e.houses.open(e.wantedHouses()); err != nil {
		text = err.Error()
	}
	e.houses.mu.Lock()
	news := text != "" && text != e.houses.told
	e.houses.told = text
	e.houses.mu.Unlock()
	if news {
		e.log.Error("not all of the smarthost listens", "err", text)
	}
}

func (e *Engine) wantedHouses() []netip.AddrPort {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.cfg.Houses
}

// open opens what is wanted and missing, and closes what is wanted no more. What cannot be opened is told by address; it
// is EADDRINUSE, too, while a proxy that outlived an earlier helper holds a socket.
func (h *houses) open(want []netip.AddrPort) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for a, f := range h.files {
		if !slices.Contains(want, a) {
			errs = append(errs, f.Close())
			delete(h.files, a)
		}
	}
	for _, a := range want {
		if h.files[a] != nil {
			continue
		}
		f, err := listenHouse(a)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		h.put(a, f)
	}
	return errors.Join(errs...)
}

func (h *houses) put(a netip.AddrPort, f *os.File) {
	if h.files == nil {
		h.files = map[netip.AddrPort]*os.File{}
	}
	h.files[a] = f
}

// adopt takes a socket back from a proxy, unless it is there already or not wanted; the name is the proxy's word, so the
// socket is checked.
func (h *houses) adopt(name string, f *os.File, want []netip.AddrPort) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	text, _ := strings.CutPrefix(name, control.HousePrefix)
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return errors.Join(control.Errorf(control.CodeInvalid, "could not take a socket named %q", name), f.Close())
	}
	if h.files[a] != nil || !slices.Contains(want, a) {
		return f.Close()
	}
	if err := checkHouse(f, a); err != nil {
		return errors.Join(control.Errorf(control.CodeInvalid, "could not take the socket of %v back: %v", a, err), f.Close())
	}
	h.put(a, f)
	return nil
}

// listeners are all sockets, for a welcome.
func (h *houses) listeners() (ls []control.Listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range slices.SortedFunc(maps.Keys(h.files), netip.AddrPort.Compare) {
		ls = append(ls, control.Listener{Name: control.HouseName(a), File: h.files[a]})
	}
	return ls
}

func (h *houses) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, f := range h.files {
		errs = append(errs, f.Close())
	}
	h.files = nil
	return errors.Join(errs...)
}

// listenHouse opens one socket. The address may come to the host later.
func listenHouse(a netip.AddrPort) (*os.File, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			level, option := unix.SOL_IP, unix.IP_FREEBIND
			if a.Addr().Is6() {
				level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
			}
			err = unix.SetsockoptInt(int(fd), level, option, 1)
		})
		return errors.Join(cerr, err)
	}}
	lc.SetMultipathTCP(false)
	network := "tcp4"
	if a.Addr().Is6() {
		network = "tcp6"
	}
	l, err := lc.Listen(context.Background(), network, a.String())
	if err != nil {
		return nil, fmt.Errorf("could not listen at %v for the smarthost: %w; see who does with: ss -ltnp", a, err)
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}

// checkHouse holds that a file is a listening TCP socket at the address.
func checkHouse(f *os.File, a netip.AddrPort) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(d uintptr) {
		fd := int(d)
		err = errors.Join(wantOption(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN, 1, "is not listening"),
			wantOption(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP, "is not TCP"))
		if sa, serr := unix.Getsockname(fd); serr != nil {
			err = errors.Join(err, serr)
		} else if got := boundTo(sa); got != a {
			err = errors.Join(err, fmt.Errorf("it is bound to %v", got))
		}
	})
	return errors.Join(cerr, err)
}

func boundTo(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
