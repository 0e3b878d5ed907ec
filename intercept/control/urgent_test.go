package control

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hurried is a helper that gives urgent locks a place, and looks there when it hears of a lock.
type hurried struct {
	lockBook
	file *os.File
	page *urgent
	saw  chan []Urgent // elements in force
}

func (h *hurried) Handle(ctx context.Context, p Peer, r *Request) (*Reply, error) {
	switch r.Op {
	case OpLane:
		return LaneReply(h.file), nil
	case OpLock:
		h.saw <- inForce(h.page)
	}
	return h.lockBook.Handle(ctx, p, r)
}

func inForce(u *urgent) (all []Urgent) {
	for i := 1; i <= UrgentLocks; i++ {
		if e := *u.at(i); e.LimitNs != 0 {
			all = append(all, e)
		}
	}
	return all
}

func serveHurried(t *testing.T) (*hurried, *Client) {
	t.Helper()
	fd, err := unix.MemfdCreate("urgent", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	h := &hurried{lockBook: lockBook{locks: map[uint32]Lock{}}, file: os.NewFile(uintptr(fd), "urgent"), saw: make(chan []Urgent, 10)}
	t.Cleanup(func() { h.file.Close() })
	if err := h.file.Truncate(int64((1 + UrgentLocks) * int(unsafe.Sizeof(Urgent{})))); err != nil {
		t.Fatal(err)
	}
	if h.page, err = openUrgent(h.file); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := Listen(path, unix.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- (&Server{Handler: h, Allow: func(Peer) bool { return true }}).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	c, _, err := Dial(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return h, c
}

// A lock is in force before the helper hears of it, and in the helper's hands alone once it has answered, also when it
// refuses.
func TestUrgentLocks(t *testing.T) {
	t.Parallel()
	h, c := serveHurried(t)
	for _, l := range append(laneLocks, Lock{User: 13, Prefixes: laneLocks[0].Prefixes}) {
		err := c.Lock(t.Context(), l)
		if (err != nil) != (l.User == 13) {
			t.Error(err)
		}
		saw := <-h.saw
		if len(saw) != len(l.Prefixes) {
			t.Fatalf("user %d: the helper saw %d in force, want %d", l.User, len(saw), len(l.Prefixes))
		}
		now := Monotonic()
		for i, e := range saw {
			var want Urgent
			want.Set(l.Prefixes[i], l.User, uint16(min(l.PerMinute, 1<<16-1)), !l.CutFlows)
			left := time.Duration(e.LimitNs - now)
			if e.Addr != want.Addr || e.Mask != want.Mask || e.Family != want.Family || e.Lock.Id != want.Lock.Id || e.Lock.Bits != want.Lock.Bits ||
				e.Lock.Budget != want.Lock.Budget || e.Lock.Flags != want.Lock.Flags || (e.Lock.UntilNs == 0) != l.Until.IsZero() ||
				left > urgentFor || e.SinceNs == 0 || e.SinceNs > now {
				t.Errorf("user %d: in force was %+v", l.User, e)
			}
		}
		if left := inForce(h.page); len(left) != 0 || h.page.at(0).LimitNs != 0 {
			t.Errorf("user %d: afterwards %+v are in force", l.User, left)
		}
	}
}

// Locks of more prefixes than there is room for take their way, and what a process that died left is cleared.
func TestUrgentLocksAreBounded(t *testing.T) {
	t.Parallel()
	h, c := serveHurried(t)
	many := Lock{User: 5}
	for i := range 3 * UrgentLocks {
		many.Prefixes = append(many.Prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32))
	}
	if err := c.Lock(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	if saw := <-h.saw; len(saw) != UrgentLocks {
		t.Errorf("%d were in force, want %d", len(saw), UrgentLocks)
	}
	if got, _ := h.get(5); len(got.Prefixes) != len(many.Prefixes) {
		t.Errorf("the helper has %d prefixes", len(got.Prefixes))
	}
	mine := h.page.put(laneLocks[0]) // another process's, at the same time
	if err := c.Lock(t.Context(), laneLocks[0]); err != nil {
		t.Fatal(err)
	}
	if saw := <-h.saw; len(saw) != 2*len(laneLocks[0].Prefixes) {
		t.Errorf("beside another process %d were in force", len(saw))
	}
	if saw := inForce(h.page); len(saw) != len(laneLocks[0].Prefixes) {
		t.Errorf("another process's are %d", len(saw))
	}
	mine()
	dead := h.page.at(3)
	dead.Set(netip.MustParsePrefix("192.0.2.1/32"), 9, 0, false)
	dead.LimitNs, h.page.at(0).LimitNs = Monotonic()-1, Monotonic()-1
	again, err := openUrgent(h.file)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if saw := inForce(h.page); len(saw) != 0 || h.page.at(0).LimitNs != 0 {
		t.Errorf("a dead process's are still there: %+v", saw)
	}
	again.close()
	again.put(many)() // does nothing, and no harm
}
