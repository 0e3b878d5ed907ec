package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
)

// The maps of one version are pinned together, in a folder of their own: a set. A version whose maps look different makes
// the next set beside the last one, fills it, declares it whole, moves the programs over, and then removes the last one.
// So a crash at any moment leaves a whole set, and of several the youngest is in force.

const setPrefix = "set-"

func setDir(dir string, n int) string { return filepath.Join(dir, setPrefix+strconv.Itoa(n)) }

// sets returns the numbers of the sets in dir, youngest first.
func sets(dir string) ([]int, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("could not read the pinned maps: %w", err)
	}
	var out []int
	for _, e := range list {
		if n, err := strconv.Atoi(strings.TrimPrefix(e.Name(), setPrefix)); err == nil && setDir("", n) == e.Name() {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b int) int { return b - a })
	return out, nil
}

// lastSet returns the folder of the youngest whole set; "" when there is none.
func lastSet(dir string) (string, error) {
	all, err := sets(dir)
	if err != nil {
		return "", err
	}
	for _, n := range all {
		if whole(setDir(dir, n)) {
			return setDir(dir, n), nil
		}
	}
	return "", nil
}

// onlySet returns the folder of the set that is in force everywhere, for those who change or read it beside the helper.
func onlySet(dir string) (string, error) {
	last, err := lastSet(dir)
	if err != nil {
		return "", err
	}
	if last == "" {
		return "", fmt.Errorf("could not find pinned maps in %s: is sluice-intercept running, or was it, and is anything attached?", dir)
	}
	all, err := sets(dir)
	if err != nil {
		return "", err
	}
	if len(all) > 1 {
		return "", fmt.Errorf("could not use the maps pinned in %s: an upgrade of sluice-intercept was interrupted; start it, which ends the upgrade", dir)
	}
	return last, nil
}

// openShared opens a pinned map of a set, if its values are those of the spec.
func openShared(set, name string, ms *ebpf.MapSpec) (*ebpf.Map, error) {
	s, err := readShape(set)
	if err != nil {
		return nil, err
	}
	is, err := mapShapeOf(name, ms)
	if err != nil {
		return nil, err
	}
	if s == nil || s.Layout != uint32(mailNumberLAYOUT) || !s.Maps[name].same(is) {
		return nil, fmt.Errorf("could not use the pinned map %s in %s: another version made it; use the programs of one version, and restart sluice-intercept", name, set)
	}
	m, err := ebpf.LoadPinnedMap(filepath.Join(set, name), nil)
	if err != nil {
		return nil, fmt.Errorf("could not open the pinned map %s in %s: %w; is anything attached?", name, set, err)
	}
	return m, nil
}

// removeSet unpins the maps of a set. Its description goes first: what remains after a crash is no set.
func removeSet(set string) error {
	if err := os.Remove(filepath.Join(set, shapeName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("could not unpin the maps: %w", err)
	}
	list, err := os.ReadDir(set)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("could not unpin the maps: %w", err)
	}
	for _, e := range list {
		if err := os.Remove(filepath.Join(set, e.Name())); err != nil {
			return fmt.Errorf("could not unpin a map: %w", err)
		}
	}
	if err := os.Remove(set); err != nil {
		return fmt.Errorf("could not unpin the maps: %w", err)
	}
	return nil
}

// plan is what becomes of the maps of a spec when they are loaded over the set that is there.
type plan struct {
	last    string // folder of the set that is there; "" if none
	was     *shape // nil if there is none, or none that this program understands
	is      *shape
	set     string   // folder of the set to be used
	share   []string // maps that both sets have
	changed []string // maps that are made anew
}

// inPlace tells that the set that is there fits as it is.
func (p *plan) inPlace() bool { return p.set == p.last }

