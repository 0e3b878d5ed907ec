package intercept

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/bpf"
	"sluice/intercept/attach"
	"sluice/intercept/control"
	"sluice/intercept/room"
)

// doored is a data path that reaches sockets in a namespace of their own.
type doored interface {
	SetDoor(bpf.Door) error
	Door() bpf.Door
	HasListener() (bool, error)
	Listener() (cookie uint64, err error)
	Program(name string) *ebpf.Program
}

// quarters are where the proxy's sockets stand: a room, or, where none can be had, the gateway's own namespace, to which
// policy rules deliver.
type quarters struct {
	changing sync.Mutex // one change at a time
	tidy     int        // the door beside which no other is left; changed under changing

	mu   sync.Mutex // guards what follows, for moments only
	room *room.Room // nil: none, or none that this process has entered yet
	none error      // why there can be none
}

func (q *quarters) get() (*room.Room, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.room, q.none
}

// entered tells whether sockets can be opened where the proxy's stand: in the room, or here if there is none.
func (e *Engine) entered() bool {
	r, _ := e.quarters.get()
	d, ok := e.data.(doored)
	return r != nil || !ok || d.Door().Index == 0
}

func (q *quarters) set(r *room.Room, none error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.room, q.none = r, none
}

func (q *quarters) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.room != nil {
		q.room.Close()
	}
	q.room = nil
}

// errHeld means that another process holds the listening socket and has not handed it back yet.
var errHeld = errors.New("the listening socket is held by another process")

// held tells whether that is what keeps a socket from being opened.
func held(err error) bool { return errors.Is(err, errHeld) || errors.Is(err, unix.EADDRINUSE) }

// ruled tells whether policy rules have to deliver: without a room, and to sockets from before there was one.
func (e *Engine) ruled() bool {
	d, ok := e.data.(doored)
	if !ok {
		return true
	}
	at := d.Door()
	if at.Index != 0 {
		return at.Both
	}
	_, none := e.quarters.get()
	filled, err := d.HasListener()
	return none != nil || filled || err != nil
}

// openSocket opens the listening socket, in a room if there can be one, unless it is there or held by another process.
func (e *Engine) openSocket() error {
	e.quarters.changing.Lock()
	defer e.quarters.changing.Unlock()
	if e.socket.get() != nil {
		return nil
	}
	d, ok := e.data.(doored)
	if !ok {
		return e.listenHere()
	}
	if filled, err := d.HasListener(); filled || err != nil {
		return errors.Join(errHeld, err)
	}
	return e.moveIn(d)
}

func (e *Engine) listenHere() error {
	return e.socket.open(func() (*os.File, error) { return listen(e.port) }, e.port, e.mailPorts(), e.data)
}

// moveIn makes a room and listens there. Where that cannot be it listens here.
func (e *Engine) moveIn(d doored) error {
	if _, none := e.quarters.get(); none != nil {
		return errors.Join(d.SetDoor(bpf.Door{}), e.listenHere())
	}
	r, err := room.New()
	if err != nil {
		return err
	}
	both, err := e.socketsHere()
	if err == nil {
		err = e.enter(d, r, both, func() error {
			inside := func() (f *os.File, err error) {
				err = r.Do(func() (err error) { f, err = listen(e.port); return err })
				return f, err
			}
			return e.socket.open(inside, e.port, e.mailPorts(), e.data)
		})
	}
	if err != nil {
		r.Close()
	}
	return err
}

// enter furnishes a room, has the listener put into its slot, and sends packets there.
func (e *Engine) enter(d doored, r *room.Room, both bool, listen func() error) error {
	at, err := r.Furnish(e.doorPrograms(d))
	if err != nil {
		return err
	}
	if err := listen(); err != nil {
		return err
	}
	if err := d.SetDoor(bpf.Door{Index: at.Index, Room: at.ID, Both: both}); err != nil {
		return err
	}
	e.quarters.set(r, nil)
	return nil
}

func (e *Engine) doorPrograms(d doored) room.Programs {
	path, _ := e.seats.Path()
	return room.Programs{Outer: d.Program(bpf.DoorIngress), Inner: d.Program(bpf.RoomIngress), TCX: path == attach.TCX}
}

