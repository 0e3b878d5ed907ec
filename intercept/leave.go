package intercept

import (
	"errors"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"sluice/bpf"
	"sluice/intercept/room"
)

const (
	leaveUnclaimed = 10 * time.Second // nobody hands a listening socket of the room back: no proxy outlived the change
	leaveAtMost    = 6 * time.Minute  // longer than a proxy lets sessions go on
)

// leaving is the way from programs to nftables: connections in the room, which nftables cannot reach, go on to their end.
type leaving struct {
	mu    sync.Mutex
	since time.Time  // zero: nothing is left to wait for
	room  *room.Room // once a proxy handed a listening socket back that stands there
}

// leaveBPF takes away what programs left in the kernel, once the room is empty. Until then they forward every fresh
// connection, which nftables gets by that.
func (e *Engine) leaveBPF() error {
	e.leaving.mu.Lock()
	defer e.leaving.mu.Unlock()
	if e.leaving.since.IsZero() {
		wait, err := e.onlyOpenFlows()
		if err != nil {
			return err
		}
		if wait {
			e.leaving.since = time.Now()
			e.log.Info("programs go on for the connections that are open")
			return nil
		}
	} else if busy, err := e.leaving.busy(); busy || err != nil {
		return err
	}
	e.leaving.since = time.Time{}
	if e.leaving.room != nil {
		e.leaving.room.Close()
		e.leaving.room = nil
	}
	return errors.Join(removeBPF(e.kernel, e.cfg.PinDir), room.RemoveDoors(0))
}

// onlyOpenFlows has programs that are attached bother with no fresh connection, and tells whether they lead to a room.
func (e *Engine) onlyOpenFlows() (bool, error) {
	d, err := bpf.OpenBypass(e.cfg.PinDir)
	if err != nil {
		return false, nil // nothing is pinned, or by a version that had no room
	}
	defer d.Close()
	at := d.Door().Index
	if at == 0 {
		return false, nil
	}
	if _, err := netlink.LinkByIndex(at); err != nil {
		return false, nil
	}
	if err := d.ReplaceBypasses([]bpf.Bypass{{Until: bpf.BypassForGood}}); err != nil {
		return false, err
	}
	return true, e.kernel.RemoveGuards(e.cfg.PinDir)
}

// busy tells whether there are connections in the room.
func (l *leaving) busy() (bool, error) {
	took := time.Since(l.since)
	if took > leaveAtMost || l.room == nil {
		return took < leaveUnclaimed, nil
	}
	found := false
	err := l.room.Do(func() error {
		list, err := tcpSockets()
		for _, s := range list {
			found = found || isOpen(s)
		}
		return err
	})
	return found, err
}

// handBack learns of the room from a listening socket that stands there.
func (l *leaving) handBack(f *os.File) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() || l.room != nil {
		return nil
	}
	var err error
	l.room, err = room.Of(f)
	return err
}

// pending tells whether a room has still to be learned of.
func (l *leaving) pending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.since.IsZero() && l.room == nil
}

// over tells whether nothing is left to wait for.
func (l *leaving) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since.IsZero()
}

func (l *leaving) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.room != nil {
		l.room.Close()
		l.room = nil
	}
}
