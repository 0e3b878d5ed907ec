//go:build linux

package flow

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// IDs hands out flow ids. All listeners of one process share one.
type IDs struct{ n atomic.Uint64 }

// idBits leaves room for a million flows in each second since the start before an id could meet one of a process that
// was started later.
const idBits = 20

// NewIDs starts counting for a process that was started at t.
func NewIDs(t time.Time) *IDs {
	ids := new(IDs)
	ids.n.Store(uint64(t.Unix()) << idBits)
	return ids
}

// Next returns an id that this process has not used.
func (i *IDs) Next() ID { return ID(i.n.Add(1)) }

// Options say which connections a Listener accepts and how it names them.
type Options struct {
	Ports       []uint16              // mail ports; a connection to another local port is refused; empty means 25
	Local       func(netip.Addr) bool // the gateway's own addresses: refused; nil refuses none
	Attribution Attributor            // nil leaves every flow without a user
	IDs         *IDs                  // nil makes some
}

// Why a Listener refused a connection.
const (
	RefusedPort  = "port"  // the local port is no mail port: somebody connected to the listener itself
	RefusedLocal = "local" // the local address is the gateway's own: it is no destination of a customer's mail
)

// Refused is the error of an Accept whose connection was closed at once. The caller counts it and goes on.
type Refused struct {
	Reason         string // RefusedPort or RefusedLocal
	Client, Target netip.AddrPort
}

// Error names both ends.
func (r *Refused) Error() string {
	return fmt.Sprintf("refused connection from %v to %v: %s", r.Client, r.Target, r.Reason)
}

// Listener accepts the connections that the kernel hands to the proxy. It speaks to the socket itself, because the
// standard library sets five options on each accepted connection; here the listener's no-delay is inherited, and dead
// peers are found by the sessions' own deadlines.
type Listener struct {
	file   *os.File
	raw    syscallConn
	opt    Options
	closed atomic.Bool
	waited bool // the last Accept, or took nothing
}

// syscallConn is what Listener needs of a raw connection.
type syscallConn interface {
	Read(func(fd uintptr) bool) error
	Control(func(fd uintptr)) error
}

// NewListener takes a copy of a listening TCP socket; f stays the caller's.
func NewListener(f *os.File, opt Options) (*Listener, error) {
	if len(opt.Ports) == 0 {
		opt.Ports = []uint16{25}
	}
	if opt.IDs == nil {
		opt.IDs = NewIDs(time.Now())
	}
	file, err := duplicate(f)
	if err != nil {
		return nil, fmt.Errorf("could not take the listening socket: %w", err)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("could not take the listening socket: %w", err), file.Close())
	}
	l := &Listener{file: file, raw: raw, opt: opt}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if listening, lerr := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && (lerr != nil || listening == 0) {
			err = errors.Join(errors.New("not a listening socket"), lerr)
		}
	})
	if err := errors.Join(cerr, err); err != nil {
		return nil, errors.Join(fmt.Errorf("could not take the listening socket: %w", err), file.Close())
	}
	return l, nil
}

// duplicate copies a descriptor, non-blocking, for the poller.
func duplicate(f *os.File) (*os.File, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	cerr := rc.Control(func(old uintptr) {
		if fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(fd, true)
		}
	})
	if err := errors.Join(cerr, err); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Accept waits for the next connection. Errors: *Refused (the connection is closed already, accept on),
// os.ErrDeadlineExceeded, net.ErrClosed, or the kernel's, of which EMFILE and ENFILE pass when sessions end.
func (l *Listener) Accept() (*Conn, error) {
	fd, peer, err := l.accept()
	if err != nil {
		return nil, err
	}
	local, err := syscall.Getsockname(fd)
	if err != nil {
		return nil, errors.Join(opError("accept", err), unix.Close(fd))
	}
	client, target := addrPort(peer), addrPort(local)
	if reason := l.refuse(target); reason != "" {
		return nil, errors.Join(&Refused{reason, client, target}, unix.Close(fd))
	}
	return newConn(fd, Flow{ID: l.opt.IDs.Next(), Client: client, Target: target, Start: time.Now()}, l.opt.Attribution), nil
}

func (l *Listener) refuse(target netip.AddrPort) string {
	switch {
	case !slices.Contains(l.opt.Ports, target.Port()):
		return RefusedPort
	case l.opt.Local != nil && l.opt.Local(target.Addr()):
		return RefusedLocal
	}
	return ""
}

// accept speaks by package syscall, since x/sys asks each socket for its protocol before it reads an address.
func (l *Listener) accept() (fd int, peer syscall.Sockaddr, err error) {
	l.waited = false
	rerr := l.raw.Read(func(lfd uintptr) bool {
		for {
			fd, peer, err = syscall.Accept4(int(lfd), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			switch err {
			case syscall.EINTR, syscall.ECONNABORTED: // the client left while it waited
				continue
			case syscall.EAGAIN:
				l.waited = true
				return false
			}
			return true
		}
	})
	switch {
	case l.closed.Load():
		if rerr == nil && err == nil {
			_ = unix.Close(fd)
		}
		return 0, nil, opError("accept", net.ErrClosed)
	case rerr != nil:
		l.waited = true // its time may have been over before it looked
		return 0, nil, opError("accept", rerr)
	case err != nil:
		return 0, nil, opError("accept", os.NewSyscallError("accept4", err))
	}
	return fd, peer, nil
}

func opError(op string, err error) error { return &net.OpError{Op: op, Net: "tcp", Err: err} }

// addrPort returns the plain form of an address: never IPv4-mapped, without a zone.
func addrPort(sa syscall.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// AtOnce tells whether the last Accept took what was there without waiting, so that more may be. It is for the goroutine that accepts.
func (l *Listener) AtOnce() bool { return !l.waited }

// SetDeadline makes a waiting and any later Accept return os.ErrDeadlineExceeded at t, so that its loop can beat while
// nothing comes; the zero time waits for ever.
func (l *Listener) SetDeadline(t time.Time) error { return l.file.SetReadDeadline(t) }

// Queue returns how many complete connections wait to be accepted, and how many may. A heartbeat is honest only while
// this does not grow.
func (l *Listener) Queue() (waiting, limit int, err error) {
	var info *unix.TCPInfo
	cerr := l.raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(cerr, err); err != nil {
		return 0, 0, fmt.Errorf("could not read the accept queue: %w", err)
	}
	return int(info.Unacked), int(info.Sacked), nil // for a listening socket these two fields hold its queue
}

// File returns a copy of the socket, to hand to a new helper; the caller closes it.
func (l *Listener) File() (*os.File, error) { return duplicate(l.file) }

// Close ends Accept. The socket itself lives on as long as another process holds it.
func (l *Listener) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	return l.file.Close()
}
