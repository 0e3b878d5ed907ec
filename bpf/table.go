package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// batchSize keeps one system call below a few hundred microseconds.
const batchSize = 4096

// readTable copies a hash or trie into memory.
func readTable[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	got := make(map[K]V)
	err := eachEntry(m, func(k K, v V) { got[k] = v })
	return got, err
}

// eachEntry reads a table or an array.
func eachEntry[K, V any](m *ebpf.Map, f func(K, V)) error {
	keys, values := make([]K, batchSize), make([]V, batchSize)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			f(keys[i], values[i])
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("could not read map %s: %w", m, err)
		}
	}
}

// replaceTable makes the kernel's table equal to want: first it puts what is new or different, then it deletes what is
// gone, so that no packet meets a gap. Only when both do not fit together is the order turned round.
func replaceTable[K key, V comparable](m *ebpf.Map, want map[K]V) (Change, error) {
	d, err := diffTable(m, want)
	if err != nil {
		return Change{}, err
	}
	steps := []func() error{d.putNew, d.deleteGone}
	if d.crowded {
		steps[0], steps[1] = steps[1], steps[0]
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return Change{}, err
		}
	}
	return d.Change, nil
}

// key is one of a hash or trie. Length is that of its prefix, or 0 where keys are not inside each other.
type key interface {
	comparable
	length() int
}

func (k mailNetKey) length() int  { return int(k.Prefixlen) }
func (k mailHostKey) length() int { return int(k.Bits) }
func (k mailPortKey) length() int { return 0 }

// difference turns the kernel's table into another.
type difference[K key, V any] struct {
	Change
	m       *ebpf.Map
	want    map[K]V
	fresh   []K  // to be put, longest first: no address is for a moment under a new wide prefix that a new longer one corrects
	gone    []K  // to be deleted, shortest first, for the same reason
	crowded bool // the table has no room for both
}

func diffTable[K key, V comparable](m *ebpf.Map, want map[K]V) (*difference[K, V], error) {
	if len(want) > int(m.MaxEntries()) {
		return nil, fmt.Errorf("could not fill map %s: %d entries, room for %d; raise its size and start again", m, len(want), m.MaxEntries())
	}
	have, err := readTable[K, V](m)
	if err != nil {
		return nil, err
	}
	d := &difference[K, V]{m: m, want: want}
	added := 0
	for k, v := range want {
		old, ok := have[k]
		if ok && old == v {
			d.Kept++
			continue
		}
		if !ok {
			added++
		}
		d.fresh = append(d.fresh, k)
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			d.gone = append(d.gone, k)
		}
	}
	slices.SortFunc(d.fresh, func(a, b K) int { return b.length() - a.length() })
	slices.SortFunc(d.gone, func(a, b K) int { return a.length() - b.length() })
	d.Put, d.Deleted = len(d.fresh), len(d.gone)
	d.crowded = len(have)+added > int(m.MaxEntries())
	return d, nil
}

func (d *difference[K, V]) putNew() error {
	for keys := range slices.Chunk(d.fresh, batchSize) {
		values := make([]V, len(keys))
		for i, k := range keys {
			values[i] = d.want[k]
		}
		if _, err := d.m.BatchUpdate(keys, values, nil); err != nil {
			return fmt.Errorf("could not write map %s: %w", d.m, err)
		}
	}
	return nil
}

func (d *difference[K, V]) deleteGone() error { return deleteKeys(d.m, d.gone) }

// deleteKeys does not mind keys that went by themselves.
func deleteKeys[K comparable](m *ebpf.Map, keys []K) error {
	for _, k := range keys {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("could not delete from map %s: %w", m, err)
		}
	}
	return nil
}
