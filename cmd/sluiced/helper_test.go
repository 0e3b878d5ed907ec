package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/cmd/internal/api"
	"sluice/intercept/control"
	"sluice/intercept/flow"
)

// listener makes a flow listener that accepts on its own port.
func listener(t *testing.T, f *os.File, port uint16) *flow.Listener {
	t.Helper()
	l, err := flow.NewListener(f, flow.Options{Ports: []uint16{port}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// waitFor waits until ok holds, at most a minute.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come about in a minute")
		}
	}
}

// fakeHelper is a sluice-intercept without a kernel.
type fakeHelper struct {
	path      string
	port      uint16
	heartbeat *os.File

	mu      sync.Mutex
	socket  *os.File // the listener, once it has one
	given   int      // listeners that were handed back
	sources []control.Source
	exempt  []control.Exemption
	refuse  error // of every change of sources and exemptions
	locks   map[uint32]control.Lock
	cancel  context.CancelFunc
	done    chan error
}

// start serves the control socket. It opens no listener when one is to be handed back.
func (h *fakeHelper) start(t *testing.T, socket *os.File) {
	t.Helper()
	l, err := control.Listen(h.path, os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.socket, h.locks = socket, map[uint32]control.Lock{}
	h.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel, h.done = cancel, make(chan error, 1)
	s := &control.Server{Handler: h, Allow: func(control.Peer) bool { return true }}
	go func() { h.done <- s.Serve(ctx, l) }()
}

func (h *fakeHelper) stop(t *testing.T) {
	t.Helper()
	h.cancel()
	if err := <-h.done; err != nil {
		t.Error(err)
	}
}

func (h *fakeHelper) Handle(_ context.Context, _ control.Peer, req *control.Request) (*control.Reply, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch req.Op {
	case control.OpHello:
		return h.hello(req)
	case control.OpUsers, control.OpPutUsers, control.OpExempt:
		return nil, h.change(req)
	case control.OpLock:
		h.locks[req.Lock.User] = *req.Lock
	case control.OpUnlock:
		delete(h.locks, req.User)
	case control.OpLocks:
		h.locks = map[uint32]control.Lock{}
		for _, l := range req.Locks {
			h.locks[l.User] = l
		}
	case control.OpStatus:
		return &control.Reply{Status: &control.Status{Helper: "fake", Path: "tcx", Heartbeat: "alive",
			Bypasses:   []control.Bypass{{Prefix: netip.MustParsePrefix("192.0.2.64/26"), Reason: "ticket 4711", By: "uid 0, pid 1"}},
			Interfaces: []control.Interface{{Name: "cust0", Role: "customer", Path: "tcx"}, {Name: "up0", Role: "uplink", Path: "tcx"}}}}, nil
	case control.OpCounters:
		return &control.Reply{Counters: map[string]uint64{"assigned": 3}}, nil
	}
	return &control.Reply{}, nil
}

func (h *fakeHelper) change(req *control.Request) error {
	if h.refuse != nil {
		return h.refuse
	}
	switch req.Op {
	case control.OpUsers:
		h.sources = req.Sources
	case control.OpExempt:
		h.exempt = req.Exemptions
	case control.OpPutUsers:
		h.sources = slices.DeleteFunc(h.sources, func(s control.Source) bool {
			return slices.Contains(req.Gone, s.Prefix) || slices.ContainsFunc(req.Sources, func(n control.Source) bool { return n.Prefix == s.Prefix })
		})
		h.sources = append(h.sources, req.Sources...)
	}
	return nil
}

// source is what the helper was told of exactly p.
func (h *fakeHelper) source(p string) (s control.Source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sources {
		if s.Prefix.String() == p {
			return s
		}
	}
	return s
}

func (h *fakeHelper) hello(req *control.Request) (*control.Reply, error) {
	for _, f := range req.Files {
		h.given++
		if h.socket == nil {
			h.socket = f
			continue
		}
		_ = f.Close()
	}
	if h.socket == nil {
		return nil, control.Errorf(control.CodeNotReady, "nobody gave the listener back")
	}
	w := &control.Welcome{Helper: "fake", Path: "tcx", Ports: []uint16{h.port}}
	return &control.Reply{Welcome: w, Names: []string{"smtp", "heartbeat"}, Files: []*os.File{h.socket, h.heartbeat}}, nil
}

func (h *fakeHelper) locked() (n int, l control.Lock) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l = range h.locks {
		n++
	}
	return n, l
}

// memory stands in for the heartbeat's map.
func memory(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("heartbeat", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "heartbeat")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	return f
}

// beat reads the heartbeat as the kernel would.
func beat(t *testing.T, f *os.File) (last, restart uint64) {
	t.Helper()
	b := make([]byte, 16)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	word := func(b []byte) (n uint64) {
		for i := 7; i >= 0; i-- {
			n = n<<8 | uint64(b[i])
		}
		return n
	}
	return word(b), word(b[8:])
}

