package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"time"

	"sluice/intercept/control"
	"sluice/intercept/flow"
)

// keepHelper keeps the connection to the helper, and accepts on the sockets that it hands over.
func (d *daemon) keepHelper(ctx context.Context) {
	fromSystemd := kept(listenerName)
	for {
		c, w, err := d.link.dial(ctx, func() []control.Listener { return d.copies(fromSystemd) })
		if err != nil {
			return // ctx has ended
		}
		for _, f := range fromSystemd {
			_ = f.Close() // the helper has its copy
		}
		fromSystemd = nil
		d.adopt(c, w)
		if d.accepts() {
			if err := d.takeOver(ctx, c); err == nil {
				d.catchUp(c)
			} else if ctx.Err() == nil {
				d.link.note(err)
			}
		}
		if !d.follow(ctx, c) {
			return
		}
		d.link.client.Store(nil)
		d.log.Warn("lost sluice-intercept; accepting goes on")
	}
}

// listenerName is the one by which helper and systemd know the listening socket.
const listenerName = "smtp"

// copies are the listening sockets to be given back to a new helper.
func (d *daemon) copies(more []*os.File) []control.Listener {
	d.accepting.Lock()
	defer d.accepting.Unlock()
	var ls []control.Listener
	for _, a := range d.acceptors {
		if f, err := a.l.File(); err == nil {
			ls = append(ls, control.Listener{Name: listenerName, File: f})
		}
	}
	for _, h := range d.houses {
		if f, err := h.l.File(); err == nil {
			ls = append(ls, control.Listener{Name: h.name, File: f})
		}
	}
	for _, f := range more {
		if c, err := copyFile(f); err == nil {
			ls = append(ls, control.Listener{Name: listenerName, File: c})
		}
	}
	return ls
}

// handBackTime is how long the planned end waits for a helper that is being restarted at the same time.
const handBackTime = 3 * time.Second

// handBack gives the listening sockets to a helper that came while nobody was connected to it. Without that the last
// copies would close with this process, and the kernel would reset the connections that wait in them.
func (d *daemon) handBack() {
	if d.link == nil || !d.link.met.Load() || d.link.connected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handBackTime)
	defer cancel()
	c, w, err := d.link.dial(ctx, func() []control.Listener { return d.copies(nil) })
	if err != nil {
		d.log.Warn("the listening socket could not be handed back; connections that wait in it are reset", "err", err)
		return
	}
	for _, l := range w.Listeners {
		_ = l.File.Close() // the helper has its own
	}
	_ = c.Close() // so it has
}

// adopt tells a helper what is so, then accepts what it hands over.
func (d *daemon) adopt(c *control.Client, w *control.Welcome) {
	d.change.Lock()
	defer d.change.Unlock()
	d.log.Info("sluice-intercept is there", "version", w.Helper, "path", w.Path, "ports", w.Ports)
	d.locals.helper(w.Local)
	d.link.client.Store(c)
	if err := d.locks.Refresh(); err != nil { // what another process did before this one could hear of it
		d.log.Error("could not look for locks of other processes", "err", err)
	}
	if d.retired() {
		d.unneeded(w)
		return
	}
	// Locks are in the kernel before the first connection is accepted. Those that come while the set is on its way are
	// put there once more afterwards.
	d.tellHelper(c)
	for _, l := range w.Listeners {
		if l.Name == listenerName {
			if err := d.take(l.File, w); err != nil {
				d.link.note(err)
			}
		} else if strings.HasPrefix(l.Name, control.HousePrefix) {
			if err := d.takeHouse(l.Name, l.File); err != nil {
				d.link.note(err)
			}
		}
		_ = l.File.Close()
	}
}

// catchUp learns what an older process changed between this one's start and its own retirement. Its last change is in the
// store by now, and it makes no more.
func (d *daemon) catchUp(c *control.Client) {
	if !d.second.Load() {
		return
	}
	d.change.Lock()
	defer d.change.Unlock()
	cfg := d.cfg.Load().Config
	r, settings, err := newRoster(d.store, cfg)
	if err == nil {
		var rs *rules
		if rs, err = newRules(cfg, d.store); err == nil {
			d.roster.Store(r)
			d.sources.Replace(r.table)
			d.policy.Configure(settings)
			d.rules.Store(rs)
			d.rulesChanged()
			d.tellHelper(c)
		}
	}
	if err != nil {
		d.log.Error("could not look for what another process changed last; restart sluiced if modes or users were changed in this second", "err", err)
	}
}

// unneeded closes what a welcome brings to a process that accepts no more.
func (d *daemon) unneeded(w *control.Welcome) {
	for _, l := range w.Listeners {
		_ = l.File.Close() // a copy
	}
	if w.Heartbeat != nil {
		_ = w.Heartbeat.Close() // nothing was written
	}
}

func (d *daemon) accepts() bool {
	d.accepting.Lock()
	defer d.accepting.Unlock()
	return len(d.acceptors) > 0 && !d.stopped
}

// take accepts on f, or goes on with the acceptor that has the same socket already.
func (d *daemon) take(f *os.File, w *control.Welcome) error {
	d.accepting.Lock()
	for _, a := range d.acceptors {
		own, err := a.l.File()
		if err != nil {
			continue
		}
		same := control.SameSocket(own, f)
		_ = own.Close()
		if same {
			if w.Heartbeat != nil {
				d.beatWith(a, w.Heartbeat)
			}
			d.accepting.Unlock()
			return nil
		}
	}
	d.accepting.Unlock()
	l, err := flow.NewListener(f, flow.Options{Ports: w.Ports, Local: d.isLocal, Attribution: d.sources, IDs: d.ids})
	if err != nil {
		return err
	}
	if err := d.systemd.keep(listenerName, f); err != nil {
		d.log.Warn("systemd does not keep the listening socket", "err", err)
	}
	d.accept(l, w.Heartbeat)
	return nil
}

// beatWith changes the heartbeat of an acceptor; nil takes it away.
func (d *daemon) beatWith(a *acceptor, h *control.Heartbeat) {
	if old := a.beat.Swap(h); old != nil {
		_ = old.Close() // unmaps it; a beat under way is waited for
	}
}

func (d *daemon) isLocal(a netip.Addr) bool { return !d.o.local && d.locals.has(a) }

// accept starts to take connections from l. Acceptors of older sockets go on without beating: what waits in their queue
// was promised to be served.
func (d *daemon) accept(l *flow.Listener, h *control.Heartbeat) {
	a := &acceptor{l: l, log: d.log, serve: d.serve, full: d.full, alive: d.watchdog(), done: make(chan struct{})}
	d.accepting.Lock()
	defer d.accepting.Unlock()
	if d.stopped {
		_ = l.Close()
		return
	}
	for _, old := range d.acceptors {
		d.beatWith(old, nil)
	}
	a.beat.Store(h)
	d.acceptors = append(d.acceptors, a)
	go a.run()
	if len(d.acceptors) == 1 {
		close(d.serving)
	}
	if err := errors.Join(d.systemd.ready(), d.systemd.status("accepting")); err != nil {
		d.log.Warn("systemd was not told", "err", err)
	}
	d.log.Info("ready: accepting")
	if d.o.ready != nil && len(d.acceptors) == 1 {
		d.o.ready()
	}
}
