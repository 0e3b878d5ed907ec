package attach

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"sluice/intercept/ruleset"
)

// dumpTries bounds how often a list is asked for anew that changed while the kernel told it.
const dumpTries = 10

// dump asks for a list until it comes whole: while interfaces come and go the kernel may tell a part of it only.
func dump[T any](ask func() ([]T, error)) (list []T, err error) {
	for range dumpTries {
		if list, err = ask(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return list, err
}

// Links returns the interfaces of the namespace.
func (k *Kernel) Links() ([]ruleset.Link, error) {
	list, err := dump(k.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("could not list the interfaces: %w", err)
	}
	byIndex := make(map[int]netlink.Link, len(list))
	for _, l := range list {
		byIndex[l.Attrs().Index] = l
	}
	out := make([]ruleset.Link, 0, len(list))
	for _, l := range list {
		out = append(out, planLink(l, byIndex[l.Attrs().MasterIndex]))
	}
	return out, nil
}

// LinksOf returns those of the named interfaces that are there.
func (k *Kernel) LinksOf(indexes []int) ([]ruleset.Link, error) {
	var out []ruleset.Link
	for _, i := range indexes {
		l, err := k.linkOf(i)
		if err != nil {
			return nil, err
		}
		if l == nil {
			continue
		}
		var master netlink.Link
		if m := l.Attrs().MasterIndex; m != 0 {
			if master, err = k.linkOf(m); err != nil {
				return nil, err
			}
		}
		out = append(out, planLink(l, master))
	}
	return out, nil
}

// linkOf returns nil for an interface that is gone.
func (k *Kernel) linkOf(index int) (netlink.Link, error) {
	l, err := k.h.LinkByIndex(index)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("could not look at interface %d: %w", index, err)
	}
	return l, nil
}

// planLink tells what places depend on; master is nil where there is none.
func planLink(l, master netlink.Link) ruleset.Link {
	a := l.Attrs()
	link := ruleset.Link{Index: a.Index, Name: a.Name, Kind: l.Type()}
	link.Door = link.Kind == "veth" && a.Alias == ruleset.DoorAlias
	if link.Kind == "device" {
		link.Kind = ""
	}
	link.SetHeader(a.EncapType)
	if g, ok := l.(*netlink.Gretun); ok {
		link.Outer = link.Raw && !g.FlowBased && (g.Remote == nil || g.Remote.IsUnspecified())
	}
	switch {
	case master != nil:
		link.Master, link.Over = master.Type(), master.Attrs().Name
	case a.Slave != nil: // its master is in another namespace, or went just now
		link.Master, link.Over = a.Slave.SlaveType(), "its master"
	}
	return link
}
