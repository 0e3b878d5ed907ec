package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sluice/cmd/internal/store"
	"sluice/intercept/control"
)

// errRetired is told to whoever asks a process that has handed over.
var errRetired = errors.New("this process has handed over to another one; ask again")

// sourceAt is what the helper is to hear about exactly p: its user, its mode, or both. False where there is neither.
func (d *daemon) sourceAt(p netip.Prefix) (control.Source, bool) {
	mode, until := d.rules.Load().at(p)
	return d.sourceWith(p, mode, until)
}

// sourceWith is sourceAt with another mode.
func (d *daemon) sourceWith(p netip.Prefix, mode control.Mode, until time.Time) (s control.Source, ok bool) {
	s = control.Source{Prefix: p, Mode: mode, Until: until}
	r := d.roster.Load()
	if u, found := r.table.Exact(p); found {
		s.User = u.ID
		if m := r.user(u.ID); m != nil {
			ok = s.Fail.UnmarshalText([]byte(m.fail)) == nil
		}
	} else if id, found := d.store.Made(p); found {
		s.User = id
		ok = s.Fail.UnmarshalText([]byte(r.fail)) == nil
	}
	if p.Bits() == 0 && s.Fail == 0 && r.answered {
		ok = s.Fail.UnmarshalText([]byte(r.fail)) == nil
	}
	return s, ok || mode != 0
}

// delta is what the helper is told to change.
type delta struct {
	put  []control.Source
	gone []netip.Prefix
}

func (l *delta) add(p netip.Prefix, s control.Source, there bool) {
	if there {
		l.put = append(l.put, s)
	} else {
		l.gone = append(l.gone, p)
	}
}

// tellDelta tells the helper one change, which it does as a whole or not at all.
func (d *daemon) tellDelta(l *delta) error {
	if d.o.socket != nil { // there is no helper
		return nil
	}
	return d.link.call(func(ctx context.Context, c *control.Client) error { return c.ChangeUsers(ctx, l.put, l.gone) })
}

// changeModes makes and removes rules for sources: in the kernel, in the store and here, or nowhere.
func (d *daemon) changeModes(put []store.Rule, gone []netip.Prefix, act store.Act) error {
	d.change.Lock()
	defer d.change.Unlock()
	if d.retired() {
		return errRetired
	}
	r := d.rules.Load()
	var to, back delta
	for i := range put {
		s := sourceOf(&put[i])
		if err := r.ceiling.Check(s); err != nil {
			return err
		}
		s, ok := d.sourceWith(s.Prefix, s.Mode, s.Until)
		to.add(s.Prefix, s, ok)
	}
	for _, p := range gone {
		s, ok := d.sourceWith(p, r.inFile(p), time.Time{})
		to.add(p, s, ok)
	}
	if err := d.tellDelta(&to); err != nil {
		return err
	}
	err := d.store.ChangeModes(put, gone, act)
	if err == nil {
		r.put(put, gone)
		d.rulesChanged()
		return nil
	}
	for _, m := range put {
		s, ok := d.sourceAt(m.Prefix)
		back.add(m.Prefix, s, ok)
	}
	for _, p := range gone {
		s, ok := d.sourceAt(p)
		back.add(p, s, ok)
	}
	if failed := d.tellDelta(&back); failed != nil {
		d.retell()
		return errors.Join(err, fmt.Errorf("the kernel has the change all the same until it can be told to take it back: %w", failed))
	}
	return err
}

// changeExemptions replaces the rules for destinations; save stores the one change.
func (d *daemon) changeExemptions(change func([]store.Rule) ([]store.Rule, error), save func() error) error {
	d.change.Lock()
	defer d.change.Unlock()
	if d.retired() {
		return errRetired
	}
	r, now := d.rules.Load(), time.Now()
	was := r.destined
	next, err := change(slices.Clone(was))
	if err != nil {
		return err
	}
	if len(next) > control.MaxExemptions {
		return fmt.Errorf("there are %d exemptions already; remove some", len(was))
	}
	if err := d.tellExemptions(r.allowed(next, now)); err != nil {
		return err
	}
	if err := save(); err != nil {
		return errors.Join(err, d.tellExemptions(r.allowed(was, now)))
	}
	r.exemptAnew(next, now)
	d.rulesChanged()
	return nil
}

