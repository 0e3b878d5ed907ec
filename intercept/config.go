// Package intercept turns a desired state into kernel state: routing, tables, programs and the listening socket, again
// and again without harm, and takes every trace of it away.
package intercept

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"

	"sluice/bpf"
	"sluice/intercept/control"
	"sluice/intercept/ruleset"
)

// Source is what root's configuration says about a prefix: the ceiling for whatever the proxy asks at run time.
type Source struct {
	Prefix netip.Prefix
	Mode   control.Mode // 0: none of its own
	Fail   control.Fail // 0: no user's own prefix
	// PerSecond bounds the connections that the proxy gets from the prefix's user, or from one unknown host; 0: no bound.
	// It is not the proxy's to say.
	PerSecond uint16
}

// Bind says where the packets of a user's prefix come from.
type Bind struct {
	Prefix    netip.Prefix     // one that Config.Sources names, with a fail mode
	Interface string           // "": any
	MAC       net.HardwareAddr // nil: any
}

// Port is a rule for one more mail port.
type Port struct {
	Port       uint16
	Interfaces []string // names or patterns of customer interfaces; none: all
	Mode       bpf.Mode // ModeNone: like port 25; ModePass, ModeReject: never opened
}

// Config is root's desired state. It is only ever replaced whole.
type Config struct {
	Version   string   // of the helper, for the proxy and the operator
	Customers []string // names or patterns of customer interfaces
	Uplinks   []string
	Ports     []uint16 // mail ports; 25 is always one

	Rules []Port // beside Ports
	Binds []Bind

	Default Source         // unknown sources; Prefix is not used
	Sources []Source       // users' prefixes, and those that have a mode
	Loosen  []netip.Prefix // inside these the proxy may go below what stands here
	Exempt  []control.Exemption
	// MayExempt are the destinations that the proxy may exempt with a mode below intercept.
	MayExempt []netip.Prefix

	Delivery    []netip.Prefix // routed to this host
	Addresses   []netip.Addr   // delivered from, for the loop check
	ReversePath bool

	Mark, JudgedMark uint32
	Table, Priority  uint32
	Path             string // "auto", "tcx", "clsact" or "nftables"
	ListenPort       uint16
	Houses           []netip.AddrPort // addresses of the smarthost; the host's, now or later
	PinDir           string
	StateDir         string
}

// Validate names what cannot be applied, before anything is touched.
func (c *Config) Validate() error {
	for _, p := range slices.Concat(c.Customers, c.Uplinks) {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return fmt.Errorf("interface pattern %q is not one; use a name or a pattern such as cust*", p)
		}
	}
	seen := make(map[netip.Prefix]bool)
	for _, s := range c.Sources {
		if seen[s.Prefix] {
			return fmt.Errorf("source %v is given twice", s.Prefix)
		}
		seen[s.Prefix] = true
	}
	if c.Default.Mode == 0 || c.Default.Fail == 0 {
		return fmt.Errorf("no mode or fail mode for unknown sources")
	}
	return nil
}

// ports returns all ports that are intercepted somewhere, 25 first.
func (c *Config) ports() []uint16 {
	out := []uint16{control.MailPort}
	add := func(p uint16) {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for _, p := range c.Ports {
		add(p)
	}
	for _, r := range c.Rules {
		if r.Mode == bpf.ModeNone {
			add(r.Port)
		}
	}
	return out
}

// Plan returns the routing that c needs.
func (c *Config) Plan() ruleset.Plan {
	return ruleset.Desired(ruleset.Input{Mark: c.Mark, Table: c.Table, Priority: c.Priority, Delivery: c.Delivery})
}

// datapath returns c in the words of the data path.
func (c *Config) datapath() bpf.Config {
	d := bpf.Config{
		InterceptMark: c.Mark, JudgedMark: c.JudgedMark, ReversePath: c.ReversePath,
		Default: bpf.Source{Mode: kernelMode(c.Default.Mode), Fail: kernelFail(c.Default.Fail), PerSecond: c.Default.PerSecond},
	}
	for _, p := range c.Ports {
		if p != control.MailPort {
			d.Ports = append(d.Ports, bpf.PortRule{Port: p})
		}
	}
	for _, r := range c.Rules {
		at := uint32(0)
		if len(r.Interfaces) > 0 {
			at = bpf.Nowhere // until they are there
		}
		d.Ports = append(d.Ports, bpf.PortRule{Ifindex: at, Port: r.Port, Mode: r.Mode})
	}
	return d
}

// ours returns the delivery addresses as the loop check wants them.
func (c *Config) ours() []netip.Prefix {
	out := slices.Clone(c.Delivery)
	for _, a := range c.Addresses {
		p := netip.PrefixFrom(a, a.BitLen())
		if !slices.ContainsFunc(out, func(o netip.Prefix) bool { return o.Contains(a) }) {
			out = append(out, p)
		}
	}
	return out
}

// restartOnly names the first setting that differs and cannot change while the helper runs; "" if there is none.
func (c *Config) restartOnly(o *Config) string {
	switch {
	case c.PinDir != o.PinDir:
		return "intercept.pin_dir"
	case c.StateDir != o.StateDir:
		return "intercept.state_dir"
	case c.ListenPort != o.ListenPort:
		return "intercept.listen_port"
	case c.Path != o.Path:
		return "intercept.path"
	}
	return ""
}

// kernelMode and kernelFail translate between the two leaf packages, whose numbers differ.
func kernelMode(m control.Mode) bpf.Mode {
	switch m {
	case control.Pass:
		return bpf.ModePass
	case control.Observe:
		return bpf.ModeObserve
	case control.Shadow:
		return bpf.ModeShadow
	case control.Canary, control.Intercept: // the proxy decides by user
		return bpf.ModeIntercept
	case control.Reject:
		return bpf.ModeReject
	case control.Drop:
		return bpf.ModeDrop
	}
	return bpf.ModeNone // refused by the data path
}

func kernelFail(f control.Fail) bpf.Fail {
	if f == control.Closed {
		return bpf.FailClosed
	}
	return bpf.FailOpen
}
