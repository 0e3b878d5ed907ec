package intercept

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"sluice/bpf"
	"sluice/intercept/control"
	"sluice/intercept/nft"
)

// bypassName is a file of its own: a bypass must be in force and on disk at once, however large the other state is.
const bypassName = "bypass.json"

// bypasses remembers why and by whom; the kernel knows only prefixes and ends. A mutex of its own keeps a bypass from
// waiting behind a source table.
type bypasses struct {
	mu   sync.Mutex
	dir  string
	log  *slog.Logger
	list []control.Bypass
}

// recall takes over what an earlier helper, or a command that ran without one, left on disk. Where that is lost, what the
// kernel still holds stays in force.
func (bs *bypasses) recall(d bypassTable, now time.Time) error {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	list, err := loadBypasses(bs.dir)
	if err != nil {
		bs.log.Error("the reasons of bypasses are lost", "error", err)
		held, err := d.Bypasses()
		if err != nil {
			return err
		}
		for _, h := range held {
			b := control.Bypass{Prefix: h.Prefix, Until: h.Until, Reason: "unknown: found in the kernel", By: "unknown", Since: now}
			if h.Until.Equal(bpf.BypassForGood) {
				b.Until = time.Time{}
			}
			list = append(list, b)
		}
	}
	list = slices.DeleteFunc(list, func(b control.Bypass) bool { return b.Over(now) })
	bs.list = list
	return d.ReplaceBypasses(kernelBypasses(list))
}

// put puts one in force, in place of one for the same prefix.
func (bs *bypasses) put(d bypassTable, b control.Bypass) error {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if b.Over(b.Since) {
		return control.Errorf(control.CodeInvalid, "could not bypass: its end %v has passed", b.Until.Format(time.RFC3339))
	}
	next := slices.DeleteFunc(slices.Clone(bs.list), func(o control.Bypass) bool { return o.Prefix == b.Prefix || o.Over(b.Since) })
	if len(next) >= control.MaxBypasses {
		return control.Errorf(control.CodeInvalid, "could not bypass %v: %d others are in force; end some", b.Prefix, len(next))
	}
	if err := bs.apply(d, append(next, b)); err != nil {
		return err
	}
	bs.log.Warn("bypass on", "bypass", b.String())
	return bs.save()
}

// end ends the bypass of a prefix, or all for the zero prefix.
func (bs *bypasses) end(d bypassTable, p netip.Prefix, by string) error {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	var next []control.Bypass
	if p.IsValid() {
		next = slices.DeleteFunc(slices.Clone(bs.list), func(o control.Bypass) bool { return o.Prefix == p })
		if len(next) == len(bs.list) {
			return control.Errorf(control.CodeInvalid, "could not end the bypass of %v: there is none; ask for the status", p)
		}
	}
	ended := bs.list
	if err := bs.apply(d, next); err != nil {
		return err
	}
	for _, b := range ended {
		if !slices.Contains(next, b) {
			bs.log.Warn("bypass off", "bypass", b.String(), "ended_by", by)
		}
	}
	return bs.save()
}

// apply needs the lock. It comes before save: a full disk must not close the way out.
func (bs *bypasses) apply(d bypassTable, next []control.Bypass) error {
	if err := d.ReplaceBypasses(kernelBypasses(next)); err != nil {
		return err
	}
	bs.list = next
	return nil
}

func (bs *bypasses) save() error {
	if err := saveBypasses(bs.dir, bs.list); err != nil {
		return fmt.Errorf("the kernel has it, but a restart of sluice-intercept would bring back what was before: %w", err)
	}
	return nil
}

// expire tells of those that the kernel no longer heeds, and forgets them.
func (bs *bypasses) expire(d bypassTable, now time.Time) error {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	var next []control.Bypass
	for _, b := range bs.list {
		if b.Over(now) {
			bs.log.Warn("bypass is over", "bypass", b.String())
		} else {
			next = append(next, b)
		}
	}
	if len(next) == len(bs.list) {
		return nil
	}
	return errors.Join(bs.apply(d, next), bs.save())
}

// live returns those in force, that for everybody first.
func (bs *bypasses) live(now time.Time) []control.Bypass {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	out := slices.DeleteFunc(slices.Clone(bs.list), func(b control.Bypass) bool { return b.Over(now) })
	slices.SortFunc(out, func(a, b control.Bypass) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return out
}

func kernelBypasses(list []control.Bypass) []bpf.Bypass {
	out := make([]bpf.Bypass, len(list))
	for i, b := range list {
		out[i] = bpf.Bypass{Prefix: b.Prefix, Until: b.Until}
		if b.Until.IsZero() {
			out[i].Until = bpf.BypassForGood
		}
	}
	return out
}

func loadBypasses(dir string) ([]control.Bypass, error) {
	b, err := os.ReadFile(filepath.Join(dir, bypassName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var list []control.Bypass
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("could not read the bypasses in %s: %w", filepath.Join(dir, bypassName), err)
	}
	return list, nil
}

func saveBypasses(dir string, list []control.Bypass) error {
	b, err := json.Marshal(list)
	if err == nil {
		err = writeDurably(dir, bypassName, b)
	}
	if err != nil {
		return fmt.Errorf("could not write the bypasses to %s: %w", filepath.Join(dir, bypassName), err)
	}
	return nil
}

// Offline changes and reads bypasses in the kernel while no helper runs; the next one takes them over. Whoever uses it
// must hold the control socket, so that no helper starts meanwhile.
type Offline struct {
	data offlineTable
	list bypasses
}

// offlineTable is what a helper left in the kernel.
type offlineTable interface {
	bypassTable
	Close() error
}

// openLeft finds the nftables table or the pinned maps of a helper that is gone. Without them nothing is in force that
// could be bypassed.
func openLeft(pinDir string) (offlineTable, error) {
	if stands, err := nft.Stands(); err == nil && stands {
		return nft.Bypassing{}, nil
	}
	return bpf.OpenBypass(pinDir)
}

// OpenOffline finds what a helper left in the kernel.
func OpenOffline(c *Config, log *slog.Logger) (*Offline, error) {
	d, err := openLeft(c.PinDir)
	if err != nil {
		return nil, err
	}
	o := &Offline{data: d, list: bypasses{dir: c.StateDir, log: log}}
	if err := o.list.recall(d, time.Now()); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return o, nil
}

// Put puts a bypass in force, in place of one for the same prefix.
func (o *Offline) Put(b control.Bypass) error { return o.list.put(o.data, b) }

// End ends the bypass of a prefix, or all for the zero prefix.
func (o *Offline) End(p netip.Prefix, by string) error { return o.list.end(o.data, p, by) }

// List returns those in force.
func (o *Offline) List() []control.Bypass { return o.list.live(time.Now()) }

// Close lets go of the kernel's tables.
func (o *Offline) Close() error { return o.data.Close() }
