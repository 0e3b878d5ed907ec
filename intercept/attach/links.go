package attach

import (
	"fmt"

	"github.com/vishvananda/netlink"

	"sluice/intercept/ruleset"
)

// Links returns the interfaces of the namespace.
func (k *Kernel) Links() ([]ruleset.Link, error) {
	list, err := k.h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("could not list the interfaces: %w", err)
	}
	byIndex := make(map[int]netlink.Link, len(list))
	for _, l := range list {
		byIndex[l.Attrs().Index] = l
	}
	out := make([]ruleset.Link, 0, len(list))
	for _, l := range list {
		a := l.Attrs()
		link := ruleset.Link{
			Index: a.Index, Name: a.Name,
			Raw:  a.EncapType != "ether" && a.EncapType != "loopback",
			Loop: a.EncapType == "loopback",
		}
		if m, ok := byIndex[a.MasterIndex]; ok && a.MasterIndex != 0 {
			link.Master, link.Over = m.Type(), m.Attrs().Name
		}
		out = append(out, link)
	}
	return out, nil
}
