package room

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	sysctls       = "/proc/sys/net"
	localTable    = 100
	localPriority = 1
)

// quiet keeps the kernel from talking to neighbours through interfaces to come.
func quiet() error {
	return write(map[string]string{"ipv6/conf/default/addr_gen_mode": "1", "ipv6/conf/default/accept_ra": "0"})
}

// outside sets what the gateway needs of the door: it forwards what comes out of it, and expects its sources anywhere.
func outside(name string) error {
	return write(map[string]string{
		"ipv4/conf/" + name + "/forwarding": "1", "ipv4/conf/" + name + "/rp_filter": "2", "ipv4/conf/" + name + "/send_redirects": "0",
		"ipv6/conf/" + name + "/disable_ipv6": "0", "ipv6/conf/" + name + "/forwarding": "1",
		"ipv6/conf/" + name + "/addr_gen_mode": "1", "ipv6/conf/" + name + "/accept_ra": "0",
	})
}

// inside sets what the room needs: every source may come in by the door, and TCP is as the gateway has it.
func inside(settings map[string]string) error {
	for name := range settings {
		if _, err := os.Stat(filepath.Join(sysctls, name)); err != nil {
			delete(settings, name) // one for the whole host
		}
	}
	for _, name := range []string{"all", innerName} {
		settings["ipv4/conf/"+name+"/rp_filter"] = "0"
		settings["ipv6/conf/"+name+"/disable_ipv6"] = "0"
	}
	return write(settings)
}

// gatewaySettings reads the settings that sockets of the room shall have, too. Some cannot be set: see write.
func gatewaySettings() (map[string]string, error) {
	entries, err := os.ReadDir(filepath.Join(sysctls, "ipv4"))
	if err != nil {
		return nil, fmt.Errorf("could not read the settings of TCP: %w", err)
	}
	out := make(map[string]string)
	names := []string{"core/somaxconn", "ipv4/ip_default_ttl", "ipv4/ip_no_pmtu_disc", "ipv4/ip_local_port_range", "ipv4/ip_local_reserved_ports"}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "tcp_") && e.Name() != "tcp_fastopen_key" {
			names = append(names, "ipv4/"+e.Name())
		}
	}
	for _, n := range names {
		if b, err := os.ReadFile(filepath.Join(sysctls, n)); err == nil {
			out[n] = string(bytes.TrimSpace(b))
		}
	}
	return out, nil
}

// write sets what is not so already. A setting that this kernel does not have, or that is not for setting, is left.
func write(settings map[string]string) error {
	for name, want := range settings {
		path := filepath.Join(sysctls, name)
		have, err := os.ReadFile(path)
		if err != nil || string(bytes.TrimSpace(have)) == want {
			continue
		}
		err = os.WriteFile(path, []byte(want), 0o644)
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			return fmt.Errorf("could not set %s: %w", strings.ReplaceAll(name, "/", "."), err)
		}
	}
	return nil
}

// Where the room sends everything: to addresses that the outer end does not have, and need not, at its Ethernet address.
var (
	gateway4 = net.IPv4(169, 254, 1, 1)
	gateway6 = net.ParseIP("fe80::1")
)

// routes lets what comes in by the door be local, and what leaves go out by it.
func routes(h *netlink.Handle, door netlink.Link, mac net.HardwareAddr) error {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("could not find the loopback of the proxy's namespace: %w", err)
	}
	if err := up(h, lo); err != nil {
		return err
	}
	families := []int{unix.AF_INET}
	if _, err := os.Stat(filepath.Join(sysctls, "ipv6")); err == nil {
		families = append(families, unix.AF_INET6)
	}
	for _, f := range families {
		if err := routesOf(h, f, door, lo, mac); err != nil {
			return fmt.Errorf("could not set the routes of the proxy's namespace: %w", err)
		}
	}
	return nil
}

func routesOf(h *netlink.Handle, family int, door, lo netlink.Link, mac net.HardwareAddr) error {
	all, via := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, gateway4
	if family == unix.AF_INET6 {
		all, via = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}, gateway6
	}
	index := door.Attrs().Index
	rule := netlink.NewRule()
	rule.Family, rule.Priority, rule.IifName, rule.Table = family, localPriority, innerName, localTable
	if err := h.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	err := h.RouteReplace(&netlink.Route{Family: family, Dst: all, LinkIndex: lo.Attrs().Index, Table: localTable, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST})
	if err == nil {
		err = h.NeighSet(&netlink.Neigh{Family: family, LinkIndex: index, IP: via, HardwareAddr: mac, State: netlink.NUD_PERMANENT})
	}
	if err == nil {
		err = h.RouteReplace(&netlink.Route{Family: family, Dst: all, LinkIndex: index, Gw: via, Flags: int(netlink.FLAG_ONLINK)})
	}
	return err
}
