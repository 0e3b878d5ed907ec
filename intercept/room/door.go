package room

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/intercept/ruleset"
)

const (
	innerName = "door"
	outerName = "sluice" // a number follows
	maxDoors  = 100
	txQueue   = 1000
)

// Programs stand at the door's ends, and go with it.
type Programs struct {
	Outer *ebpf.Program // what comes out of the room
	Inner *ebpf.Program // what comes in
	TCX   bool          // they are called directly (Linux 6.6), not by filters of the qdisc clsact
}

// Door tells how the gateway's programs reach the room.
type Door struct {
	Index int // of its outer end
	ID    int // of the room, among the namespaces that the gateway's knows
}

// Furnish makes the room what it has to be, whatever it is: its door with the programs, its routes, and the gateway's own
// settings of TCP. It changes nothing that is right already.
func (r *Room) Furnish(p Programs) (Door, error) {
	inner, outer, err := r.door()
	if err != nil {
		return Door{}, err
	}
	if err := outside(outer.Attrs().Name); err != nil {
		return Door{}, err
	}
	settings, err := gatewaySettings()
	if err != nil {
		return Door{}, err
	}
	if err := r.Do(func() error { return inside(settings) }); err != nil {
		return Door{}, err
	}
	if err := errors.Join(up(r.outside, outer), up(r.inside, inner)); err != nil {
		return Door{}, err
	}
	if err := routes(r.inside, inner, outer.Attrs().HardwareAddr); err != nil {
		return Door{}, err
	}
	if err := r.hang(p, outer.Attrs().Index, inner.Attrs().Index); err != nil {
		return Door{}, err
	}
	id, err := r.id()
	return Door{Index: outer.Attrs().Index, ID: id}, err
}

// id is the room's number in the gateway's namespace, which gives it one if there is none.
func (r *Room) id() (int, error) {
	id, err := r.outside.GetNetNsIdByFd(int(r.ns.Fd()))
	if err == nil && id >= 0 {
		return id, nil
	}
	if err := r.outside.SetNetNsIdByFd(int(r.ns.Fd()), -1); err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, fmt.Errorf("could not number the proxy's namespace: %w", err)
	}
	if id, err = r.outside.GetNetNsIdByFd(int(r.ns.Fd())); err != nil || id < 0 {
		return 0, fmt.Errorf("could not tell the number of the proxy's namespace: %d, %w", id, err)
	}
	return id, nil
}

// door finds both ends, or makes them.
func (r *Room) door() (inner, outer netlink.Link, err error) {
	inner, err = r.inside.LinkByName(innerName)
	if err == nil {
		if outer, err = r.outside.LinkByIndex(inner.Attrs().ParentIndex); err == nil && outer.Type() == "veth" {
			return inner, outer, r.widen(inner, outer)
		}
	}
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); !none {
		return nil, nil, fmt.Errorf("could not look for the door of the proxy's namespace: %w", err)
	}
	if err := r.Do(quiet); err != nil {
		return nil, nil, err
	}
	name, err := r.make()
	if err != nil {
		return nil, nil, err
	}
	outer, oerr := r.outside.LinkByName(name)
	inner, ierr := r.inside.LinkByName(innerName)
	if err := errors.Join(oerr, ierr); err != nil {
		return nil, nil, fmt.Errorf("could not find the door of the proxy's namespace: %w", err)
	}
	if err := r.outside.LinkSetAlias(outer, ruleset.DoorAlias); err != nil {
		return nil, nil, fmt.Errorf("could not name the door of the proxy's namespace: %w", err)
	}
	return inner, outer, r.widen(inner, outer)
}

// make makes the door under the first name that is free.
func (r *Room) make() (name string, err error) {
	for i := range maxDoors {
		name = outerName + strconv.Itoa(i)
		err = r.outside.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, TxQLen: txQueue}, PeerName: innerName, PeerNamespace: netlink.NsFd(int(r.ns.Fd()))})
		if !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("could not make the interface %s: %w", name, err)
	}
	return name, nil
}

// widen lets the largest packet of any interface through. What is too large for the way that it has to go is told to its
// sender by the program at the outer end.
func (r *Room) widen(ends ...netlink.Link) error {
	all, err := r.outside.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // the next look has what is missing
		return fmt.Errorf("could not list the interfaces: %w", err)
	}
	most := 1500
	for _, l := range all {
		if a := l.Attrs(); a.Flags&net.FlagLoopback == 0 && a.Alias != ruleset.DoorAlias && a.MTU <= 16384 {
			most = max(most, a.MTU)
		}
	}
	for i, l := range ends {
		if l.Attrs().MTU == most {
			continue
		}
		if err := []*netlink.Handle{r.inside, r.outside}[i].LinkSetMTU(l, most); err != nil {
			return fmt.Errorf("could not set the MTU of %s: %w", l.Attrs().Name, err)
		}
	}
	return nil
}

func up(h *netlink.Handle, l netlink.Link) error {
	if l.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("could not bring %s up: %w", l.Attrs().Name, err)
	}
	return nil
}

// RemoveDoors removes the doors of all rooms in the current namespace but one; 0 is none. What still lives in a room without
// a door is cut off.
func RemoveDoors(but int) error {
	all, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("could not list the interfaces: %w", err)
	}
	var errs []error
	for _, l := range all {
		if a := l.Attrs(); l.Type() == "veth" && a.Alias == ruleset.DoorAlias && a.Index != but {
			if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, fmt.Errorf("could not remove the interface %s: %w", a.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}
