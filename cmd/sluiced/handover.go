package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/intercept/control"
)

// A hand-over, seen from the process that goes: another one dials the helper, accepts from the same socket and says so
// (control.Client.Serving); the helper tells this one to retire. It accepts and beats no more, leaves API, counts and
// the ends of locks to the other, lets its sessions go on for oldSessions, then drains as it would for a restart. What
// its sessions do meanwhile it tells the other in notes.

// oldSessions is how long sessions go on in a process that has handed over. Then they end between two messages with 421,
// and their clients come back to the new one.
const oldSessions = 5 * time.Minute

// follow does what is heard until the helper is lost (true) or ctx ends.
func (d *daemon) follow(ctx context.Context, c *control.Client) bool {
	for {
		select {
		case e := <-c.Events():
			d.heard(e)
		case <-c.Lost():
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// retire gives the connections to come to another process, which accepts already.
func (d *daemon) retire() {
	d.accepting.Lock()
	if d.stopped {
		d.accepting.Unlock()
		return
	}
	d.stopped = true
	acceptors, houses := d.acceptors, d.houses
	close(d.handedOver) // first: what is judged from now on is told, what was judged before is saved below
	d.accepting.Unlock()
	for _, a := range acceptors {
		a.stop()
		d.beatWith(a, nil)
	}
	for _, h := range houses {
		h.stop()
	}
	d.closeListeners(acceptors)
	d.closeHouses()
	d.tellPlaces()
	d.locks.Follow()
	if err := d.counts.give(); err != nil {
		d.log.Error("could not save what users have sent for the next process; its limits are too wide", "err", err)
	}
	if err := d.conduct.release(); err != nil {
		d.log.Error("could not save what speaks against senders for the next process; they begin anew", "err", err)
	}
	if err := d.choices.release(); err != nil {
		d.log.Error("could not save from which addresses mail left for the next process; some may leave from others", "err", err)
	}
	if err := errors.Join(d.school.saveLessons(), d.school.release()); err != nil {
		d.log.Error("could not save what the content filter knows for the next process", "err", err)
	}
	if err := d.campaigns.release(); err != nil {
		d.log.Error("could not save what is known of campaigns for the next process", "err", err)
	}
	if err := d.patience.release(); err != nil {
		d.log.Error("could not save what was put off for the next process; it waits once more", "err", err)
	}
	if err := d.habits.release(); err != nil {
		d.log.Error("could not save what senders usually do for the next process", "err", err)
	}
	if err := d.senders.release(); err != nil {
		d.log.Error("could not save which senders were found in users' mail for the next process", "err", err)
	}
	d.log.Info("handed over: another process accepts", "sessions that go on", d.proxy.Sessions(), "at most", oldSessions)
}

// retired reports whether another process has taken over.
func (d *daemon) retired() bool {
	select {
	case <-d.handedOver:
		return true
	default:
		return false
	}
}

// finish waits for the sessions to end by themselves.
func (d *daemon) finish(ctx context.Context) {
	d.accepting.Lock()
	acceptors := slices.Clone(d.acceptors)
	for _, h := range d.houses {
		acceptors = append(acceptors, h.acceptor)
	}
	d.accepting.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, a := range acceptors {
			<-a.done
			a.sessions.Wait()
		}
	}()
	patience := time.NewTimer(oldSessions)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
	case <-ctx.Done():
	}
}

// listenAPI opens the API's socket. Where another process serves it still it returns nil: that one goes on with it until
// this one accepts.
func (d *daemon) listenAPI() (net.Listener, error) {
	cfg := d.cfg.Load()
	if api.Served(cfg.API.Socket) {
		d.log.Info("another process of sluiced runs; this one takes over from it")
		d.second.Store(true)
		return nil, nil
	}
	return api.Listen(cfg.API.Socket, cfg.API.Group)
}

// serveAPI serves the API on l, or, where that is nil, once connections are accepted.
func (d *daemon) serveAPI(ctx context.Context, l net.Listener) (err error) {
	if l == nil {
		select {
		case <-d.serving:
		case <-ctx.Done():
			return nil
		}
		cfg := d.cfg.Load()
		if l, err = api.Listen(cfg.API.Socket, cfg.API.Group); err != nil {
			return err
		}
		d.change.Lock()
		err := d.loadSettings() // what the older process was told while this one started
		d.change.Unlock()
		if err != nil {
			d.log.Error("could not read anew what was said of users at run time; the next reload or start does", "err", err)
		}
	}
	close(d.apiOpen)
	if addr := d.cfg.Load().API.Listen; addr != "" {
		tl, err := api.ListenTCP(ctx, addr)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		go func() {
			if err := d.api.Serve(tl); err != nil {
				d.log.Error("the API ended for those with tokens", "address", addr, "err", err)
			}
		}()
	}
	return d.api.Serve(l)
}

// takeOver tells older processes to retire, once their API's clients find this one.
func (d *daemon) takeOver(ctx context.Context, c *control.Client) error {
	ctx, cancel := context.WithTimeout(ctx, helperPatience)
	defer cancel()
	select {
	case <-d.apiOpen:
	case <-ctx.Done():
		return errors.New("this process has no API; it leaves the older ones alone")
	}
	if err := c.Serving(ctx); err != nil {
		return fmt.Errorf("could not have older processes of sluiced retire: %w", err)
	}
	return nil
}

// succeed starts the program anew, as it is on disk now, to take over from this process. Where it fails to start, this
// process goes on as if nothing had been asked.
func (d *daemon) succeed() {
	if d.retired() {
		d.log.Warn("asked for a successor, but this process has handed over already; ask the other one")
		return
	}
	if !d.succeeding.CompareAndSwap(false, true) {
		d.log.Warn("asked for a successor while one is starting")
		return
	}
	path, err := os.Executable()
	if err != nil {
		d.succeeding.Store(false)
		d.log.Error("could not start a successor", "err", err)
		return
	}
	cmd := exec.Command(path, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	for _, v := range os.Environ() {
		// What systemd wrote for this process id.
		if name, _, _ := strings.Cut(v, "="); name != "WATCHDOG_PID" && !strings.HasPrefix(name, "LISTEN_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	if err := cmd.Start(); err != nil {
		d.succeeding.Store(false)
		d.log.Error("could not start a successor", "program", path, "err", err)
		return
	}
	d.log.Info("started a successor", "program", path, "pid", cmd.Process.Pid)
	go func() {
		err := cmd.Wait()
		d.succeeding.Store(false)
		if !d.retired() {
			d.log.Error("the successor ended before it took over; this process goes on", "pid", cmd.Process.Pid, "err", fmt.Sprint(err))
		}
	}()
}

func (d *daemon) closeListeners(acceptors []*acceptor) {
	for _, a := range acceptors {
		if err := a.l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			d.log.Warn("could not close a listener", "err", err)
		}
	}
}
