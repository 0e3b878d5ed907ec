//go:build labtest

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holding measures how long mails are with the gateway, by packets beside the client and beside the destination: what
// those two take, on a machine that is full, is not the gateway's.
type holding struct {
	client, server netip.Addr
	near, far      *Capture
}

func watchHolding(ctx context.Context, t *testing.T, l *Lab, host string, client, server netip.Addr) *holding {
	t.Helper()
	h := &holding{client: client, server: server}
	var err error
	if h.near, err = l.Capture(ctx, host, "eth0", "tcp port 25 and host "+client.String()); err != nil {
		t.Fatal(err)
	}
	if h.far, err = l.Capture(ctx, HostInternet, "gw0", "tcp port 25 and host "+server.String()); err != nil {
		t.Fatal(err)
	}
	return h
}

// stop gives the times of all mails since, sorted, and tells of the longest where they were spent.
func (h *holding) stop(t *testing.T) (times []time.Duration) {
	t.Helper()
	near, err := h.near.Stop()
	if err != nil {
		t.Fatal(err)
	}
	far, err := h.far.Stop()
	if err != nil {
		t.Fatal(err)
	}
	held := heldTimes(near, far, h.client, h.server)
	slices.SortFunc(held, func(a, b heldTime) int { return cmp.Compare(a.all, b.all) })
	for _, m := range held[max(0, len(held)-3):] {
		t.Logf("held for %v, %v of it %s", m.all, m.longest, m.at)
	}
	for _, m := range held {
		times = append(times, m.all)
	}
	return times
}

// heldTime is how long a mail was with the gateway in all, and at the longest step, which began with what is told.
type heldTime struct {
	all, longest time.Duration
	at           string
}

func (m *heldTime) add(d time.Duration, at string) {
	if m.all += d; d > m.longest {
		m.longest, m.at = d, at
	}
}

// heldTimes adds up, connection by connection of the client, one after the other, how long the client waited for a word while
// the server owed none to the gateway. Beside the client the gateway speaks as the server.
func heldTimes(near, far Packets, client, server netip.Addr) (held []heldTime) {
	type event struct {
		at                time.Time
		near, came, fresh bool
		what              string
	}
	var all []event
	for _, p := range near {
		fresh := p.SYN && p.Src.Addr() == client
		if fresh || len(p.Payload) > 0 {
			all = append(all, event{p.Time, true, p.Src.Addr() == client, fresh, fmt.Sprintf("from the client's %.12q on", p.Payload)})
		}
	}
	for _, p := range far {
		if len(p.Payload) > 0 {
			all = append(all, event{p.Time, false, p.Src.Addr() == server, false, fmt.Sprintf("from the destination's %.12q on", p.Payload)})
		}
	}
	slices.SortStableFunc(all, func(a, b event) int { return a.at.Compare(b.at) })
	var since time.Time
	var what string
	waits, owes := false, false // the client, and the server
	for _, e := range all {
		if waits && !owes && !since.IsZero() {
			held[len(held)-1].add(e.at.Sub(since), what)
		}
		if e.fresh {
			held, owes = append(held, heldTime{}), false
		}
		if e.near {
			waits = e.came && len(held) > 0
		} else {
			owes = !e.came
		}
		since, what = e.at, e.what
	}
	return held
}

// TestHeldTimes: only what the gateway lets wait counts.
func TestHeldTimes(t *testing.T) {
	t.Parallel()
	client, server, gw := netip.MustParseAddrPort("192.0.2.10:4000"), netip.MustParseAddrPort("198.51.100.20:25"), netip.MustParseAddrPort("203.0.113.17:5000")
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	say := func(ms int, src, dst netip.AddrPort) Packet {
		return Packet{Time: at(ms), Src: src, Dst: dst, Payload: []byte("x")}
	}
	near := Packets{
		{Time: at(0), Src: client, Dst: server, SYN: true}, {Time: at(1), Src: server, Dst: client, SYN: true, ACK: true},
		say(2, server, client),                           // the greeting: 2 ms
		say(10, client, server), say(54, server, client), // 3 ms until it goes on, 4 ms for the way back
		{Time: at(100), Src: client, Dst: server, SYN: true}, say(105, server, client), // 5 ms
		say(200, client, server), say(203, server, client), // 3 ms: what the destination said before, nobody waited for
	}
	far := Packets{say(13, gw, server), say(50, server, gw), say(106, server, gw)}
	got := heldTimes(near, far, client.Addr(), server.Addr())
	want := []heldTime{{9 * time.Millisecond, 4 * time.Millisecond, `from the destination's "x" on`}, {8 * time.Millisecond, 5 * time.Millisecond, `from the client's "" on`}}
	if !slices.Equal(got, want) {
		t.Errorf("held %v, want %v", got, want)
	}
}

// takePrecedence gives a process the processors when it wants them, as if it had a machine of its own; clients and
// destinations, which are in this one, have what it leaves, and all others what is left then.
func takePrecedence(t *testing.T, pid int) {
	t.Helper()
	if err := errors.Join(prefer(pid, -20), prefer(os.Getpid(), -15)); err != nil {
		t.Fatal(err)
	}
}

// prefer sets a process's nice value, and that of its session, by which alone sessions compare where the kernel groups tasks by
// them (sched(7), autogroup).
func prefer(pid, nice int) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, e := range tasks {
		id, err := strconv.Atoi(e.Name())
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, id, nice)
		}
		if err != nil && err != unix.ESRCH { // a thread that has ended meanwhile
			return err
		}
	}
	err = os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), strconv.AppendInt(nil, int64(nice), 10), 0)
	if errors.Is(err, os.ErrNotExist) { // not grouped
		return nil
	}
	return err
}
