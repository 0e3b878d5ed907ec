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
	at     map[int]place
	failed map[int]string // why interfaces are not attached, once told
}

// place is an interface as it is attached to.
type place struct {
	bpf.ObserveLink
	clsact bool
}

// openRing loads the programs and attaches them wherever customers are.
func openRing(set *settings, limit int, log *slog.Logger) (_ *ring, err error) {
	r := &ring{set: set, log: log, at: make(map[int]place), failed: make(map[int]string)}
	if r.kernel, err = attach.Open(); err != nil {
		return nil, err
	}
	if err := r.kernel.RemoveObservers(); err != nil { // of one that was killed
		return nil, errors.Join(err, r.Close())
	}
	if r.obs, err = bpf.OpenObserver(set.pins, nil, bpf.ObserveOptions{Limit: uint32(limit)}); err != nil {
		return nil, errors.Join(err, r.Close())
	}
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
	wanted := make(map[int]place, len(links))
	for _, l := range links {
		wanted[l.Index] = place{l, r.kernel.JudgesByClsact(l.Index)}
	}
	for index, at := range r.at {
		if wanted[index] == at {
			continue
		}
		delete(r.at, index)
		if err := r.detach(at); err != nil && wanted[index] != (place{}) {
			return err
		}
		if wanted[index] == (place{}) {
			r.log.Info("an interface is observed no more", "index", index)
		}
	}
	for index, p := range wanted {
		if _, has := r.at[index]; has {
			continue
		}
		if err := r.attach(p); err != nil {
			if r.failed[index] != err.Error() {
				r.failed[index] = err.Error()
				r.log.Warn("an interface is not observed", "index", index, "err", err)
			}
			continue
		}
		delete(r.failed, index)
		r.at[index] = p
	}
	return nil
}

func (r *ring) attach(p place) error {
	if !p.clsact {
		return r.obs.Attach(p.ObserveLink)
	}
	in, out := r.obs.Programs(p.Raw)
	return r.kernel.PutObserver(p.Index, in, out)
}

func (r *ring) detach(p place) error {
	if !p.clsact {
		return r.obs.Detach(p.Index)
	}
	return r.kernel.RemoveObserver(p.Index)
}

const (
	// settle is how long sluice-intercept may take to attach to an interface that appears, by whichever hook.
	settle = 2 * time.Second
	// anew is how often all is looked at without a reason.
	anew = 30 * time.Second
)

func (r *ring) run(ctx context.Context, to *feed) error {
	changes, err := attach.Watch(ctx, attach.ManyLinks)
	if err != nil {
		return err
	}
	next, again := time.Now(), time.Now().Add(settle)
	for ctx.Err() == nil {
		select {
		case _, open := <-changes.C:
			if !open && ctx.Err() == nil { // the kernel dropped messages
				return errChanged
			}
			changes.Take()
			again = time.Now().Add(settle)
			if err := r.follow(); err != nil {
				r.log.Warn("the interfaces could not be looked at", "err", err)
			}
		default:
		}
		if now := time.Now(); !now.Before(again) {
			again = now.Add(anew)
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
	errs = append(errs, r.kernel.RemoveObservers())
	if r.obs != nil {
		errs = append(errs, r.obs.Close())
	}
	r.kernel.Close()
	return errors.Join(errs...)
}
