package control

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// urgent writes locks that are on their way to the helper where the kernel's programs see them at once: waking another
// process takes longer than all the rest of a lock. It can lock, which this process may do anyway, and nothing else.
type urgent struct {
	mu   sync.Mutex
	mem  []byte
	used [UrgentLocks]bool
	n    int
}

// urgentFor is how long the kernel heeds one whose author has died meanwhile.
const urgentFor = 5 * time.Second

// openUrgent maps the memory behind a descriptor of the map; the file stays the caller's.
func openUrgent(f *os.File) (*urgent, error) {
	size := (1 + UrgentLocks) * int(unsafe.Sizeof(Urgent{}))
	page := os.Getpagesize()
	mem, err := unix.Mmap(int(f.Fd()), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("could not map the urgent locks: %w", err)
	}
	u := &urgent{mem: mem}
	now := Monotonic()
	for i := range 1 + UrgentLocks { // of a process that has died
		if w := word(&u.at(i).LimitNs); w.Load() <= now {
			w.Store(0)
		}
	}
	return u, nil
}

// at is an element of the map; the first is no lock.
func (u *urgent) at(i int) *Urgent {
	return (*Urgent)(unsafe.Pointer(&u.mem[i*int(unsafe.Sizeof(Urgent{}))]))
}

func word(w *uint64) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(w)) }

// put has a lock in force on as many of its prefixes as there is room for, until the function that it returns is called.
func (u *urgent) put(l Lock) (end func()) {
	if u == nil {
		return func() {}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var mine []int
	for _, p := range l.Prefixes {
		if i := u.free(); i >= 0 && u.mem != nil {
			u.write(1+i, p, l)
			u.used[i] = true
			mine = append(mine, i)
		}
	}
	u.n += len(mine)
	return func() { u.end(mine) }
}

// free is a place that this process does not use, nor another one that it follows; -1: none.
func (u *urgent) free() int {
	for i, used := range u.used {
		if !used && u.mem != nil && word(&u.at(1+i).LimitNs).Load() == 0 {
			return i
		}
	}
	return -1
}

// write fills a place; what makes it valid comes last.
func (u *urgent) write(i int, p netip.Prefix, l Lock) {
	e, now := u.at(i), Monotonic()
	e.Set(p, l.User, uint16(min(l.PerMinute, 1<<16-1)), !l.CutFlows)
	if !l.Until.IsZero() {
		e.Lock.UntilNs = now + uint64(max(time.Until(l.Until), 1))
	}
	limit := now + uint64(urgentFor)
	word(&u.at(0).LimitNs).Store(limit)
	word(&e.LimitNs).Store(limit)
	word(&e.SinceNs).Store(Monotonic())
}

// end gives places back.
func (u *urgent) end(mine []int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, i := range mine {
		u.used[i] = false
		if u.mem != nil {
			word(&u.at(1 + i).LimitNs).Store(0)
		}
	}
	if u.n -= len(mine); u.n == 0 && u.mem != nil {
		word(&u.at(0).LimitNs).Store(0)
	}
}

// close lets the memory go; what is in force there ends first.
func (u *urgent) close() {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.mem == nil {
		return
	}
	for i, used := range u.used {
		if used {
			word(&u.at(1 + i).LimitNs).Store(0)
		}
	}
	word(&u.at(0).LimitNs).Store(0)
	mem := u.mem
	u.mem = nil
	_ = unix.Munmap(mem) // it was mapped
}
