package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// cellsPin is the pin of the quick table in force beside that of host_cells, which tells nobody without CAP_SYS_ADMIN what it
// holds: the next process takes the counts from it. While another comes into force there are two. A table of another layout must
// have another name.
const cellsPin = "host_cells_now"

const nextPin = "host_cells_next"

// install has the programs ask a table. When it returns none asks the one before.
func (d *Datapath) install(t *quickTable) error {
	now, next := filepath.Join(d.plan.set, cellsPin), filepath.Join(d.plan.set, nextPin)
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("could not unpin %s: %w", next, err)
	}
	if err := t.m.Pin(next); err != nil {
		return fmt.Errorf("could not pin a quick table: %w", err)
	}
	if err := d.objects.HostCells.Put(uint32(0), t.m); err != nil {
		return fmt.Errorf("could not write map host_cells: %w", err)
	}
	if d.quick == nil { // an earlier process's, or none
		if err := takePinned(now, d.slots); err != nil {
			return err
		}
	}
	if err := os.Remove(now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("could not unpin %s: %w", now, err)
	}
	return t.m.Pin(now) // which moves it
}

// takeLeft takes what an earlier process's programs counted in quick tables.
func (d *Datapath) takeLeft() error {
	var errs []error
	for _, set := range []string{d.plan.last, d.plan.set} {
		if set == "" {
			continue
		}
		for _, pin := range []string{cellsPin, nextPin} {
			errs = append(errs, takePinned(filepath.Join(set, pin), d.slots))
		}
	}
	return errors.Join(errs...)
}

// takePinned takes what was counted in a pinned table, if it is there.
func takePinned(path string, slots *userSlots) error {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("could not open the pinned map %s: %w", path, err)
	}
	defer m.Close()
	if m.Type() != ebpf.Array || m.ValueSize() != uint32(unsafe.Sizeof(quickBucket{})) || m.Flags()&unix.BPF_F_MMAPABLE == 0 {
		return fmt.Errorf("could not read the counts in %s: it is no table of host_cells; remove it", path)
	}
	memory, err := mapArray(m, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return err
	}
	all := unsafe.Slice((*quickBucket)(unsafe.Pointer(&memory[0])), m.MaxEntries())
	mask := all[0].cell[0].addr
	t := &quickTable{buckets: all[1:min(mask+2, uint64(len(all)))], slots: slots}
	return errors.Join(t.takeAll(), unix.Munmap(memory))
}

// takeAll adds everything that was counted in the table to the users' slots.
func (t *quickTable) takeAll() (err error) {
	for i := range t.buckets {
		b := &t.buckets[i]
		for c := range b.count {
			if atomic.LoadUint32(&b.count[c]) != 0 {
				err = errors.Join(err, t.slots.take(b, c, atomic.LoadUint64(&b.cell[c].what)))
			}
		}
	}
	return err
}

// each tells what was counted in the table and is in nobody's slot yet.
func (t *quickTable) each(f func(user uint32, why mailUserReason, n uint32)) {
	for i := range t.buckets {
		b := &t.buckets[i]
		for c := range b.count {
			if n := atomic.LoadUint32(&b.count[c]); n != 0 {
				if what := atomic.LoadUint64(&b.cell[c].what); usual(what) != 0 {
					f(uint32(what), usual(what), n)
				}
			}
		}
	}
}

// usual is what a cell counts: connections that went as its mode says. 0: nothing.
func usual(what uint64) mailUserReason {
	if what>>mailNumberQUICK_BOUND&1 != 0 {
		return 0
	}
	switch Mode(what >> mailNumberQUICK_MODE & 7) {
	case ModePass, ModeObserve:
		return mailUserReasonUSER_PASSED
	case ModeShadow, ModeIntercept:
		return mailUserReasonUSER_INTERCEPTED
	}
	return 0
}

// take moves what a cell counted to the slot of whom it said that it was.
func (u *userSlots) take(b *quickBucket, cell int, what uint64) error {
	n := atomic.SwapUint32(&b.count[cell], 0)
	user := uint32(what)
	if n == 0 || int(user) >= len(u.all) {
		return nil
	}
	var count *uint32
	why := usual(what)
	switch why {
	case mailUserReasonUSER_PASSED:
		count = &u.all[user].Passed
	case mailUserReasonUSER_INTERCEPTED:
		count = &u.all[user].Intercepted
	default:
		return nil
	}
	if atomic.AddUint32(count, n) >= n {
		return nil
	}
	return u.carry(user, why)
}

// carry notes in user_counters that one of the small counters began anew, as the programs do.
func (u *userSlots) carry(user uint32, why mailUserReason) error {
	var c mailUserCounts
	if err := u.large.Lookup(user, &c); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("could not read map user_counters: %w", err)
	}
	c.N[why] += 1 << 32
	if err := u.large.Put(user, c); err != nil {
		return fmt.Errorf("could not write map user_counters: %w", err)
	}
	return nil
}