// TestHelperComesAndGoes: the daemon waits for its helper, tells it users and locks, goes on accepting when it dies,
// and gives the listener back to the next one.
func TestHelperComesAndGoes(t *testing.T) {
	t.Parallel()
	g := newGateway(t, user)
	systemd, told := notified(t)
	g.systemd = systemd
	f, port := g.socket()
	g.run(nil, 0)
	st := get[api.Status](g, "/v1/status")
	if st.Accepting || st.Helper.Connected {
		t.Errorf("before the helper is there: %+v", st)
	}
	h := &fakeHelper{path: filepath.Join(g.dir, "control.sock"), port: port, heartbeat: memory(t)}
	h.start(t, f)
	waitFor(t, func() bool { return get[api.Status](g, "/v1/status").Accepting })
	if b := get[api.Status](g, "/v1/status").Helper.Bypasses; len(b) != 1 || b[0].Prefix != "192.0.2.64/26" || b[0].Until != nil || b[0].Reason != "ticket 4711" {
		t.Errorf("bypasses %+v", b)
	}
	h.mu.Lock()
	if len(h.sources) != 1 || h.sources[0].Prefix != netip.MustParsePrefix("127.0.0.0/8") || h.sources[0].User == 0 || h.sources[0].Mode != 0 {
		t.Errorf("the kernel was told %+v", h.sources)
	}
	h.mu.Unlock()
	last, _ := beat(t, h.heartbeat)
	waitFor(t, func() bool { next, _ := beat(t, h.heartbeat); return next > last })

	c := g.dial()
	c.say("EHLO x.example", "250")
	for i := range 5 {
		c.mail("bob@mx.example", fmt.Sprintf(gtube, i))
	}
	if n, l := h.locked(); n != 1 || len(l.Prefixes) != 1 || l.PerMinute != 10 || l.Until.IsZero() {
		t.Errorf("after the fifth answer the kernel holds %d locks, %+v", n, l)
	}

	// The helper dies: accepting and beating go on.
	h.stop(t)
	waitFor(t, func() bool { return !get[api.Status](g, "/v1/status").Helper.Connected })
	last, _ = beat(t, h.heartbeat)
	waitFor(t, func() bool { next, _ := beat(t, h.heartbeat); return next > last })
	g.dial().say("QUIT", "221")
	var l api.Lock
	if err := g.api.Do(t.Context(), "POST", "/v1/lock", api.LockRequest{User: "alice", Reason: "longer", Seconds: 7200}, &l); err != nil || l.Warning == "" {
		t.Errorf("without the helper a lock is told as %+v, %v", l, err)
	}

	// The next one gets the listener back, and the lock.
	h.start(t, nil)
	waitFor(t, func() bool { return get[api.Status](g, "/v1/status").Helper.Connected })
	waitFor(t, func() bool { n, _ := h.locked(); return n == 1 })
	h.mu.Lock()
	if h.given == 0 {
		t.Error("no listener was handed back")
	}
	h.mu.Unlock()
	g.dial().say("QUIT", "221")
	if err := g.api.Do(t.Context(), "POST", "/v1/unlock", api.UnlockRequest{User: "alice"}, nil); err != nil {
		t.Fatal(err)
	}
	if n, _ := h.locked(); n != 0 {
		t.Error("the kernel still holds the lock")
	}
	// A lock by hand may cut what is open, also of an address that has never sent.
	open := g.dial()
	if err := g.api.Do(t.Context(), "POST", "/v1/lock", api.LockRequest{User: "alice", Reason: "test", Cut: true}, nil); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(open.r); err != nil || !strings.HasPrefix(string(b), "421 4.7.1") {
		t.Errorf("the cut connection got %q (%v), want 421 and the end", b, err)
	}
	if n, l := h.locked(); n != 1 || !l.CutFlows {
		t.Errorf("the kernel was told %+v", l)
	}
	var made api.Lock
	if err := g.api.Do(t.Context(), "POST", "/v1/lock", api.LockRequest{User: "192.0.2.77", Reason: "test", Seconds: 60}, &made); err != nil {
		t.Fatal(err)
	}
	if made.User != "192.0.2.77/32" || made.Until == nil {
		t.Errorf("locked %+v", made)
	}
	if k := get[api.Counters](g, "/v1/counters"); k.Kernel["assigned"] != 3 || k.Daemon["accepted"] < 3 {
		t.Errorf("counters %+v", k)
	}
	fs := get[[]api.Finding](g, "/v1/doctor")
	for _, f := range fs {
		if f.State == api.Fail {
			t.Errorf("doctor found %+v", f)
		}
	}

	g.end()
	if _, restart := beat(t, h.heartbeat); restart == 0 {
		t.Error("the planned end was not announced")
	}
	last, _ = beat(t, h.heartbeat)
	// The socket is still the helper's: a connection waits there instead of being refused.
	w, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Errorf("between two runs a connection was refused: %v", err)
	} else {
		_ = w.Close()
	}
	if next, _ := beat(t, h.heartbeat); next != last {
		t.Error("it beat after its end")
	}
	h.stop(t)
	if err := h.socket.Close(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"FDSTOREREMOVE=1", "FDSTORE=1", "READY=1", "STATUS=accepting", "STOPPING=1"} {
		if got, _ := told(); !strings.HasPrefix(got, want) {
			t.Errorf("systemd was told %q, want %s", got, want)
		}
	}
}

// TestListenerOutlivesBothRestartsAtOnce: a new helper has just come when the daemon is told to end.
func TestListenerOutlivesBothRestartsAtOnce(t *testing.T) {
	t.Parallel()
	g := newGateway(t, user)
	f, port := g.socket()
	g.run(nil, 0)
	h := &fakeHelper{path: filepath.Join(g.dir, "control.sock"), port: port, heartbeat: memory(t)}
	h.start(t, f)
	waitFor(t, func() bool { return get[api.Status](g, "/v1/status").Accepting })
	h.stop(t)
	lost := time.Now()
	waitFor(t, func() bool { return !get[api.Status](g, "/v1/status").Helper.Connected })
	// By then the daemon tries again after long pauses only.
	waitFor(t, func() bool { return time.Since(lost) > 900*time.Millisecond })
	h.start(t, nil)
	g.stop()
	if err := <-g.done; err != nil {
		t.Error(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.given == 0 {
		t.Error("the daemon ended with the only copy of the listening socket")
	}
}
