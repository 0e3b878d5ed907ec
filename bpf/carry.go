package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// carry fills a fresh map with what one of another shape holds: each field finds the one of its name, what the older
// version did not have is zero, what the newer one does not know is left behind. It tells whether it could.
func carry(from, to *ebpf.Map, was, is mapShape) (bool, error) {
	switch {
	case is.Type != was.Type:
		return false, nil
	case is.Type == ebpf.Array && was.Flags&is.Flags&unix.BPF_F_MMAPABLE != 0:
		return true, carryMapped(from, to, was, is)
	case is.Type == ebpf.Array:
		return true, carryArray(from, to, was, is)
	case is.Type == ebpf.PerCPUArray:
		return true, carryCounters(from, to, was, is)
	case is.Type == ebpf.Hash, is.Type == ebpf.LRUHash, is.Type == ebpf.LPMTrie:
		return true, carryTable(from, to, was, is)
	}
	return false, nil // sockets cannot be read back
}

func carryArray(from, to *ebpf.Map, was, is mapShape) error {
	for i := range min(was.Entries, is.Entries) {
		old, err := from.LookupBytes(i)
		if err != nil {
			return err
		}
		value := make([]byte, is.ValueSize)
		convert(value, old, moves(is.Value, was.Value))
		if err := to.Put(i, value); err != nil {
			return err
		}
	}
	return nil
}

// carryMapped does the same for an array that may be large and is hardly filled.
func carryMapped(from, to *ebpf.Map, was, is mapShape) error {
	old, err := mapArray(from, unix.PROT_READ)
	if err != nil {
		return err
	}
	defer unix.Munmap(old)
	fresh, err := mapArray(to, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return err
	}
	defer unix.Munmap(fresh)
	all, nothing := moves(is.Value, was.Value), make([]byte, was.ValueSize)
	step, size := int(was.ValueSize+7)&^7, int(is.ValueSize+7)&^7 // as the kernel lays them out
	for i := range int(min(was.Entries, is.Entries)) {
		if value := old[i*step:][:was.ValueSize]; !bytes.Equal(value, nothing) {
			convert(fresh[i*size:][:is.ValueSize], value, all)
		}
	}
	return nil
}

// mapArray maps an array that was made for it into memory.
func mapArray(m *ebpf.Map, how int) ([]byte, error) {
	b, err := unix.Mmap(m.FD(), 0, int(m.MaxEntries())*(int(m.ValueSize()+7)&^7), how, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("could not map %s into memory: %w", m, err)
	}
	return b, nil
}

// carryCounters finds each counter by its name: an array grows in its middle, too.
func carryCounters(from, to *ebpf.Map, was, is mapShape) error {
	for i, name := range is.Labels {
		old := slices.Index(was.Labels, name)
		if old < 0 {
			continue
		}
		var perCPU []uint64
		if err := from.Lookup(uint32(old), &perCPU); err != nil {
			return err
		}
		if err := to.Put(uint32(i), perCPU); err != nil {
			return err
		}
	}
	return nil
}

func carryTable(from, to *ebpf.Map, was, is mapShape) error {
	oldKeys, oldValues := entries(was.KeySize), entries(was.ValueSize)
	keys, values := entries(is.KeySize), entries(is.ValueSize)
	keyMoves, valueMoves := moves(is.Key, was.Key), moves(is.Value, was.Value)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := from.BatchLookup(&cursor, oldKeys.Interface(), oldValues.Interface(), nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return err
		}
		for i := range n {
			convert(bytesOf(keys, i), bytesOf(oldKeys, i), keyMoves)
			convert(bytesOf(values, i), bytesOf(oldValues, i), valueMoves)
		}
		if n > 0 {
			if _, err := to.BatchUpdate(keys.Slice(0, n).Interface(), values.Slice(0, n).Interface(), nil); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// entries makes a batch of keys or values whose size is known only now.
func entries(size uint32) reflect.Value {
	t := reflect.ArrayOf(int(size), reflect.TypeFor[byte]())
	return reflect.MakeSlice(reflect.SliceOf(t), batchSize, batchSize)
}

func bytesOf(entries reflect.Value, i int) []byte {
	return entries.Index(i).Slice(0, entries.Index(i).Len()).Bytes()
}

// move is a field that both shapes have.
type move struct{ to, from field }

func moves(is, was []field) (all []move) {
	for _, f := range is {
		if old, ok := find(was, f.Name); ok {
			all = append(all, move{f, old})
		}
	}
	return all
}

// convert writes a value of one shape from one of another.
func convert(to, from []byte, all []move) {
	clear(to)
	for _, m := range all {
		for i := range min(m.to.Count, m.from.Count) {
			putNumber(to[m.to.Offset+i*m.to.Size:][:m.to.Size], readNumber(from[m.from.Offset+i*m.from.Size:][:m.from.Size]))
		}
	}
}

// readNumber reads a little-endian number of up to 8 bytes; the bindings are for little-endian machines only.
func readNumber(b []byte) uint64 {
	var w [8]byte
	copy(w[:], b)
	return binary.LittleEndian.Uint64(w[:])
}

// putNumber writes one; one that does not fit becomes the largest that does.
func putNumber(b []byte, v uint64) {
	if bits := 8 * len(b); bits < 64 {
		v = min(v, 1<<bits-1)
	}
	var w [8]byte
	binary.LittleEndian.PutUint64(w[:], v)
	copy(b, w[:])
}

// carryError names the map and the remedy.
func carryError(name string, err error) error {
	return fmt.Errorf("could not carry over map %s from the maps of another version: %w; start the version before again, or run sluice-intercept cleanup and start anew", name, err)
}

// grown is the size of a table that takes over another's entries: it never shrinks.
func grown(name string, was, is mapShape) uint32 {
	if name == "user_slots" { // the only array of no fixed size
		return max(was.Entries, is.Entries)
	}
	switch is.Type {
	case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie:
		return max(was.Entries, is.Entries)
	}
	return is.Entries
}
