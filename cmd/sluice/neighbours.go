package main

import (
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

// neighbour is a host that this one has spoken to on a link of its own.
type neighbour struct {
	addr   netip.Addr
	mac    string
	device string
}

// kernelNeighbours are those of IPv6, which anybody may list.
func kernelNeighbours() ([]neighbour, error) {
	list, err := netlink.NeighList(0, netlink.FAMILY_V6)
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	var out []neighbour
	for _, n := range list {
		a, ok := netip.AddrFromSlice(n.IP)
		if !ok || len(n.HardwareAddr) == 0 || n.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE|unix.NUD_NOARP) != 0 {
			continue
		}
		if _, known := names[n.LinkIndex]; !known {
			if l, err := netlink.LinkByIndex(n.LinkIndex); err == nil {
				names[n.LinkIndex] = l.Attrs().Name
			}
		}
		out = append(out, neighbour{a, n.HardwareAddr.String(), names[n.LinkIndex]})
	}
	return out, nil
}

// shared names networks in which several Ethernet addresses answer for what the template takes for one user.
func (h *host) shared(cfg *config.Config) []api.Finding {
	if h.neighbours == nil || cfg.Template.Unknown != "make" || cfg.Template.IPv6 > 64 {
		return nil
	}
	list, err := h.neighbours()
	if err != nil {
		return []api.Finding{{Check: "neighbours", State: api.Warn, Text: "could not be listed: " + err.Error(), Remedy: "ip -6 neigh"}}
	}
	macs := map[netip.Prefix]map[string]bool{}
	for _, n := range list {
		p, err := n.addr.Prefix(64)
		if err != nil || !n.addr.IsGlobalUnicast() || !isCustomer(cfg, n.device) || hasUser(cfg, n.addr) {
			continue
		}
		if macs[p] == nil {
			macs[p] = map[string]bool{}
		}
		macs[p][n.mac] = true
	}
	const most = 5
	var fs []api.Finding
	for _, p := range slices.SortedFunc(maps.Keys(macs), func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }) {
		if len(macs[p]) > 1 && len(fs) < most {
			fs = append(fs, api.Finding{Check: "shared network", State: api.Warn, Text: fmt.Sprintf("%d hosts in %s count as one user: who is locked takes the others with him", len(macs[p]), p),
				Remedy: "if they are several customers: ipv6 = 128 in [template], or a [[user]] for each, with his addresses"})
		}
	}
	return fs
}

func isCustomer(cfg *config.Config, device string) bool {
	return slices.ContainsFunc(cfg.Intercept.CustomerInterfaces, func(p string) bool {
		ok, err := path.Match(p, device)
		return err == nil && ok
	})
}

// hasUser tells whether the configuration says whose address it is.
func hasUser(cfg *config.Config, a netip.Addr) bool {
	return slices.ContainsFunc(cfg.User, func(u config.User) bool {
		return slices.ContainsFunc(u.Prefixes, func(p config.Prefix) bool { return p.Contains(a) })
	})
}