// adoptSocket takes the listening socket that a proxy hands back, and with it the room in which it stands. One that stands
// here, from a helper that had no room, gets a successor in a room; the proxy accepts from both.
func (e *Engine) adoptSocket(f *os.File) error {
	e.quarters.changing.Lock()
	defer e.quarters.changing.Unlock()
	adopt := func() error { return e.socket.adopt(f, e.port, e.mailPorts(), e.data) }
	d, ok := e.data.(doored)
	if !ok {
		if err := e.leaving.handBack(f); err != nil {
			e.log.Warn("connections that began before the change of the path may be cut", "error", err)
		}
	}
	if !ok || e.socket.get() != nil {
		return adopt()
	}
	if err := checkListener(f, e.port); err != nil {
		return errors.Join(control.Errorf(control.CodeInvalid, "could not take the listening socket back: %v", err), f.Close())
	}
	if older, err := e.superseded(d, f); older || err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := room.Of(f)
	_, none := e.quarters.get()
	switch {
	case errors.Is(err, room.ErrNoNamespace): // an earlier helper had the right; what it made goes on
		e.log.Warn("the namespace of the proxy's sockets cannot be entered: no delivery from customers' own addresses", "error", err)
		return adopt()
	case err != nil:
		return errors.Join(control.Errorf(control.CodeFailed, "could not take the listening socket back: %v", err), f.Close())
	case r != nil:
		if err := e.enter(d, r, d.Door().Both, adopt); err != nil {
			r.Close()
			return err
		}
		return nil
	case none != nil:
		return adopt()
	case e.swapped.Load(): // else programs are attached that would not find it there
		return errors.Join(e.moveIn(d), f.Close())
	case e.lost("listeners") || e.lost("heartbeat"): // and wait for it
		return adopt()
	}
	return errors.Join(control.Errorf(control.CodeNotReady, "could not take the listening socket back yet: programs are being exchanged; dial again"), f.Close())
}

// superseded tells whether a listening socket is one that the proxy only goes on to accept from: another one is in the slot.
func (e *Engine) superseded(d doored, f *os.File) (bool, error) {
	in, err := d.Listener()
	if err != nil || in == 0 {
		return false, err
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	var own uint64
	cerr := rc.Control(func(fd uintptr) { own, err = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE) })
	return own != in, errors.Join(cerr, err)
}

// keepQuarters mends the room, and leaves the policy rules once nothing needs them any more.
func (e *Engine) keepQuarters() error {
	d, ok := e.data.(doored)
	r, _ := e.quarters.get()
	if !ok || r == nil {
		return nil
	}
	e.quarters.changing.Lock()
	defer e.quarters.changing.Unlock()
	door, err := r.Furnish(e.doorPrograms(d))
	if err != nil {
		return err
	}
	at := bpf.Door{Index: door.Index, Room: door.ID, Both: d.Door().Both}
	if at.Both {
		if at.Both, err = e.socketsHere(); err != nil {
			return err
		}
	}
	if was := d.Door(); was != at {
		e.log.Info("the way to the proxy's sockets changed", "door", at.Index, "was", was.Index, "sockets of before", at.Both)
	}
	if err := d.SetDoor(at); err != nil || e.quarters.tidy == at.Index {
		return err
	}
	if err := room.RemoveDoors(at.Index); err != nil {
		return err
	}
	e.quarters.tidy = at.Index
	return nil
}

// socketsHere tells whether connections of the proxy stand in the gateway's own namespace, as those that began before there
// was a room: an end of theirs is a mail port, and the address on this side is not this host's.
func (e *Engine) socketsHere() (bool, error) {
	local, err := e.kernel.Local()
	if err != nil {
		return false, err
	}
	list, err := tcpSockets()
	if err != nil {
		return false, err
	}
	ports := e.mailPorts()
	return slices.ContainsFunc(list, func(s *netlink.Socket) bool {
		if !isOpen(s) || !slices.Contains(ports, s.ID.SourcePort) && !slices.Contains(ports, s.ID.DestinationPort) {
			return false
		}
		a, ok := netip.AddrFromSlice(s.ID.Source)
		return ok && !slices.ContainsFunc(local, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
	}), nil
}

// tcpSockets lists those of the current namespace.
func tcpSockets() (all []*netlink.Socket, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		list, err := netlink.SocketDiagTCP(family)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("could not list the sockets: %w", err)
		}
		all = append(all, list...)
	}
	return all, nil
}

// isOpen tells a connection that still has an end here from one that is over, and from a listening socket.
func isOpen(s *netlink.Socket) bool {
	return s.State != netlink.TCP_LISTEN && s.State != netlink.TCP_TIME_WAIT && s.State != netlink.TCP_CLOSE
}
