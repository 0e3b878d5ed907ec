package main

import (
	"cmp"
	"context"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"time"

	"sluice/bpf"
	"sluice/cmd/internal/config"
	"sluice/intercept/attach"
	"sluice/intercept/control"
)

// settings is what the configuration file says to this program.
type settings struct {
	customers, uplinks []string
	pins               string
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
		socket: control.ObservedSocket(c.API.Socket),
	}
	if c.Intercept.Path == attach.Clsact {
		return nil, fmt.Errorf("%s: intercept.path is clsact, where flows cannot be observed; set it to auto or tcx (Linux 6.6)", file)
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

// settle is how long interfaces may go on changing before changed is called: a bridge or a batch of guests starts at once.
const settle = time.Second

// follow calls changed once the customer interfaces are no longer those that were attached.
func (s *settings) follow(ctx context.Context, attached []bpf.ObserveLink, changed func()) error {
	events, err := attach.Watch(ctx, 0)
	if err != nil {
		return err
	}
	go func() {
		for range events.C {
			if now, err := s.links(); err != nil || !same(now, attached) {
				select {
				case <-time.After(settle):
				case <-ctx.Done():
				}
				changed()
				return
			}
		}
		changed() // the kernel dropped messages, so anything may have changed; or it is the end
	}()
	return nil
}

func same(a, b []bpf.ObserveLink) bool {
	order := func(x, y bpf.ObserveLink) int { return cmp.Compare(x.Index, y.Index) }
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, order)
	slices.SortFunc(b, order)
	return slices.Equal(a, b)
}
