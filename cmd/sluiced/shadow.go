package main

import (
	"time"

	"sluice/intercept/control"
	"sluice/intercept/flow"
)

// shadowed tells whether a flow is only to be watched: its source is in mode shadow, as the kernel decided when it gave us
// the flow, or in a canary that does not take its user. A locked user's is not: somebody locked him, and he is to hear why.
func (d *daemon) shadowed(f *flow.Flow) bool {
	v := d.rules.Load().towards(f, time.Now())
	if v.mode != control.Shadow && (v.mode != control.Canary || v.enforced(f.User.Name)) {
		return false
	}
	_, locked := d.locks.Locked(f.User.ID)
	return !locked
}
