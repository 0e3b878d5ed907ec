package control

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Heartbeat writes into the one kernel map that the proxy gets: two 64-bit words of CLOCK_MONOTONIC nanoseconds, the
// last beat and the end of an announced restart. It does not depend on the helper being alive.
type Heartbeat struct {
	mu   sync.RWMutex // held for reading while the memory is touched, so that Close cannot unmap under a beat
	mem  []byte
	beat *atomic.Uint64
	rest *atomic.Uint64
}

// OpenHeartbeat maps the memory behind a descriptor of the heartbeat map; the file stays the caller's.
func OpenHeartbeat(f *os.File) (*Heartbeat, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("could not map the heartbeat: %w", err)
	}
	return &Heartbeat{
		mem:  mem,
		beat: (*atomic.Uint64)(unsafe.Pointer(&mem[0])),
		rest: (*atomic.Uint64)(unsafe.Pointer(&mem[8])),
	}, nil
}

// Monotonic returns CLOCK_MONOTONIC in nanoseconds, the clock that the kernel programs compare with.
func Monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // cannot happen: the clock exists on every Linux
	}
	return uint64(ts.Nano())
}

// Beat says that the accept loop really returned just now. It ends an announced restart.
func (h *Heartbeat) Beat() {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.mem == nil {
		return
	}
	h.beat.Store(Monotonic())
	if h.rest.Load() != 0 {
		h.rest.Store(0)
	}
}

// AnnounceRestart says that no beat will come for up to d (cut to MaxRestart after the last one) and that connections shall wait. Whoever
// announces must not beat afterwards.
func (h *Heartbeat) AnnounceRestart(d time.Duration) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.mem == nil {
		return
	}
	now := Monotonic()
	until := now + uint64(min(max(d, 0), MaxRestart))
	// The kernel counts the longest restart from the last beat and heeds none that ends later.
	if beat := h.beat.Load(); beat != 0 && beat <= now {
		until = min(until, beat+uint64(MaxRestart))
	}
	h.rest.Store(until)
}

// Last returns the last beat and the end of the announced restart as the kernel sees them, in CLOCK_MONOTONIC
// nanoseconds; 0 is never.
func (h *Heartbeat) Last() (beat, restartUntil uint64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.mem == nil {
		return 0, 0
	}
	return h.beat.Load(), h.rest.Load()
}

// Close lets the memory go; later beats do nothing.
func (h *Heartbeat) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mem == nil {
		return nil
	}
	mem := h.mem
	h.mem = nil
	return unix.Munmap(mem)
}
