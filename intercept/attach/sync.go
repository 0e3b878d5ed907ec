package attach

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"sluice/intercept/ruleset"
)

// crowd is the number of new places from which on they are served by clsact where tcx is in use: the kernel waits out a
// grace period, some 17 ms, for every interface that gets its first tcx program, and a filter takes a hundredth of that.
const crowd = 8

// Sync makes programs stand where the seats say and nowhere else. A seat that fails does not keep the others from being
// served; its interface carries the problem. The error is about removing what is no longer wanted.
func (p *Programs) Sync(seats []ruleset.Seat) ([]Interface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seats = p.manned(seats)
	out := p.serve(seats)
	wanted := places(seats)
	var errs []error
	for pl, way := range p.placed {
		if !wanted[pl] {
			errs = append(errs, p.remove(pl, way))
		}
	}
	if !p.clean {
		err := p.removeOthers()
		p.clean = err == nil
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// Update is Sync for some interfaces, those that the indexes name, and leaves the others as they are.
func (p *Programs) Update(indexes []int, seats []ruleset.Seat) ([]Interface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seats = p.manned(seats)
	out := p.serve(seats)
	wanted := places(seats)
	var errs []error
	for _, i := range indexes {
		for _, pl := range ruleset.EveryPlace(i) {
			if way, ok := p.placed[pl]; ok && !wanted[pl] {
				errs = append(errs, p.remove(pl, way))
			}
		}
	}
	return out, errors.Join(errs...)
}

func places(seats []ruleset.Seat) map[ruleset.Place]bool {
	out := make(map[ruleset.Place]bool)
	for _, s := range seats {
		for _, pl := range s.Places {
			out[pl] = true
		}
	}
	return out
}

// serve puts the programs of all seats. A seat whose interface went meanwhile is none.
func (p *Programs) serve(seats []ruleset.Seat) []Interface {
	many := p.countNew(seats) > crowd
	out := make([]Interface, 0, len(seats))
	for _, s := range seats {
		i := Interface{Link: s.Link, Role: s.Role, Problem: s.Refused}
		var err error
		for _, pl := range s.Places {
			var way, note string
			if way, note, err = p.put(pl, many); err != nil {
				break
			}
			i.Path, i.Problem = way, cmp.Or(i.Problem, note)
		}
		switch {
		case err != nil && p.k.vanished(s.Link.Index):
			continue
		case err != nil:
			i.Path, i.Problem = "", err.Error()
		}
		out = append(out, i)
	}
	return out
}

// countNew tells how many places hold nothing of ours yet.
func (p *Programs) countNew(seats []ruleset.Seat) int {
	if p.path != TCX {
		return 0
	}
	pinned := make(map[string]bool)
	if !p.clean { // links of an earlier process
		entries, err := os.ReadDir(p.dir)
		if err != nil {
			return 0 // the same error is told by putTCX
		}
		for _, e := range entries {
			pinned[e.Name()] = true
		}
	}
	n := 0
	for pl := range places(seats) {
		if p.placed[pl] == "" && !pinned[pinName(pl)] {
			n++
		}
	}
	return n
}

// put lets one program stand at one place; the note names what is not wrong but worth knowing.
func (p *Programs) put(pl ruleset.Place, many bool) (way, note string, err error) {
	prog := p.program(pl.Program)
	if prog == nil {
		return "", "", fmt.Errorf("could not attach %s: no such program", pl.Program)
	}
	was := p.placed[pl]
	if way = was; way == "" {
		way = p.path
		if many && p.path == TCX && !p.pinnedAlive(pl) {
			way = Clsact
		}
	}
	if way == Clsact {
		note, err = p.putClsact(pl, prog)
		if p.path == TCX && (err != nil || note != "") && !p.k.vanished(pl.Link) { // tcx runs before any filter
			way, note, err = TCX, "", nil
		}
	}
	if way == TCX {
		err = p.putTCX(pl, prog)
	}
	if err != nil {
		delete(p.placed, pl)
		return "", "", err
	}
	p.placed[pl] = way
	if was != "" && was != way {
		err = p.take(pl, was)
	}
	return way, note, err
}

// remove takes our program from a place that is no longer wanted.
func (p *Programs) remove(pl ruleset.Place, way string) error {
	delete(p.placed, pl)
	return p.take(pl, way)
}

// take takes our program away that stands there by one of the ways.
func (p *Programs) take(pl ruleset.Place, way string) error {
	if way == TCX {
		return removePin(p.dir, pinName(pl))
	}
	if err := p.k.removeFilters(pl.Link, oursBut(func(at ruleset.Place) bool { return at != pl })); err != nil && !p.k.vanished(pl.Link) {
		return err
	}
	return nil
}

// removeOthers detaches what other processes left at places that are not wanted or hold ours by the other way.
func (p *Programs) removeOthers() error {
	by := func(way string) func(ruleset.Place) bool {
		return func(pl ruleset.Place) bool { return p.placed[pl] == way }
	}
	keep := make(map[string]bool)
	for _, pl := range slices.Collect(maps.Keys(p.placed)) {
		if p.placed[pl] == TCX {
			keep[pinName(pl)] = true
		}
	}
	return errors.Join(removeTCX(p.dir, keep), p.k.removeClsact(oursBut(by(Clsact))))
}

// vanished tells whether an interface is gone.
func (k *Kernel) vanished(index int) bool {
	l, err := k.linkOf(index)
	return err == nil && l == nil || errors.Is(err, unix.ENODEV)
}
