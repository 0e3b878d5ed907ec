package main

import (
	"net/netip"
	"time"

	"sluice/cmd/internal/config"
	"sluice/intercept/flow"
)

// shadowMode is the mode's name in the configuration.
const shadowMode = "shadow"

// shadowed tells whether a flow is only to be watched, as the kernel decided when it gave us the flow. A locked user's
// is not: somebody locked him, and he is to hear why.
func (d *daemon) shadowed(f *flow.Flow) bool {
	cfg := d.cfg.Load()
	mode := cfg.Intercept.DefaultMode
	if m, ok := d.roster.Load().byID[f.User.ID]; ok {
		mode = m.mode
	}
	if m, ok := exempted(cfg.Exempt, f.Target, time.Now()); ok {
		mode = m
	}
	if mode != shadowMode {
		return false
	}
	_, locked := d.locks.Locked(f.User.ID)
	return !locked
}

// exempted finds the mode towards a destination as the kernel does: the longest prefix wins; with equal ones the one with
// a port.
func exempted(list []config.Exempt, to netip.AddrPort, now time.Time) (mode string, ok bool) {
	best := -1
	for i := range list {
		x := &list[i]
		if x.Port != 0 && x.Port != to.Port() || !x.Prefix.Contains(to.Addr()) || !x.Until.IsZero() && !x.Until.After(now) {
			continue
		}
		weight := 2 * x.Prefix.Bits()
		if x.Port != 0 {
			weight++
		}
		if weight > best {
			best, mode = weight, x.Mode
		}
	}
	return mode, best >= 0
}
