package park

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sweepEvery is how often it is looked whose moment has passed: what waits here waits for minutes.
const sweepEvery = time.Second

// events is how many connections are woken by one look at the kernel's list.
const events = 128

// Lot watches all parked connections. It is safe for concurrent use.
type Lot struct {
	file *os.File
	raw  syscall.RawConn
	mu   sync.Mutex
	at   []*Place // by descriptor
	n    int
	done chan struct{}
}

// New opens a Lot.
func New() (*Lot, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // so that the runtime's poller waits for it, not a thread
	}
	if err != nil {
		return nil, fmt.Errorf("could not make a list of idle connections: %w", err)
	}
	l := &Lot{file: os.NewFile(uintptr(fd), "idle connections"), done: make(chan struct{})}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		return nil, fmt.Errorf("could not make a list of idle connections: %w", err)
	}
	go l.watch()
	return l, nil
}

// Close ends the watching; nobody is woken any more but by Wake.
func (l *Lot) Close() error {
	err := l.file.Close()
	<-l.done
	return err
}

// Parked returns how many connections are parked.
func (l *Lot) Parked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// Park leaves the connection of p until it can be read, its peer has closed it, until has passed, or Wake is called. With
// true it belongs to whoever is resumed, who may run already; with false it could not be parked.
func (l *Lot) Park(p *Place, until time.Time) bool {
	p.lot, p.until = l, until.UnixNano()
	registered := false
	err := p.Raw.Control(func(fd uintptr) {
		p.fd = int32(fd)
		l.put(p)
		p.parked.Store(true) // from here on it may be woken
		err := unix.EpollCtl(l.fd(), unix.EPOLL_CTL_ADD, int(fd),
			&unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(fd)})
		registered = err == nil
	})
	if err == nil && registered {
		return true
	}
	if !p.claim() {
		return err == nil // somebody woke it meanwhile
	}
	l.drop(p)
	return false
}

// fd returns the descriptor of the list; that of a closed one is refused by the kernel.
func (l *Lot) fd() int {
	n := -1
	_ = l.raw.Control(func(fd uintptr) { n = int(fd) })
	return n
}

func (l *Lot) put(p *Place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for int(p.fd) >= len(l.at) {
		l.at = append(l.at, make([]*Place, max(64, int(p.fd)+1-len(l.at)))...)
	}
	if l.at[p.fd] == nil { // else its socket was closed under it, and it is about to be woken
		l.n++
	}
	l.at[p.fd] = p
}

func (l *Lot) drop(p *Place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int(p.fd) < len(l.at) && l.at[p.fd] == p {
		l.at[p.fd] = nil
		l.n--
	}
}

// Wake resumes who waits at p, if he does.
func (p *Place) Wake() {
	if !p.claim() {
		return
	}
	p.lot.drop(p)
	// The socket is watched no more, so that one that is busy again costs nothing here; a closed one is out already.
	_ = p.Raw.Control(func(fd uintptr) { _ = unix.EpollCtl(p.lot.fd(), unix.EPOLL_CTL_DEL, int(fd), nil) })
	go p.Who.Resume()
}

// watch wakes who can be read and whose moment has passed, until the Lot is closed.
func (l *Lot) watch() {
	defer close(l.done)
	var list [events]unix.EpollEvent
	var ready []*Place
	last := time.Now()
	for {
		n := 0
		if l.file.SetReadDeadline(last.Add(sweepEvery)) != nil {
			return
		}
		err := l.raw.Read(func(fd uintptr) bool {
			var err error
			if n, err = unix.EpollWait(int(fd), list[:], 0); err == unix.EINTR {
				n = 0
			}
			return n > 0
		})
		if err != nil && !os.IsTimeout(err) {
			return
		}
		ready = l.pick(ready[:0], list[:max(n, 0)])
		if now := time.Now(); now.Sub(last) >= sweepEvery {
			last = now
			ready = l.overdue(ready, now)
		}
		for i, p := range ready {
			p.Wake()
			ready[i] = nil
		}
	}
}

// pick appends the places of events to list.
func (l *Lot) pick(list []*Place, all []unix.EpollEvent) []*Place {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range all {
		if int(e.Fd) < len(l.at) && l.at[e.Fd] != nil {
			list = append(list, l.at[e.Fd])
		}
	}
	return list
}

// overdue appends the places whose moment has passed to list.
func (l *Lot) overdue(list []*Place, now time.Time) []*Place {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == 0 {
		return list
	}
	for _, p := range l.at {
		if p != nil && p.Overdue(now) {
			list = append(list, p)
		}
	}
	return list
}
