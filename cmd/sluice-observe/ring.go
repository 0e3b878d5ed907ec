package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"sluice/bpf"
	"sluice/intercept/attach"
	"sluice/intercept/observe"
)

// ring is the source of the BPF paths: programs behind those of sluice-intercept copy to a ring buffer.
type ring struct {
	set    *settings
	log    *slog.Logger
	kernel *attach.Kernel
	obs    *bpf.Observer
	clsact bool
	at     map[int]bpf.ObserveLink
	failed map[int]string // why interfaces are not attached, once told
}

// openRing loads the programs and attaches them wherever customers are.
func openRing(set *settings, limit int, log *slog.Logger) (_ *ring, err error) {
	r := &ring{set: set, log: log, at: make(map[int]bpf.ObserveLink), failed: make(map[int]string)}
	if r.kernel, err = attach.Open(); err != nil {
		return nil, err
	}
	if err := r.kernel.RemoveObservers(); err != nil { // of one that was killed
		return nil, errors.Join(err, r.Close())
	}
	if r.obs, err = bpf.OpenObserver(set.pins, nil, bpf.ObserveOptions{Limit: uint32(limit)}); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.clsact = set.path == attach.Clsact || set.path == "auto" && r.kernel.TryTCX() != nil
	if err := r.follow(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	for index, why := range r.failed {
		return nil, errors.Join(fmt.Errorf("could not observe interface %d: %s", index, why), r.Close())
	}
	return r, nil
}

// follow attaches to what has appeared and lets go of what has vanished.
func (r *ring) follow() error {
	links, err := r.set.links(r.kernel)
	if err != nil {
		return err
	}
	wanted := make(map[int]bpf.ObserveLink, len(links))
	for _, l := range links {
		wanted[l.Index] = l
	}
	for index, l := range r.at {
		if wanted[index] != l {
			if err := r.detach(index); err != nil {
				r.log.Info("an interface is not let go of", "index", index, "err", err)
			}
			delete(r.at, index)
			r.log.Info("an interface is observed no more", "index", index)
		}
	}
	for index, l := range wanted {
		if _, has := r.at[index]; has {
			continue
		}
		if err := r.attach(l); err != nil {
			if r.failed[index] != err.Error() {
				r.failed[index] = err.Error()
				r.log.Warn("an interface is not observed", "index", index, "err", err)
			}
			continue
		}
		delete(r.failed, index)
		r.at[index] = l
	}
	return nil
}

func (r *ring) attach(l bpf.ObserveLink) error {
	if !r.clsact {
		return r.obs.Attach(l)
	}
	in, out := r.obs.Programs(l.Raw)
	return r.kernel.PutObserver(l.Index, in, out)
}

func (r *ring) detach(index int) error {
	if !r.clsact {
		return r.obs.Detach(index)
	}
	return r.kernel.RemoveObserver(index)
}

func (r *ring) run(ctx context.Context, to *feed) error {
	changes, err := attach.Watch(ctx, attach.ManyLinks)
	if err != nil {
		return err
	}
	next, again := time.Now(), time.Time{}
	for ctx.Err() == nil {
		select {
		case _, open := <-changes.C:
			if !open && ctx.Err() == nil { // the kernel dropped messages
				return errChanged
			}
			changes.Take()
			again = time.Now()
		default:
		}
		if !again.IsZero() {
			again = time.Time{}
			if err := r.follow(); err != nil {
				r.log.Warn("the interfaces could not be looked at", "err", err)
			}
		}
		if now := time.Now(); !now.Before(next) {
			next = now.Add(every)
			if r.obs.Superseded() {
				return errChanged
			}
			c, err := r.obs.Counts()
			if err != nil {
				return err
			}
			if err := to.lost(c.Lost + c.Unread); err != nil {
				return err
			}
			if len(r.failed) > 0 {
				again = now
			}
		}
		if err := r.read(time.Now().Add(every/10), to); err != nil {
			return err
		}
	}
	return nil
}

// read hands over records until none is left, or waits for one until a moment.
func (r *ring) read(until time.Time, to *feed) error {
	for {
		b, err := r.obs.ReadRaw(until)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return to.flush()
		case err != nil:
			return fmt.Errorf("could not read the ring buffer: %w", err)
		}
		if err := to.put(observe.Piece, b); err != nil {
			return err
		}
		if !r.obs.Waiting() {
			return to.flush()
		}
		if !time.Now().Before(until) {
			return nil
		}
	}
}

// Close takes the programs away; mail goes on.
func (r *ring) Close() error {
	var errs []error
	if r.clsact {
		errs = append(errs, r.kernel.RemoveObservers())
	}
	if r.obs != nil {
		errs = append(errs, r.obs.Close())
	}
	r.kernel.Close()
	return errors.Join(errs...)
}
