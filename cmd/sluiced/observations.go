package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/intercept/control"
	"sluice/proxy"
)

// observations are what sluice-observe told, by user, and the locks that there would have been; they begin anew with the
// process.
type observations struct {
	mu    sync.Mutex
	users map[uint32]*observedUser
	heard time.Time // the last report
	seen  uint64
	loss  control.ObservedLoss
}

type observedUser struct {
	api.Observed
	flows bool // some were observed
	locks int
}

// user is where a user's counts stand. o.mu is held.
func (o *observations) user(id uint32) *observedUser {
	if o.users == nil {
		o.users = make(map[uint32]*observedUser)
	}
	u, ok := o.users[id]
	if !ok {
		u = new(observedUser)
		o.users[id] = u
	}
	return u
}

// of returns the counts of a user, nil where nothing was observed, and how many locks there would have been.
func (o *observations) of(user uint32) (*api.Observed, int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	u, ok := o.users[user]
	if !ok {
		return nil, 0
	}
	if !u.flows {
		return nil, u.locks
	}
	c := u.Observed
	c.WouldRefuse = maps.Clone(c.WouldRefuse)
	if c.Flows > 0 {
		c.OpaqueShare = float64(c.Opaque) / float64(c.Flows)
	}
	return &c, u.locks
}

func (o *observations) locked(user uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.user(user).locks++
}

// counters adds the observer's own account of itself.
func (o *observations) counters(to map[string]uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == 0 {
		return
	}
	to["observed_flows"], to["observed_lost_pieces"] = o.seen, o.loss.Kernel
	to["observed_lost_flows"], to["observed_lost_records"] = o.loss.Flows, o.loss.Records
}

func (o *observations) report(r control.ObservedReport) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.heard, o.seen, o.loss = time.Now(), r.Seen, r.Loss
}

// message counts a message that was observed, with what would have been done.
func (o *observations) message(user uint32, m *control.ObservedMessage, w *proxy.Would) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.user(user)
	c.flows = true
	c.Messages++
	for _, t := range m.To {
		c.Recipients++
		if t.Code >= 400 {
			c.RefusedRecipients++
		}
	}
	if m.Whole && m.Code/100 == 2 {
		c.Accepted++
	}
	if w.Reply == "" {
		return
	}
	if c.WouldRefuse == nil {
		c.WouldRefuse = map[string]int{}
	}
	c.WouldRefuse[w.Code]++
}

// flow counts a flow that has ended.
func (o *observations) flow(user uint32, f *control.Observed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.user(user)
	c.flows = true
	c.Flows++
	switch {
	case f.Opaque:
		c.Opaque++
	case f.Lossy || f.Truncated:
		c.Unread++
	}
}

// silence is how long an observer may say nothing; it speaks every five seconds.
const silence = 15 * time.Second

// observer is the state of the passive path.
func (d *daemon) observer() api.Observer {
	o := &d.observations
	o.mu.Lock()
	defer o.mu.Unlock()
	return api.Observer{Wanted: d.observesAny(), Present: time.Since(o.heard) < silence && !o.heard.IsZero(), Flows: o.seen,
		LostPieces: o.loss.Kernel, LostFlows: o.loss.Flows, LostRecords: o.loss.Records}
}

// observesAny tells whether there is a source or a destination whose flows are to be observed.
func (d *daemon) observesAny() bool { return d.rules.Load().any(control.Observe) }

// Observed tells what enforcement would have done with what was observed, by user.
func (b backend) Observed(context.Context) (*api.ObserveReport, error) {
	r := &api.ObserveReport{Observer: b.d.observer(), Since: b.d.started, Users: []api.ObservedUser{}}
	add := func(m *member) {
		if o, locks := b.d.observations.of(m.ID); o != nil {
			mode, _ := b.modeOf(m)
			r.Users = append(r.Users, api.ObservedUser{User: m.Name, Mode: mode, Observed: *o, WouldLocks: locks})
		}
	}
	for _, m := range b.d.roster.Load().all() {
		add(m)
	}
	all, err := b.d.store.Users()
	if err != nil {
		return nil, err
	}
	for _, u := range all {
		if u.Origin == store.Template {
			add(b.made(u))
		}
	}
	slices.SortFunc(r.Users, func(x, y api.ObservedUser) int { return strings.Compare(x.User, y.User) })
	return r, nil
}
