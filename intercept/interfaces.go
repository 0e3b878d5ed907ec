package intercept

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"sluice/intercept/attach"
	"sluice/intercept/ruleset"
)

const (
	// reconcileEvery: others flush rules and filters; nothing of ours stays away longer.
	reconcileEvery = 5 * time.Second
	expireEvery    = 5 * time.Second
	// With thousands of interfaces a look at everything takes a while: it takes one part in so many of the time at most.
	reconcileShare = 50
	addressesShare = 5
)

// pace lets work that is asked for again and again take a bounded share of the time.
type pace struct{ next time.Time }

// did says that the work was done, from start until now.
func (p *pace) did(start time.Time, least time.Duration, share int) {
	p.next = time.Now().Add(max(least, time.Duration(share)*time.Since(start)))
}

// keep follows the interfaces and addresses as they come and go, and looks at everything from time to time.
func (e *Engine) keep(ctx context.Context, w *attach.Watcher, failed <-chan error) error {
	tick, whole, addresses := time.NewTicker(expireEvery), time.NewTimer(reconcileEvery), time.NewTimer(0)
	defer tick.Stop()
	defer whole.Stop()
	defer addresses.Stop()
	<-addresses.C
	var p pace // of addresses
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case <-tick.C:
			e.expire()
		case <-whole.C:
			whole.Reset(e.look(ctx))
		case <-addresses.C:
			start := time.Now()
			e.complain(ctx, e.reconcileRouting())
			p.did(start, 0, addressesShare)
		case _, open := <-w.C:
			if !open { // the kernel dropped messages
				var err error
				if w, err = attach.Watch(ctx, attach.ManyLinks); err != nil {
					return err
				}
				whole.Reset(e.look(ctx))
				continue
			}
			c := w.Take()
			if d, ok := e.data.(doored); ok && slices.Contains(c.Links, d.Door().Index) {
				e.complain(ctx, e.keepQuarters())
			}
			e.complain(ctx, e.attachSome(c.Links))
			if c.Addresses {
				addresses.Reset(max(0, time.Until(p.next)))
			}
		}
	}
}

// expire forgets what has ended by itself.
func (e *Engine) expire() {
	if err := e.locks.expire(e.data, time.Now()); err != nil {
		e.log.Error("expired locks stay in the kernel's table, where they have no effect", "error", err)
	}
	if err := e.endModes(time.Now()); err != nil {
		e.log.Error("modes whose time is over stay in force", "error", err)
	}
	if err := e.endExemptions(time.Now()); err != nil {
		e.log.Error("exemptions whose time is over stay on disk, where they have no effect", "error", err)
	}
	if err := e.bypasses.expire(e.data, time.Now()); err != nil {
		e.log.Error("expired bypasses stay on disk, where they have no effect", "error", err)
	}
}

// look reconciles everything and tells how long to wait before the next time.
func (e *Engine) look(ctx context.Context) time.Duration {
	var p pace
	start := time.Now()
	e.complain(ctx, e.Reconcile())
	p.did(start, reconcileEvery, reconcileShare)
	return time.Until(p.next)
}

func (e *Engine) complain(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		e.log.Error("kernel state is not as desired", "error", err)
	}
}

// attach brings the programs to where they should stand.
func (e *Engine) attach() error {
	e.seating.Lock()
	defer e.seating.Unlock()
	links, err := e.kernel.Links()
	if err != nil {
		return err
	}
	changed := e.names.renewAll(links)
	seats := e.planSeats(links)
	if err := e.openPorts(seats); err != nil {
		return err
	}
	ifaces, err := e.seats.Sync(seats)
	err = errors.Join(err, e.rebind(changed))
	now := make(map[int]attach.Interface, len(ifaces))
	for _, i := range ifaces {
		now[i.Link.Index] = i
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.logInterfaces(e.ifaces, now)
	err = errors.Join(err, e.closePorts(e.ifaces, now))
	e.ifaces = now
	return err
}

// attachSome is attach for the interfaces that the indexes name, and those only, where the data path can do so.
func (e *Engine) attachSome(indexes []int) error {
	u, ok := e.seats.(updater)
	if !ok {
		return e.attach()
	}
	e.seating.Lock()
	defer e.seating.Unlock()
	links, err := e.kernel.LinksOf(indexes)
	if err != nil {
		return err
	}
	changed := e.names.renew(indexes, links)
	seats := e.planSeats(links)
	if err := e.openPorts(seats); err != nil {
		return err
	}
	ifaces, err := u.Update(indexes, seats)
	err = errors.Join(err, e.rebind(changed))
	was, now := make(map[int]attach.Interface), make(map[int]attach.Interface)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, index := range indexes {
		if i, ok := e.ifaces[index]; ok {
			was[index] = i
			delete(e.ifaces, index)
		}
	}
	for _, i := range ifaces {
		now[i.Link.Index], e.ifaces[i.Link.Index] = i, i
	}
	e.logInterfaces(was, now)
	return errors.Join(err, e.closePorts(was, now))
}

func (e *Engine) planSeats(links []ruleset.Link) []ruleset.Seat {
	e.mu.RLock()
	customers, uplinks := e.cfg.Customers, e.cfg.Uplinks
	e.mu.RUnlock()
	return ruleset.Seats(links, customers, uplinks)
}

// logInterfaces tells what changed at the interfaces.
func (e *Engine) logInterfaces(was, now map[int]attach.Interface) {
	for _, index := range slices.Sorted(maps.Keys(now)) {
		i := now[index]
		switch old, known := was[index]; {
		case known && old == i:
		case i.Path == "":
			e.log.Error("interface is not covered", "interface", i.Link.Name, "role", i.Role, "problem", i.Problem)
		default:
			e.log.Info("interface attached", "interface", i.Link.Name, "role", i.Role, "path", i.Path, "note", i.Problem)
		}
	}
	for _, index := range slices.Sorted(maps.Keys(was)) {
		if _, still := now[index]; !still {
			e.log.Info("interface let go", "interface", was[index].Link.Name)
		}
	}
}
