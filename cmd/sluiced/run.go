package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"sluice/cmd/internal/api"
	"sluice/intercept/control"
	"sluice/intercept/flow"
)

// Run serves until ctx ends, then lets transactions finish.
func (d *daemon) Run(ctx context.Context) error {
	cfg := d.cfg.Load()
	l, err := d.listenAPI()
	if err != nil {
		return errors.Join(err, d.closeFiles())
	}
	d.api = api.NewServer(d.backend(), d.log)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	apiDone := make(chan error, 1)
	go func() {
		err := d.serveAPI(ctx, l)
		if err != nil {
			cancel(err)
		}
		apiDone <- err
	}()
	d.log.Info("started", "version", version, "gateway", cfg.Gateway.Name, "config", cfg.File, "users", len(d.roster.Load().all()), "locks", len(d.locks.List()))

	var background sync.WaitGroup
	if d.o.socket != nil {
		if err := d.take(d.o.socket, &control.Welcome{Ports: d.o.ports}); err != nil {
			d.log.Error("could not accept", "err", err)
		}
	} else {
		background.Go(func() { d.keepHelper(ctx) })
	}
	background.Go(func() { d.housekeeping(ctx) })
	background.Go(func() { d.enlist(ctx) })
	background.Go(func() { d.keepRules(ctx) })
	background.Go(func() { d.keepAdmin(ctx) })
	background.Go(func() { d.keepOnward(ctx) })
	background.Go(func() { d.keepIdentities(ctx) })
	background.Go(func() { d.keepKept(ctx, &d.counts.keptFile, "limits begin anew after a restart") })
	background.Go(func() {
		d.keepKept(ctx, &d.school.keptFile, "the learned content filter has to prove itself anew after a restart")
	})
	background.Go(func() { d.keepLessons(ctx) })
	background.Go(func() { d.keepReports(ctx) })
	background.Go(func() { d.keepOpinions(ctx) })
	background.Go(func() { d.keepQuarantine(ctx) })
	background.Go(func() { d.judgeAgain(ctx) })
	background.Go(func() {
		d.keepKept(ctx, &d.campaigns.keptFile, "what was held as a campaign passes after a restart")
	})
	background.Go(func() {
		d.keepKept(ctx, &d.patience.keptFile, "what was put off to be judged again waits once more after a restart")
	})
	background.Go(func() { d.keepKept(ctx, &d.habits.keptFile, "what senders usually do is learnt anew after a restart") })
	background.Go(func() {
		d.keepKept(ctx, &d.senders.keptFile, "senders that were found in users' mail are found anew after a restart")
	})
	background.Go(func() { d.keepKept(ctx, d.conduct, "who has come near a lock begins anew after a restart") })
	background.Go(func() { d.keepKept(ctx, &d.choices.keptFile, "some mail leaves from another address after a restart") })
	background.Go(func() { d.keepTLS(ctx) })
	background.Go(func() { d.keepACME(ctx) })
	background.Go(func() { d.keepDKIM(ctx) })
	background.Go(func() { d.keepPools(ctx) })
	background.Go(func() { d.keepUsing(ctx) })
	background.Go(func() { keepMemory(ctx) })
	background.Go(func() { d.keepPublic(ctx) })
	background.Go(func() { d.countVerdicts(ctx) })
	background.Go(func() { d.notices.keep(ctx) })
	background.Go(func() { d.takeObserved(ctx) })
	if !d.o.undelivered {
		d.mail.start()
		d.queueing.Store(true)
		if err := d.mail.matchLocks(); err != nil {
			d.log.Error("could not hold what locked senders have in the queue", "err", err)
		}
	}
	background.Go(func() { d.mail.keep(ctx) })
	var apiClosed error
	select {
	case <-ctx.Done():
	case <-d.handedOver:
		apiClosed = d.api.Close()
		d.finish(ctx)
	}
	d.drain()
	d.mail.stop(context.Background(), d.cfg.Load().SMTP.Drain.D())
	cancel(nil)
	background.Wait()
	return errors.Join(apiClosed, d.api.Close(), <-apiDone, d.closeFiles())
}

// housekeeping follows changes of the host's addresses.
func (d *daemon) housekeeping(ctx context.Context) {
	t := time.NewTicker(localsAge)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			d.locals.refresh()
		case <-ctx.Done():
			return
		}
	}
}

// watchdog returns what tells systemd, often enough, that the accept loop runs.
func (d *daemon) watchdog() func() {
	if d.systemd.watchdog == 0 {
		return nil
	}
	var last time.Time
	return func() {
		if time.Since(last) >= d.systemd.watchdog/2 {
			last = time.Now()
			_ = d.systemd.alive() // systemd says itself what it misses
		}
	}
}

// serve leads one session, and calls done when it has ended.
func (d *daemon) serve(c *flow.Conn, done func()) {
	f := c.Attributed()
	if d.o.target != nil {
		other := *f
		other.Target, f = d.o.target(f.Target), &other
	}
	if d.shadowed(f) {
		defer done()
		d.proxy.ServeShadow(context.Background(), c, f)
		return
	}
	d.proxy.ServeConn(context.Background(), c, f, done)
}

func (d *daemon) full() bool { return d.proxy.Sessions() >= d.cfg.Load().SMTP.Sessions }

// drain is the planned end: connections wait in the kernel from now on, transactions finish, other sessions hear 421.
func (d *daemon) drain() {
	cfg := d.cfg.Load()
	acceptors := d.announce(cfg)
	ctx, cancel := context.WithTimeout(context.Background(), cfg.SMTP.Drain.D())
	defer cancel()
	if err := d.proxy.Shutdown(ctx); err != nil {
		d.log.Warn("some transactions did not finish in time; their clients will try again", "err", err)
	}
	d.handBack()
	d.closeListeners(acceptors)
	d.closeHouses()
}

// announce stops accepting and has the kernel let connections wait. After a hand-over there is nothing of the kind to do.
func (d *daemon) announce(cfg *loaded) []*acceptor {
	d.accepting.Lock()
	defer d.accepting.Unlock()
	if d.retired() {
		d.log.Info("ending after the hand-over", "sessions", d.proxy.Sessions())
		return nil
	}
	d.stopped = true
	_ = d.systemd.stopping() // it sent the signal: it knows
	d.log.Info("stopping: new connections wait in the kernel", "sessions", d.proxy.Sessions(), "at most", cfg.SMTP.Drain)
	for _, h := range d.houses {
		h.stop()
	}
	for _, a := range d.acceptors {
		a.stop()
		if h := a.beat.Load(); h != nil {
			h.AnnounceRestart(control.MaxRestart)
		}
	}
	return d.acceptors
}
