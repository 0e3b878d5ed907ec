package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// batchSize keeps one system call below a few hundred microseconds.
const batchSize = 4096

// readTable copies a hash or trie into memory.
func readTable[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	got := make(map[K]V)
	keys, values := make([]K, batchSize), make([]V, batchSize)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			got[keys[i]] = values[i]
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return got, nil
		case err != nil:
			return nil, fmt.Errorf("could not read map %s: %w", m, err)
		}
	}
}

// replaceTable makes the kernel's table equal to want: first it puts what is new or different, then it deletes what is
// gone, so that no packet meets a gap. Only when both do not fit together is the order turned round.
func replaceTable[K comparable, V comparable](m *ebpf.Map, want map[K]V) (Change, error) {
	if len(want) > int(m.MaxEntries()) {
		return Change{}, fmt.Errorf("could not fill map %s: %d entries, room for %d; raise its size and start again", m, len(want), m.MaxEntries())
	}
	have, err := readTable[K, V](m)
	if err != nil {
		return Change{}, err
	}
	var c Change
	put := make(map[K]V)
	for k, v := range want {
		if old, ok := have[k]; ok && old == v {
			c.Kept++
		} else {
			put[k] = v
		}
	}
	var gone []K
	fresh := 0
	for k := range put {
		if _, ok := have[k]; !ok {
			fresh++
		}
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			gone = append(gone, k)
		}
	}
	c.Put, c.Deleted = len(put), len(gone)
	steps := []func() error{
		func() error { return putTable(m, put) },
		func() error { return deleteKeys(m, gone) },
	}
	if len(have)+fresh > int(m.MaxEntries()) {
		steps[0], steps[1] = steps[1], steps[0]
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return Change{}, err
		}
	}
	return c, nil
}

func putTable[K comparable, V any](m *ebpf.Map, entries map[K]V) error {
	keys, values := make([]K, 0, batchSize), make([]V, 0, batchSize)
	flush := func() error {
		if len(keys) == 0 {
			return nil
		}
		if _, err := m.BatchUpdate(keys, values, nil); err != nil {
			return fmt.Errorf("could not write map %s: %w", m, err)
		}
		keys, values = keys[:0], values[:0]
		return nil
	}
	for k, v := range entries {
		keys, values = append(keys, k), append(values, v)
		if len(keys) == batchSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// deleteKeys does not mind keys that went by themselves.
func deleteKeys[K comparable](m *ebpf.Map, keys []K) error {
	for _, k := range keys {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("could not delete from map %s: %w", m, err)
		}
	}
	return nil
}
