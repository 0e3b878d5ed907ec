// Package room keeps the network namespace in which the proxy's listening socket stands, and the door that leads there.
//
// In the room every destination is local, by a policy rule that costs nobody outside anything: a rule in the gateway's own
// namespace would slow down every packet that it forwards. The door is a pair of interfaces. The programs at the gateway's
// customer interfaces send through it what the proxy shall have; a program at its outer end sends the answers where the
// gateway's routes lead.
//
// The room lives as long as a socket or a thread does in it, so the listening socket, of which helper and proxy each hold a
// copy, keeps it, and nothing is left when both are gone.
package room

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoNamespace means that the right to make or enter a network namespace is missing.
var ErrNoNamespace = errors.New("no right to make or enter a network namespace (CAP_SYS_ADMIN)")

// Room is a namespace with a thread of this process in it. Its methods must be called in the gateway's own namespace, by
// one goroutine at a time; Do may be called by several.
type Room struct {
	ns      *os.File
	work    chan func()
	outside *netlink.Handle
	inside  *netlink.Handle

	mu     sync.RWMutex // held for reading while something is done in there
	closed bool
}

// New makes a room without a door.
func New() (*Room, error) {
	return open(func() error { return unix.Unshare(unix.CLONE_NEWNET) })
}

// Of enters the namespace in which a socket stands. The room is nil if that is the caller's own.
func Of(socket syscall.Conn) (*Room, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if cerr := raw.Control(func(s uintptr) { fd, err = unix.IoctlRetInt(int(s), unix.SIOCGSKNS) }); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, fmt.Errorf("could not tell the namespace of a socket: %w", err)
	}
	ns := os.NewFile(uintptr(fd), "room")
	defer ns.Close()
	if own, err := isOwn(ns); own || err != nil {
		return nil, err
	}
	return open(func() error { return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET) })
}

func isOwn(ns *os.File) (bool, error) {
	here, err := os.Open(namespaceOfThread())
	if err != nil {
		return false, err
	}
	defer here.Close()
	a, aerr := here.Stat()
	b, berr := ns.Stat()
	if err := errors.Join(aerr, berr); err != nil {
		return false, err
	}
	return os.SameFile(a, b), nil
}

func namespaceOfThread() string { return fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()) }

// open lets a thread go into a namespace and stay there.
func open(enter func() error) (*Room, error) {
	r := &Room{work: make(chan func())}
	var err error
	if r.outside, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("could not open netlink: %w", err)
	}
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := enter()
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrNoNamespace, err)
		} else if r.ns, err = os.Open(namespaceOfThread()); err == nil {
			r.inside, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		}
		entered <- err
		for f := range r.work {
			f()
		}
	}()
	if err := <-entered; err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Do runs f in the room: sockets that it opens stand there.
func (r *Room) Do(f func() error) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed {
		return errors.New("the proxy's namespace was let go of")
	}
	done := make(chan error)
	r.work <- func() { done <- f() }
	return <-done
}

// Close lets go of the room, which lives on as long as there are sockets in it.
func (r *Room) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.closed = true
	close(r.work)
	if r.ns != nil {
		_ = r.ns.Close() // a descriptor of a namespace; nothing was written
	}
	r.outside.Close()
	if r.inside != nil {
		r.inside.Close()
	}
}
