package main

import (
	"fmt"
	"net"
	"net/netip"
	"os/user"
	"slices"
	"strconv"

	"sluice/bpf"
	"sluice/cmd/internal/config"
	"sluice/intercept"
	"sluice/intercept/control"
)

// settings is what the configuration file says to this program.
type settings struct {
	engine *intercept.Config
	socket string
	uid    uint32 // the account that may speak on the control socket, and its group
	gid    int
}

// load reads the file; its error is a configError that names file, line, key and remedy.
func load(file string) (*settings, error) {
	c, err := config.Load(file)
	if err != nil {
		return nil, configError{err}
	}
	s, err := adapt(c)
	if err != nil {
		return nil, configError{fmt.Errorf("%s: %w", file, err)}
	}
	return s, nil
}

// adapt translates the file into the words of package intercept.
func adapt(c *config.Config) (*settings, error) {
	i := &c.Intercept
	uid, gid, err := account(i.DaemonUser)
	if err != nil {
		return nil, err
	}
	e := &intercept.Config{
		Version: version, Customers: i.CustomerInterfaces, Uplinks: i.Uplinks, Ports: i.Ports,
		ReversePath: i.ReversePath, Mark: i.Mark, JudgedMark: i.JudgedMark, Table: i.Table, Priority: i.RulePriority,
		Path: i.Path, ListenPort: i.ListenPort, PinDir: i.PinDir, StateDir: i.StateDir,
	}
	if e.Default, err = source(i.DefaultMode, i.DefaultFail, &c.Limits); err != nil {
		return nil, err
	}
	for _, l := range c.Smarthost.Listener {
		e.Houses = append(e.Houses, l.Address)
	}
	e.Houses = append(append(e.Houses, c.TLS.ACME.Listen...), c.Public.Listen...)
	for _, p := range i.RuntimeLoosen {
		e.Loosen = append(e.Loosen, p.Prefix)
	}
	for _, p := range i.RuntimeExempt {
		e.MayExempt = append(e.MayExempt, p.Prefix)
	}
	for _, p := range c.Delivery.Prefixes {
		e.Delivery = append(e.Delivery, p.Prefix)
	}
	for _, a := range c.Delivery.Address {
		e.Addresses = append(e.Addresses, a.Address)
	}
	if e.Exempt, err = exemptions(c.Exempt); err != nil {
		return nil, err
	}
	if e.Sources, err = sources(c); err != nil {
		return nil, err
	}
	if e.Rules, err = ports(i.Port); err != nil {
		return nil, err
	}
	if e.Binds, err = binds(c.User); err != nil {
		return nil, err
	}
	return &settings{engine: e, socket: i.ControlSocket, uid: uid, gid: gid}, e.Validate()
}

func source(mode, fail string, l *config.Limits) (s intercept.Source, err error) {
	s.PerSecond = l.ConnectionsPerSecond
	if err := s.Mode.UnmarshalText([]byte(mode)); err != nil {
		return s, err
	}
	return s, s.Fail.UnmarshalText([]byte(fail))
}

// sources joins users' prefixes with those that have a mode; one that is both is one entry. A mode that a user only
// inherits is none of his prefixes' own.
func sources(c *config.Config) ([]intercept.Source, error) {
	at := make(map[netip.Prefix]int)
	var list []intercept.Source
	for _, u := range c.User {
		s, err := source(u.Mode, u.Fail, &u.Limits)
		if err != nil {
			return nil, fmt.Errorf("user %q: %w", u.Name, err)
		}
		if !u.ModeSet {
			s.Mode = 0
		}
		for _, p := range u.Prefixes {
			s.Prefix = p.Prefix
			at[s.Prefix] = len(list)
			list = append(list, s)
		}
	}
	for _, m := range c.Mode {
		i, ok := at[m.Prefix.Prefix]
		if !ok {
			i = len(list)
			list = append(list, intercept.Source{Prefix: m.Prefix.Prefix})
		}
		if err := list[i].Mode.UnmarshalText([]byte(m.Mode)); err != nil {
			return nil, fmt.Errorf("mode of %v: %w", m.Prefix, err)
		}
	}
	return list, nil
}

func ports(list []config.Port) ([]intercept.Port, error) {
	out := make([]intercept.Port, len(list))
	for i, p := range list {
		out[i] = intercept.Port{Port: p.Port, Interfaces: p.Interfaces}
		if p.Mode == "intercept" {
			continue
		}
		var err error
		if out[i].Mode, err = bpf.ParseMode(p.Mode); err != nil {
			return nil, fmt.Errorf("port %d: %w", p.Port, err)
		}
	}
	return out, nil
}

// binds spells out what holds for each prefix of a user.
func binds(users []config.User) ([]intercept.Bind, error) {
	var out []intercept.Bind
	for _, u := range users {
		for _, p := range u.Prefixes {
			i := slices.IndexFunc(u.Bind, func(b config.Bind) bool { return b.Prefix.Prefix == p.Prefix })
			if i < 0 {
				i = slices.IndexFunc(u.Bind, func(b config.Bind) bool { return !b.Prefix.IsValid() })
			}
			if i < 0 {
				continue
			}
			b := intercept.Bind{Prefix: p.Prefix, Interface: u.Bind[i].Interface}
			if u.Bind[i].MAC != "" {
				var err error
				if b.MAC, err = net.ParseMAC(u.Bind[i].MAC); err != nil {
					return nil, fmt.Errorf("user %q: %w", u.Name, err)
				}
			}
			out = append(out, b)
		}
	}
	return out, nil
}

func exemptions(list []config.Exempt) ([]control.Exemption, error) {
	out := make([]control.Exemption, len(list))
	for i, x := range list {
		out[i] = control.Exemption{Prefix: x.Prefix.Prefix, Port: x.Port, Until: x.Until}
		if err := out[i].Mode.UnmarshalText([]byte(x.Mode)); err != nil {
			return nil, fmt.Errorf("exempt %v: %w", x.Prefix, err)
		}
	}
	return out, nil
}

// account finds the daemon's user, by name or number, and his group.
func account(name string) (uid uint32, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			n, perr := strconv.ParseUint(name, 10, 32)
			if perr != nil {
				return 0, 0, fmt.Errorf("intercept.daemon_user: no account %q on this host; make one: useradd --system %s", name, name)
			}
			return uint32(n), int(n), nil // a number needs no entry, as in containers
		}
	}
	n, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("intercept.daemon_user: account %q has no numeric id", name)
	}
	gid, err = strconv.Atoi(u.Gid)
	if err != nil {
		return 0, 0, fmt.Errorf("intercept.daemon_user: account %q has no numeric group", name)
	}
	return uint32(n), gid, nil
}

var _ control.Handler = (*intercept.Engine)(nil)
