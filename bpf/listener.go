package bpf

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
)

// SetListener puts a listening socket into the slot that fresh connections go to; the one before is replaced at once. The
// socket must be IP_TRANSPARENT, dual-stack, and neither MPTCP nor SO_REUSEPORT. The slot empties by itself when the last
// copy of the socket is closed.
func (d *Datapath) SetListener(l syscall.Conn) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return fmt.Errorf("could not reach the listening socket: %w", err)
	}
	var put error
	err = raw.Control(func(fd uintptr) { put = d.SetListenerFD(int(fd)) })
	return errors.Join(err, put)
}

// SetListenerFD is SetListener for a bare descriptor, which stays the caller's.
func (d *Datapath) SetListenerFD(fd int) error {
	if err := d.objects.Listeners.Put(uint32(0), uint64(fd)); err != nil {
		return fmt.Errorf("could not put the listening socket into its slot: %w; an MPTCP socket is refused", err)
	}
	return nil
}

// ClearListener empties the slot; an empty one is no error.
func (d *Datapath) ClearListener() error {
	if err := d.objects.Listeners.Delete(uint32(0)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("could not empty the listener's slot: %w", err)
	}
	return nil
}

// HasListener tells whether the slot is filled.
func (d *Datapath) HasListener() (bool, error) {
	cookie, err := d.Listener()
	return cookie != 0, err
}

// Listener gives the cookie (SO_COOKIE) of the socket in the slot, or 0 if that is empty.
func (d *Datapath) Listener() (cookie uint64, err error) {
	err = d.objects.Listeners.Lookup(uint32(0), &cookie)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("could not read the listener's slot: %w", err)
	}
	return cookie, nil
}

// HeartbeatFD is the descriptor of the map that the proxy may mmap and write (see sluice.h, struct heartbeat). It is valid
// until Close.
func (d *Datapath) HeartbeatFD() int { return d.objects.Heartbeat.FD() }

// HeartbeatFile is a copy of HeartbeatFD to be passed on. It is valid until Close.
func (d *Datapath) HeartbeatFile() *os.File { return d.heart }

// UrgentFile is a copy of the descriptor of the map that the proxy may mmap and write locks into which are on their way
// (see sluice.h, struct urgent). It is valid until Close.
func (d *Datapath) UrgentFile() *os.File { return d.hurry }

// Heartbeat is what the programs know about the proxy.
type Heartbeat struct {
	Beaten     bool          // it beat at least once since the map was made
	Age        time.Duration // since the last beat
	Restarting time.Duration // left of an announced restart, or 0
}

// Heartbeat reads the proxy's sign of life.
func (d *Datapath) Heartbeat() (Heartbeat, error) {
	var v mailHeartbeat
	if err := d.objects.Heartbeat.Lookup(uint32(0), &v); err != nil {
		return Heartbeat{}, fmt.Errorf("could not read map heartbeat: %w", err)
	}
	now, err := monotonic()
	if err != nil {
		return Heartbeat{}, err
	}
	h := Heartbeat{Beaten: v.BeatNs != 0}
	if v.BeatNs != 0 && now > v.BeatNs {
		h.Age = time.Duration(now - v.BeatNs)
	}
	if v.RestartUntilNs > now {
		h.Restarting = time.Duration(v.RestartUntilNs - now)
	}
	return h, nil
}
