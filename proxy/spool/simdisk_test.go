package spool

import (
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
)

// simDisk is a folder that can lose what was not synced, and fails where it is told to.
type simDisk struct {
	mu     sync.Mutex
	names  map[string]*simInode // as programs see it
	stable map[string]*simInode // as it is after the power failed
	locked map[*simInode]bool
	epoch  int // handles of an earlier life are dead
	r      *rand.Rand

	ops   int   // what changes something, counted
	fault fault // what goes wrong at one of them
	room  int64 // bytes that may be written still; < 0: no bound
	full  int   // writes that found no room
}

type simInode struct {
	data    []byte
	stable  []byte
	changes []change // since the last sync
}

// change is a write at off, or, where data is nil, a cut to off.
type change struct {
	off  int64
	data []byte
}

// fault happens at the operation with this number, which is counted from 1.
type fault struct {
	at  int
	err error // nil: everything fails from there on, as if the machine had stopped
	// partly: of a write that fails some bytes are written all the same.
	partly bool
}

var errStopped = errors.New("the machine has stopped")

func newSimDisk(seed uint64) *simDisk {
	return &simDisk{names: map[string]*simInode{}, stable: map[string]*simInode{}, locked: map[*simInode]bool{}, r: rand.New(rand.NewPCG(seed, 1)), room: -1}
}

// step counts an operation and tells whether it fails. d.mu is held.
func (d *simDisk) step(epoch int) error {
	if epoch != d.epoch {
		return errStopped
	}
	d.ops++
	switch {
	case d.fault.at == 0 || d.ops < d.fault.at:
		return nil
	case d.fault.err == nil:
		return errStopped
	case d.ops == d.fault.at:
		return d.fault.err
	}
	return nil
}

func (d *simDisk) stopped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault.at > 0 && d.fault.err == nil && d.ops >= d.fault.at
}

// restart ends the program, and with power the machine: then of what was not synced any part may be on disk, pieces torn
// anywhere, the later before the earlier.
func (d *simDisk) restart(power bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.epoch++
	d.ops, d.fault = 0, fault{}
	d.locked = map[*simInode]bool{}
	if !power {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		if d.stable[name] == nil && d.r.IntN(2) == 0 {
			d.stable[name] = d.names[name]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.stable)) {
		if d.names[name] == nil && d.r.IntN(2) == 0 {
			delete(d.stable, name)
		}
	}
	seen := map[*simInode]bool{}
	for _, name := range slices.Sorted(maps.Keys(d.stable)) {
		if n := d.stable[name]; !seen[n] {
			seen[n] = true
			d.lose(n)
		}
	}
	d.names = maps.Clone(d.stable)
}

// lose drops some of the changes of a file.
func (d *simDisk) lose(n *simInode) {
	kind := d.r.IntN(4) // all, none, or any
	for _, c := range n.changes {
		if kind == 0 || kind > 1 && d.r.IntN(3) == 0 {
			continue
		}
		if c.data == nil {
			n.stable = n.stable[:min(c.off, int64(len(n.stable)))]
			continue
		}
		from, to := 0, len(c.data)
		if kind > 1 && d.r.IntN(2) == 0 {
			from, to = d.r.IntN(to+1), d.r.IntN(to+1)
			from, to = min(from, to), max(from, to)
		}
		if from == to {
			continue
		}
		end := c.off + int64(to)
		for int64(len(n.stable)) < end {
			n.stable = append(n.stable, 0)
		}
		copy(n.stable[c.off+int64(from):], c.data[from:to])
	}
	n.changes = nil
	n.data = slices.Clone(n.stable)
}

func (d *simDisk) create(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	epoch := d.epoch
	if err := d.step(epoch); err != nil {
		return nil, err
	}
	if d.names[name] != nil {
		return nil, os.ErrExist
	}
	n := &simInode{}
	d.names[name] = n
	return &simFile{d, n, epoch}, nil
}

func (d *simDisk) open(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	if n == nil {
		return nil, os.ErrNotExist
	}
	return &simFile{d, n, d.epoch}, nil
}

func (d *simDisk) list() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.names)), nil
}

func (d *simDisk) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(d.epoch); err != nil {
		return err
	}
	if d.names[name] == nil {
		return os.ErrNotExist
	}
	delete(d.names, name)
	return nil
}

func (d *simDisk) syncDir() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(d.epoch); err != nil {
		return err
	}
	d.stable = maps.Clone(d.names)
	return nil
}

func (d *simDisk) lock(name string) (io.Closer, error) {
	f, err := d.create(name)
	if err != nil {
		return nil, err
	}
	return d.take2(f.(*simFile))
}

func (d *simDisk) take(name string) (io.Closer, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, nil
	}
	return d.take2(f.(*simFile))
}

func (d *simDisk) take2(f *simFile) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locked[f.n] {
		return nil, nil
	}
	d.locked[f.n] = true
	return simLock{d, f.n, d.epoch}, nil
}

type simLock struct {
	d     *simDisk
	n     *simInode
	epoch int
}

func (l simLock) Close() error {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if l.epoch == l.d.epoch {
		delete(l.d.locked, l.n)
	}
	return nil
}

func (d *simDisk) free() (room, size uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.room >= 0 {
		return 1 << 30, 1 << 30, nil // it says so only when it is written to
	}
	return 1 << 40, 1 << 40, nil
}

type simFile struct {
	d     *simDisk
	n     *simInode
	epoch int
}

func (f *simFile) Write(p []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	err := f.d.step(f.epoch)
	n := len(p)
	if err != nil {
		if n = 0; f.d.fault.partly || errors.Is(err, errStopped) && f.epoch == f.d.epoch && f.d.ops == f.d.fault.at {
			n = f.d.r.IntN(len(p) + 1)
		}
	} else if f.d.room >= 0 && int64(n) > f.d.room {
		n, err = int(f.d.room), errNoSpace
		if f.d.full++; f.d.full > 5 { // somebody makes room in the end
			f.d.room, f.d.full = -1, 0
		}
	}
	if f.d.room >= 0 {
		f.d.room -= int64(n)
	}
	if n > 0 {
		f.n.changes = append(f.n.changes, change{int64(len(f.n.data)), slices.Clone(p[:n])})
		f.n.data = append(f.n.data, p[:n]...)
	}
	return n, err
}

func (f *simFile) ReadAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *simFile) Close() error { return nil }

// sync that fails leaves what was to be written in memory only, and the kernel takes it for written.
func (f *simFile) sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	err := f.d.step(f.epoch)
	if err == nil {
		f.n.stable = slices.Clone(f.n.data)
	}
	if err == nil || !errors.Is(err, errStopped) {
		f.n.changes = nil
	}
	return err
}

func (f *simFile) truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.step(f.epoch); err != nil {
		return err
	}
	if cut := int64(len(f.n.data)) - size; cut > 0 && f.d.room >= 0 {
		f.d.room += cut
	}
	f.n.data = f.n.data[:min(size, int64(len(f.n.data)))]
	f.n.changes = append(f.n.changes, change{off: size})
	return nil
}

func (f *simFile) size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.n.data)), nil
}