func (d *daemon) tellExemptions(list []control.Exemption) error {
	if d.o.socket != nil { // there is no helper
		return nil
	}
	return d.link.call(func(ctx context.Context, c *control.Client) error { return c.SetExemptions(ctx, list) })
}

// rulesChanged has keepRules look at the rules' ends again.
func (d *daemon) rulesChanged() {
	select {
	case d.ruled <- struct{}{}:
	default: // it looks soon
	}
}

// retell has the helper told everything once more, soon.
func (d *daemon) retell() { d.untold.Store(true); d.rulesChanged() }

// retellEvery is how soon the helper is told again what it did not take.
const retellEvery = 2 * time.Second

// keepRules ends rules at their time, and tells the helper again what it did not take: it may have read an older
// configuration then.
func (d *daemon) keepRules(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-d.ruled:
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if d.retired() {
			return
		}
		d.endRules(time.Now())
		wait := time.Hour
		if end := d.rules.Load().nextEnd(); !end.IsZero() {
			wait = min(wait, time.Until(end)+time.Millisecond)
		}
		if d.untold.Load() {
			wait = min(wait, retellEvery)
			d.tellAgain()
		}
		t.Reset(max(wait, 10*time.Millisecond))
	}
}

func (d *daemon) tellAgain() {
	d.change.Lock()
	defer d.change.Unlock()
	if c := d.link.client.Load(); c != nil && !d.retired() {
		d.tellHelper(c)
	}
}

// endRules takes out what is over. The helper does the same by itself; it is told all the same, since its clock may
// differ.
func (d *daemon) endRules(now time.Time) {
	var gone []netip.Prefix
	r := d.rules.Load()
	for _, m := range r.listed() {
		if m.Over(now) {
			gone = append(gone, m.Prefix)
		}
	}
	if len(gone) > 0 {
		act := store.Act{At: now, Who: "sluiced", What: "mode ended", Subject: fmt.Sprint(gone), Detail: "its time is over"}
		d.log.Info("modes are over", "prefixes", gone)
		if err := d.changeModes(nil, gone, act); err != nil {
			d.log.Error("modes whose time is over could not be removed", "prefixes", gone, "err", err)
			r.put(nil, gone) // the helper has ended them, too; a restart tries to remove them from the store again
		}
	}
	r.mu.RLock()
	over := slices.ContainsFunc(r.destined, func(x store.Rule) bool { return x.Over(now) })
	r.mu.RUnlock()
	if over {
		d.endExemptions(now)
	}
}

func (d *daemon) endExemptions(now time.Time) {
	var over []store.Rule
	err := d.changeExemptions(func(all []store.Rule) (live []store.Rule, _ error) {
		for _, x := range all {
			if x.Over(now) {
				over = append(over, x)
			} else {
				live = append(live, x)
			}
		}
		return live, nil
	}, func() error {
		var errs []error
		for _, x := range over {
			act := store.Act{At: now, Who: "sluiced", What: "exemption ended", Subject: x.Prefix.String(), Detail: "its time is over"}
			errs = append(errs, d.store.RemoveExemption(x.Prefix, x.Port, act))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		d.log.Error("exemptions whose time is over could not be removed; they have no effect", "err", err)
	}
}

// tellAll tells the helper of every source anew, which it takes as a whole or not at all.
func (d *daemon) tellAll() error {
	c := d.link.client.Load()
	if c == nil {
		return errAway
	}
	ctx, cancel := context.WithTimeout(context.Background(), setPatience)
	defer cancel()
	return c.SetUsers(ctx, d.allSources(d.roster.Load()))
}