// planSet looks at what is pinned in dir and sizes the maps of the spec accordingly.
func planSet(dir string, spec *ebpf.CollectionSpec) (*plan, error) {
	all, err := sets(dir)
	if err != nil {
		return nil, err
	}
	p := &plan{}
	next := 1
	for _, n := range all {
		switch {
		case !whole(setDir(dir, n)): // its loader crashed before it was used
			if err := removeSet(setDir(dir, n)); err != nil {
				return nil, err
			}
		case p.last == "":
			p.last, next = setDir(dir, n), n+1
		}
	}
	if p.last != "" {
		if p.was, err = readShape(p.last); err != nil {
			return nil, err
		}
	}
	if p.is, err = shapeOf(spec); err != nil {
		return nil, err
	}
	if err := p.compare(spec); err != nil {
		return nil, err
	}
	p.set = setDir(dir, next)
	if p.last != "" && p.was != nil && len(p.changed) == 0 && p.was.Layout == p.is.Layout {
		p.set = p.last
	}
	return p, nil
}

// compare sorts the maps into those that both sets can have and the others.
func (p *plan) compare(spec *ebpf.CollectionSpec) error {
	for name, is := range p.is.Maps {
		ms := spec.Maps[name]
		ms.Pinning = ebpf.PinByName
		if p.was == nil {
			p.changed = append(p.changed, name)
			continue
		}
		was, ok := p.was.Maps[name]
		if ok && is.Type == was.Type {
			is.Entries = grown(name, was, is)
			p.is.Maps[name], ms.MaxEntries = is, is.Entries
		}
		fits := ok && is.same(was) && is.Entries == was.Entries && (p.was.Layout == p.is.Layout || forever(name))
		if fits {
			var err error
			if fits, err = pinFits(filepath.Join(p.last, name), ms); err != nil {
				return err
			}
		}
		if fits {
			p.share = append(p.share, name)
		} else {
			p.changed = append(p.changed, name)
		}
	}
	slices.Sort(p.changed)
	return nil
}

// forever names the maps that no LAYOUT replaces while their shape stays: the proxy beats into one, and nobody can read a
// socket out of the other.
func forever(name string) bool { return name == "heartbeat" || name == "listeners" }

// pinFits tells whether a pin is what the description says.
func pinFits(path string, ms *ebpf.MapSpec) (bool, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("could not open the pinned map %s: %w", path, err)
	}
	defer m.Close()
	return ms.Compatible(m) == nil, nil
}

// lay makes the folder of a new set, with the maps in it that the last set has, too.
func (p *plan) lay() error {
	if p.inPlace() {
		return nil
	}
	if err := os.Mkdir(p.set, 0o700); err != nil {
		return fmt.Errorf("could not make a folder for the pinned maps: %w", err)
	}
	for _, name := range p.share {
		from := filepath.Join(p.last, name)
		m, err := ebpf.LoadPinnedMap(from, nil)
		if err != nil {
			return fmt.Errorf("could not open the pinned map %s: %w", from, err)
		}
		c, err := m.Clone() // pinning m itself would move its pin
		if err == nil {
			err = errors.Join(c.Pin(filepath.Join(p.set, name)), c.Close())
		}
		if err := errors.Join(err, m.Close()); err != nil {
			return fmt.Errorf("could not pin map %s once more: %w", name, err)
		}
	}
	return nil
}

// fill carries the contents of the last set's maps over, and returns the names of those that begin empty.
func (p *plan) fill() (empty []string, err error) {
	for _, name := range p.changed {
		done := false
		if p.was != nil {
			if done, err = p.carry(name); err != nil {
				return nil, carryError(name, err)
			}
		}
		if !done {
			empty = append(empty, name)
		}
	}
	return empty, nil
}

func (p *plan) carry(name string) (bool, error) {
	was, ok := p.was.Maps[name]
	if !ok {
		return false, nil
	}
	from, err := ebpf.LoadPinnedMap(filepath.Join(p.last, name), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer from.Close()
	if from.KeySize() != was.KeySize || from.ValueSize() != was.ValueSize || from.Type() != was.Type { // not what was described
		return false, nil
	}
	to, err := ebpf.LoadPinnedMap(filepath.Join(p.set, name), nil)
	if err != nil {
		return false, err
	}
	defer to.Close()
	return carry(from, to, was, p.is.Maps[name])
}
