package main

import (
	"fmt"
	"log/slog"
	"os/user"
	"strconv"

	"sluice/bpf"
	"sluice/cmd/internal/config"
	"sluice/intercept/attach"
	"sluice/intercept/control"
	"sluice/intercept/nft"
	"sluice/intercept/ruleset"
)

// settings is what the configuration file says to this program.
type settings struct {
	customers, uplinks []string
	pins               string
	path               string
	ports              []uint16
	source             string // auto, ring or nfqueue
	queue              uint16
	socket             string // of sluiced, for reports
	uid, gid           int    // what remains of the rights
}

// load reads the file; its error names file, line, key and remedy.
func load(file string) (*settings, error) {
	c, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	s := &settings{
		customers: c.Intercept.CustomerInterfaces, uplinks: c.Intercept.Uplinks, pins: c.Intercept.PinDir,
		socket: control.ObservedSocket(c.API.Socket), path: c.Intercept.Path, ports: c.Intercept.Ports, source: c.Observe.Source, queue: c.Observe.Queue,
	}
	if ring, table := s.source == "ring", s.path == nft.Path; ring && table || s.source == "nfqueue" && !table && s.path != "auto" {
		return nil, fmt.Errorf("%s: observe.source is %s, which intercept.path = %q does not have; set it to auto", file, s.source, s.path)
	}
	if s.uid, s.gid, err = account(c.Intercept.DaemonUser); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// account finds the daemon's user, by name or number, and his group.
func account(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		n, perr := strconv.ParseUint(name, 10, 31)
		if perr != nil {
			return 0, 0, fmt.Errorf("intercept.daemon_user: no account %q on this host; make one: useradd --system %s", name, name)
		}
		return int(n), int(n), nil // a number needs no entry, as in containers
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("intercept.daemon_user: account %q has no numeric id: %w", name, err)
	}
	return uid, gid, nil
}

// links are the customer interfaces that can be observed now.
func (s *settings) links(k *attach.Kernel) ([]bpf.ObserveLink, error) {
	all, err := k.Links()
	if err != nil {
		return nil, err
	}
	var out []bpf.ObserveLink
	for _, seat := range ruleset.Seats(all, s.customers, s.uplinks) {
		if seat.Role == ruleset.Customer && seat.Refused == "" {
			out = append(out, bpf.ObserveLink{Index: seat.Link.Index, Raw: seat.Link.Raw})
		}
	}
	return out, nil
}

// open opens the source that the configuration names, or that of the path which is in force.
func (s *settings) open(limit int, log *slog.Logger) (source, string, error) {
	by := s.source
	if by == "auto" {
		by = "ring"
		if stands, err := nft.Stands(); err == nil && stands {
			by = "nfqueue"
		}
	}
	if by == "nfqueue" {
		q, err := openQueue(s.queue, limit, log)
		return q, by, err
	}
	r, err := openRing(s, limit, log)
	return r, by, err
}
