package attach

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"sluice/intercept/ruleset"
)

// Guard has the guards stand at the uplinks where programs of this process are, and at those that come, or takes them away.
// Once it returns nil they stand.
func (p *Programs) Guard(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.guarded = on
	var errs []error
	for pl := range maps.Clone(p.placed) {
		at, ok := ruleset.Guard(pl)
		if !ok {
			continue
		}
		way, stands := p.placed[at]
		switch {
		case on && !stands:
			if _, _, err := p.put(at, false); err != nil && !p.k.vanished(at.Link) {
				errs = append(errs, err)
			}
		case !on && stands:
			errs = append(errs, p.remove(at, way))
		}
	}
	return errors.Join(errs...)
}

// manned leaves the guards out of the seats while none are wanted.
func (p *Programs) manned(seats []ruleset.Seat) []ruleset.Seat {
	if p.guarded {
		return seats
	}
	out := slices.Clone(seats)
	for i := range out {
		out[i].Places = slices.DeleteFunc(slices.Clone(out[i].Places), ruleset.Place.IsGuard)
	}
	return out
}

// RemoveGuards takes the guards off the uplinks, whoever attached them, and leaves all other programs.
func (k *Kernel) RemoveGuards(dir string) error {
	links := filepath.Join(dir, "links")
	entries, err := os.ReadDir(links)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	keep := make(map[string]bool)
	for _, e := range entries {
		keep[e.Name()] = !strings.Contains(e.Name(), guard)
	}
	return errors.Join(removeTCX(links, keep), k.removeClsact(func(f netlink.Filter, _ int, _ string) bool {
		b, ours := ourFilter(f)
		return ours && strings.HasPrefix(b.Name, filterName+guard)
	}))
}

const guard = "uplink_guard" // also with a suffix
