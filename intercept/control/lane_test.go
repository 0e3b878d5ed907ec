package control

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lockBook is a helper that only keeps locks, and refuses user 13.
type lockBook struct {
	mu    sync.Mutex
	locks map[uint32]Lock
	asked int
}

func (h *lockBook) Handle(_ context.Context, _ Peer, r *Request) (*Reply, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	switch {
	case r.Op == OpHello:
		return WelcomeReply(Welcome{Helper: "test"}, nil, nil), nil
	case r.Op == OpLock && r.Lock.User == 13:
		return nil, Errorf(CodeFailed, "could not lock %d: bad luck", 13)
	case r.Op == OpLock:
		h.locks[r.Lock.User] = *r.Lock
	case r.Op == OpUnlock:
		delete(h.locks, r.User)
	}
	return nil, nil
}

func (h *lockBook) get(user uint32) (Lock, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l, ok := h.locks[user]
	return l, ok
}

// serveBook runs a helper until stop.
func serveBook(t *testing.T) (h *lockBook, path string, stop func()) {
	t.Helper()
	h, path = &lockBook{locks: map[uint32]Lock{}}, filepath.Join(t.TempDir(), "c.sock")
	l, err := Listen(path, unix.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Handler: h, Allow: func(Peer) bool { return true }}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("the server does not end: a lane holds it")
		}
	})
	t.Cleanup(stop)
	return h, path, stop
}

var laneLocks = []Lock{
	{User: 7, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/29"), netip.MustParsePrefix("2001:db8:1::/64")}, Until: time.Unix(0, 1900000000123456789), PerMinute: 10, CutFlows: true},
	{User: 1<<32 - 1, Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, PerMinute: 1 << 16},
	{User: 1, Prefixes: []netip.Prefix{}},
}

func TestLaneCarriesLocks(t *testing.T) {
	t.Parallel()
	h, path, stop := serveBook(t)
	c, _, err := Dial(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.lane.Load() == nil {
		t.Fatal("there is no lane")
	}
	for _, l := range laneLocks {
		if err := c.Lock(t.Context(), l); err != nil {
			t.Error(err)
		}
		if got, ok := h.get(l.User); !ok || !reflect.DeepEqual(got, l) {
			t.Errorf("the helper has %+v, want %+v", got, l)
		}
		if err := c.Unlock(t.Context(), l.User); err != nil {
			t.Error(err)
		}
		if _, ok := h.get(l.User); ok {
			t.Errorf("user %d is still locked", l.User)
		}
	}
	var e *Error
	if err := c.Lock(t.Context(), Lock{User: 13}); !errors.As(err, &e) || e.Code != CodeFailed || e.Text != "could not lock 13: bad luck" {
		t.Errorf("a refusal is %v", err)
	}
	var wg sync.WaitGroup
	for i := range uint32(8) {
		wg.Go(func() {
			for range 100 {
				if err := errors.Join(c.Lock(t.Context(), Lock{User: 100 + i}), c.Unlock(t.Context(), 100+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if c.lane.Load() == nil {
		t.Error("the lane was left")
	}
	stop()
	if err := c.Lock(t.Context(), laneLocks[0]); !errors.Is(err, ErrLost) {
		t.Errorf("without the helper: %v", err)
	}
	select {
	case <-c.Lost():
	case <-time.After(time.Minute):
		t.Error("nobody says that the helper is gone")
	}
}

// A lane that breaks is left, and the lock takes the other way.
func TestLockGoesOnWithoutLane(t *testing.T) {
	t.Parallel()
	h, path, _ := serveBook(t)
	c, _, err := Dial(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.lane.Load().shut()
	if err := c.Lock(t.Context(), laneLocks[0]); err != nil {
		t.Error(err)
	}
	if got, _ := h.get(7); !got.Until.Equal(laneLocks[0].Until) || c.lane.Load() != nil {
		t.Errorf("the helper has %+v, the lane is %v", got, c.lane.Load())
	}
}

func TestLaneIsForLocksOnly(t *testing.T) {
	t.Parallel()
	good := appendLane(nil, &Request{ID: 9, Op: OpLock, Lock: &laneLocks[0]})
	unlock := appendLane(nil, &Request{ID: 9, Op: OpUnlock, User: 5})
	change := func(b []byte, at int, to byte) []byte { b = bytes.Clone(b); b[at] = to; return b }
	if r, err := parseLane(good); err != nil || r.ID != 9 || !reflect.DeepEqual(*r.Lock, laneLocks[0]) {
		t.Errorf("read back %+v, %v", r, err)
	}
	for what, b := range map[string][]byte{
		"nothing": nil, "short": good[:12], "half a lock": good[:20], "half a prefix": good[:len(good)-1], "JSON": []byte(`{"v":1,"id":2,"op":"status"}`),
		"bytes behind an unlock": append(bytes.Clone(unlock), 0), "nobody unlocked": appendLane(nil, &Request{Op: OpUnlock}), "nobody locked": appendLane(nil, &Request{Op: OpLock, Lock: &Lock{}}),
		"unknown kind": change(good, 0, 3), "unknown flag": change(good, 25, 2), "unknown family": change(good, 27, 5), "bits beyond the prefix": change(good, 26, 8), "a length beyond the address": change(good, 26, 33),
		"bytes behind an IPv4 address": change(good, 40, 1), "too many a minute": change(good, 21, 1),
	} {
		if r, err := parseLane(b); !errors.Is(err, errMessage) {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
	for _, b := range [][]byte{nil, {1, 2, 3}, append(appendLaneReply(nil, 1, nil), 9, 'x')} {
		if _, _, err := parseLaneReply(b); err == nil {
			t.Errorf("the answer %v was read", b)
		}
	}
	if _, e, err := parseLaneReply(appendLaneReply(nil, 1, Errorf(CodeFailed, "%s", strings.Repeat("x", 1<<17)))); err != nil || e.Code != CodeFailed || len(e.Text) != 4096 {
		t.Errorf("a long refusal: %v", err)
	}
}

// A peer that says something else in a lane is cut off.
func TestLaneCutsOffWhoBreaksTheRules(t *testing.T) {
	t.Parallel()
	_, path, _ := serveBook(t)
	l, err := openLane(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if _, err := l.exchange([]byte(`{"v":1,"id":2,"op":"unlock","user":7}`)); !errors.Is(err, ErrLost) {
		t.Errorf("the helper answered: %v", err)
	}
}
