package control

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeHelper records what it is asked and answers from its fields.
type fakeHelper struct {
	mu        sync.Mutex
	reqs      []*Request
	listeners []Listener
	heartbeat *os.File
	socket    func(*Connect) (*os.File, error)
	users     []UserCount
}

func (h *fakeHelper) Handle(_ context.Context, _ Peer, r *Request) (*Reply, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reqs = append(h.reqs, r)
	switch r.Op {
	case OpHello:
		for i, f := range r.Files {
			h.listeners = append(h.listeners, Listener{r.Names[i], f})
		}
		if len(h.listeners) == 0 {
			return nil, Errorf(CodeNotReady, "no listener yet")
		}
		return WelcomeReply(Welcome{Helper: "test", Path: "tcx"}, h.listeners, h.heartbeat), nil
	case OpUsers:
		for _, s := range r.Sources {
			if s.Mode < Intercept {
				return nil, Errorf(CodeCeiling, "%v may not be %v", s.Prefix, s.Mode)
			}
		}
		return nil, nil
	case OpConnect:
		f, err := h.socket(r.Connect)
		if err != nil {
			return nil, err
		}
		return &Reply{Files: []*os.File{f}, CloseFiles: true}, nil
	case OpUserCounters:
		return &Reply{Users: h.users}, nil
	case OpCounters:
		return &Reply{Counters: map[string]uint64{"syn": 3}}, nil
	case OpStatus:
		return &Reply{Status: &Status{Helper: "test", PID: os.Getpid()}}, nil
	}
	return nil, nil
}

func (h *fakeHelper) last() *Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reqs[len(h.reqs)-1]
}

// serve starts a server and returns its path.
func serve(t testing.TB, h Handler, allow func(Peer) bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := Listen(path, os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	srv := &Server{Handler: h, Allow: allow, Logf: t.Logf}
	go func() { done <- srv.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func anyone(Peer) bool { return true }

func tcpListener(t testing.TB) (*net.TCPListener, *os.File) {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); f.Close() })
	return l.(*net.TCPListener), f
}

