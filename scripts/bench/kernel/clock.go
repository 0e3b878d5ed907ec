package kernel

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// monotonic is the clock that the programs read, in nanoseconds.
func monotonic() (uint64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("could not read the monotonic clock: %w", err)
	}
	return uint64(ts.Nano()), nil
}

// putUint64 writes one field of the heartbeat as the programs read it: whole.
func putUint64(page []byte, v uint64) { atomic.StoreUint64((*uint64)(unsafe.Pointer(&page[0])), v) }

// processCPU is what the whole process used so far.
func processCPU() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("could not read the process's CPU clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// pinnedMemory is what the kernel says a pinned map takes.
func pinnedMemory(path string) (uint64, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return 0, fmt.Errorf("could not open the pinned map %s: %w", path, err)
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	n, known := info.Memlock()
	if !known {
		return 0, fmt.Errorf("could not learn what map %s takes: this kernel does not say", path)
	}
	return n, nil
}