func memfd(t testing.TB) *os.File {
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

func TestListenersAndHeartbeatCross(t *testing.T) {
	t.Parallel()
	_, lf := tcpListener(t)
	h := &fakeHelper{heartbeat: memfd(t)}
	path := serve(t, h, anyone)
	ctx := context.Background()

	_, _, err := Dial(ctx, path, nil)
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeNotReady {
		t.Fatalf("dial before a listener exists: %v", err)
	}
	c, w, err := Dial(ctx, path, []Listener{{"smtp", lf}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if len(w.Listeners) != 1 || w.Listeners[0].Name != "smtp" || !SameSocket(w.Listeners[0].File, lf) {
		t.Fatalf("listeners = %v", w.Listeners)
	}
	defer w.Listeners[0].File.Close()
	flags, err := unix.FcntlInt(rawFd(w.Listeners[0].File), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("passed listener is not close-on-exec: %v %v", flags, err)
	}
	seen, err := OpenHeartbeat(h.heartbeat)
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	before := Monotonic()
	w.Heartbeat.AnnounceRestart(time.Hour)
	if _, until := seen.Last(); until < before || until > Monotonic()+uint64(MaxRestart) {
		t.Errorf("announced until %d, now %d: not cut to %v", until, before, MaxRestart)
	}
	w.Heartbeat.Beat()
	beat, until := seen.Last()
	if beat < before || until != 0 {
		t.Errorf("beat %d until %d", beat, until)
	}
	w.Heartbeat.AnnounceRestart(MaxRestart)
	if _, until := seen.Last(); until != beat+uint64(MaxRestart) { // the kernel heeds nothing beyond
		t.Errorf("announced until %d after a beat at %d", until, beat)
	}
	if err := w.Heartbeat.Close(); err != nil {
		t.Error(err)
	}
	w.Heartbeat.Beat() // must not touch unmapped memory
}

func TestListsCrossWhole(t *testing.T) {
	t.Parallel()
	_, lf := tcpListener(t)
	h := &fakeHelper{listeners: []Listener{{"smtp", lf}}}
	c, w, err := Dial(context.Background(), serve(t, h, anyone), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer w.Listeners[0].File.Close()
	sources := make([]Source, 2001)
	for i := range sources {
		a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, byte(i >> 8), byte(i)})
		sources[i] = Source{Prefix: netip.PrefixFrom(a, 128), User: 1<<32 - 1, Mode: Intercept, Fail: Closed, Until: time.Unix(1900000000, 999999999).UTC()}
	}
	if err := c.SetUsers(context.Background(), sources); err != nil {
		t.Fatal(err)
	}
	if r := h.last(); len(r.Sources) != len(sources) || r.Sources[2000] != sources[2000] {
		t.Errorf("%d sources arrived", len(r.Sources))
	}
	sources[1500].Mode = Pass
	err = c.SetUsers(context.Background(), sources)
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeCeiling || !strings.Contains(e.Text, sources[1500].Prefix.String()) {
		t.Errorf("loosening: %v", err)
	}
	full := Lock{User: 1<<32 - 1, Until: time.Now().Add(time.Hour), PerMinute: 10}
	for _, s := range sources[:MaxLockPrefixes] {
		full.Prefixes = append(full.Prefixes, s.Prefix)
	}
	locks := []Lock{{User: 1, Until: full.Until}, full, full, {User: 2, Until: full.Until}}
	if err := c.SetLocks(context.Background(), locks); err != nil {
		t.Fatal(err)
	}
	if r := h.last(); len(r.Locks) != 4 || len(r.Locks[2].Prefixes) != MaxLockPrefixes || !r.Locks[1].Until.Equal(full.Until) {
		t.Errorf("%d locks arrived", len(r.Locks))
	}
	if err := c.SetUsers(context.Background(), nil); err != nil {
		t.Errorf("empty set: %v", err)
	}
	h.mu.Lock()
	for i := range 1001 {
		h.users = append(h.users, UserCount{uint32(i), map[string]uint64{"syn": uint64(i)}})
	}
	h.mu.Unlock()
	users, err := c.UserCounters(context.Background())
	if err != nil || len(users) != 1001 || users[1000].Counts["syn"] != 1000 {
		t.Errorf("%d users, %v", len(users), err)
	}
}

func TestCalls(t *testing.T) {
	t.Parallel()
	_, lf := tcpListener(t)
	h := &fakeHelper{listeners: []Listener{{"smtp", lf}}}
	c, w, err := Dial(context.Background(), serve(t, h, anyone), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Listeners[0].File.Close()
	ctx := context.Background()
	if err := c.Unlock(ctx, 7); err != nil || h.last().User != 7 {
		t.Errorf("unlock: %v %+v", err, h.last())
	}
	if err := c.Announce(ctx, 5*time.Second); err != nil || h.last().For != 5*time.Second {
		t.Errorf("announce: %v", err)
	}
	if n, err := c.Counters(ctx); err != nil || n["syn"] != 3 {
		t.Errorf("counters: %v %v", n, err)
	}
	if s, err := c.Status(ctx); err != nil || s.PID != os.Getpid() {
		t.Errorf("status: %v %v", s, err)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := c.Lock(ctx, Lock{User: uint32(i + 1), Until: time.Now()}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// A request that breaks a rule ends the connection, and every later call says so.
	if err := c.Announce(ctx, time.Hour); !errors.Is(err, ErrLost) {
		t.Errorf("announce an hour: %v", err)
	}
	<-c.Lost()
	if err := c.Unlock(ctx, 7); !errors.Is(err, ErrLost) {
		t.Errorf("after the loss: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestConnectIsCompletedHere(t *testing.T) {
	t.Parallel()
	l, lf := tcpListener(t)
	dead, deadFile := tcpListener(t)
	deadAddr := dead.Addr().(*net.TCPAddr).AddrPort()
	dead.Close()
	deadFile.Close()
	h := &fakeHelper{listeners: []Listener{{"smtp", lf}}, socket: func(c *Connect) (*os.File, error) {
		if !c.Src.IsLoopback() {
			return nil, Errorf(CodeRefused, "%v is no customer", c.Src)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(c.Dst.Port()), Addr: c.Dst.Addr().As4()})
		if err != nil && err != unix.EINPROGRESS {
			return nil, errors.Join(Errorf(CodeUnreachable, "%v", err), unix.Close(fd))
		}
		return os.NewFile(uintptr(fd), "connecting"), nil
	}}
	c, w, err := Dial(context.Background(), serve(t, h, anyone), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.Listeners[0].File.Close()
	src := netip.MustParseAddr("127.0.0.1")
	tc, err := c.Connect(context.Background(), src, l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tc.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if n, err := peer.Read(make([]byte, 2)); n != 1 || err != nil {
		t.Error(n, err)
	}
	tc.Close()
	peer.Close()
	var op *net.OpError
	if _, err := c.Connect(context.Background(), src, deadAddr); !errors.As(err, &op) {
		t.Errorf("connect to nobody: %v", err)
	}
	var e *Error
	if _, err := c.Connect(context.Background(), netip.MustParseAddr("192.0.2.1"), deadAddr); !errors.As(err, &e) || e.Code != CodeRefused {
		t.Errorf("foreign source: %v", err)
	}
}

func TestConnectGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	// A listening backlog of zero that is full leaves further connects waiting.
	lfd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(lfd)
	if err := errors.Join(unix.Bind(lfd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(lfd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(lfd)
	if err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for range 3 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, sa); err != unix.EINPROGRESS && err != nil {
			t.Fatal(err)
		}
		files = append(files, os.NewFile(uintptr(fd), "connecting"))
	}
	defer closeAll(files)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := completeConnect(ctx, files[2]); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
}

func TestStrangerIsRefused(t *testing.T) {
	t.Parallel()
	path := serve(t, &fakeHelper{}, func(Peer) bool { return false })
	if _, _, err := Dial(context.Background(), path, nil); err == nil || !strings.Contains(err.Error(), "hung up") {
		t.Errorf("err = %v", err)
	}
}

func TestListenReplacesOnlyADeadSocket(t *testing.T) {
	t.Parallel()
	path := serve(t, &fakeHelper{}, anyone)
	if _, err := Listen(path, os.Getgid()); err == nil || !strings.Contains(err.Error(), "another sluice-intercept") {
		t.Errorf("second listen: %v", err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o660 {
		t.Errorf("mode %v %v", fi.Mode(), err)
	}
	dead := filepath.Join(t.TempDir(), "dead.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: dead, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	l2, err := Listen(dead, os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	l2.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file, os.Getgid()); err == nil {
		t.Error("replaced a plain file")
	}
}

// TestMisbehaviourIsCutOff sends what no client of ours sends; the server must hang up each time.
func TestMisbehaviourIsCutOff(t *testing.T) {
	t.Parallel()
	_, lf := tcpListener(t)
	path := serve(t, &fakeHelper{}, anyone)
	for name, tc := range map[string]struct {
		packets []string
		files   int
	}{
		"no json":          {packets: []string{"hello"}},
		"trailing":         {packets: []string{`{"v":1,"id":1,"op":"status"} {}`}},
		"files for lock":   {packets: []string{`{"v":1,"id":1,"op":"unlock","user":1}`}, files: 1},
		"names for files":  {packets: []string{`{"v":1,"id":1,"op":"hello"}`}, files: 1},
		"unmasked":         {packets: []string{`{"v":1,"id":1,"op":"users","sources":[{"prefix":"192.0.2.1/24","user":1,"mode":"drop","fail":"open"}]}`}},
		"mapped":           {packets: []string{`{"v":1,"id":1,"op":"lock","lock":{"user":1,"prefixes":["::ffff:192.0.2.1/128"],"until":"2026-01-01T00:00:00Z","per_minute":1}}`}},
		"list changes":     {packets: []string{`{"v":1,"id":1,"op":"users","more":true}`, `{"v":1,"id":1,"op":"locks"}`}},
		"unfinished lists": {packets: []string{`{"v":1,"id":1,"op":"users","more":true}`, `{"v":1,"id":2,"op":"users","more":true}`, `{"v":1,"id":3,"op":"users","more":true}`, `{"v":1,"id":4,"op":"users","more":true}`, `{"v":1,"id":5,"op":"users","more":true}`}},
		"too long":         {packets: []string{strings.Repeat(" ", MaxPacket+1)}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var oob []byte
			for range tc.files {
				oob = append(oob, unix.UnixRights(int(rawFd(lf)))...)
			}
			for _, p := range tc.packets {
				if _, _, err := c.WriteMsgUnix([]byte(p), oob, nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 100)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %d bytes, %v instead of the end", n, err)
			}
		})
	}
}

func FuzzDecodeRequest(f *testing.F) {
	for _, s := range []string{
		`{"v":1,"id":1,"op":"hello","names":["smtp"]}`,
		`{"v":1,"id":1,"op":"users","sources":[{"prefix":"192.0.2.0/24","user":1,"mode":"drop","fail":"open"}],"more":true}`,
		`{"v":1,"id":1,"op":"lock","lock":{"user":1,"prefixes":["2001:db8::/64"],"until":"2026-01-01T00:00:00Z","per_minute":10}}`,
		`{"v":1,"id":1,"op":"connect","connect":{"src":"192.0.2.1","dst":"198.51.100.25:25"}}`,
		`{"v":1,"id":1,"op":"announce","for":1000000000}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil || r.refused != nil {
			return
		}
		for _, s := range r.Sources {
			if s.Prefix != s.Prefix.Masked() || s.Prefix.Addr().Is4In6() || s.Mode < Pass || s.Mode > Drop || s.User == 0 {
				if r.Op == OpUsers {
					t.Errorf("accepted %+v", s)
				}
			}
		}
		if r.Op == OpLock && (r.Lock == nil || r.Lock.User == 0) {
			t.Errorf("accepted lock %+v", r.Lock)
		}
		if r.For > MaxRestart && r.Op == OpAnnounce {
			t.Errorf("accepted restart of %v", r.For)
		}
	})
}

// BenchmarkLock is the round trip of a lock without the kernel (FEATURES LCK9 allows 200 µs with it).
func BenchmarkLock(b *testing.B) {
	_, lf := tcpListener(b)
	c, w, err := Dial(context.Background(), serve(b, &quiet{Listener{"smtp", lf}}, anyone), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	w.Listeners[0].File.Close()
	l := Lock{User: 1, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/29")}, Until: time.Now().Add(time.Hour), PerMinute: 10}
	for b.Loop() {
		if err := c.Lock(context.Background(), l); err != nil {
			b.Fatal(err)
		}
	}
}

type quiet struct{ l Listener }

func (q *quiet) Handle(_ context.Context, _ Peer, r *Request) (*Reply, error) {
	if r.Op == OpHello {
		return WelcomeReply(Welcome{}, []Listener{q.l}, nil), nil
	}
	return nil, nil
}
