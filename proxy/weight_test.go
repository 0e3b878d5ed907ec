//go:build linux

package proxy

import (
	"net"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rawPeer is a client without anything of the runtime's: what is measured is the proxy's alone.
type rawPeer int

func dialRaw(t *testing.T, at *net.TCPAddr) rawPeer {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(wait / time.Second)}))
	addr := &unix.SockaddrInet4{Port: at.Port}
	copy(addr.Addr[:], at.IP.To4())
	must(t, unix.Connect(fd, addr))
	return rawPeer(fd)
}

// say writes a line and reads what comes back in one piece.
func (p rawPeer) say(t *testing.T, line string) {
	t.Helper()
	if line != "" {
		_, err := unix.Write(int(p), []byte(line))
		must(t, err)
	}
	var buf [2048]byte
	n, err := unix.Read(int(p), buf[:])
	for err == unix.EINTR { // a read with a time limit is not taken up again by itself
		n, err = unix.Read(int(p), buf[:])
	}
	must(t, err)
	if n == 0 || buf[0] != '2' {
		t.Fatalf("%q is answered %q", line, buf[:n])
	}
}

// weigh tells how much heap and stack is in use.
func weigh() int64 {
	debug.FreeOSMemory()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestIdleSessionsWeighLittle holds what a session costs that waits for a command: heap and stacks in use, after a
// collection, without the kernel's part. `make bench-memory` measures the whole process.
func TestIdleSessionsWeighLittle(t *testing.T) { // not parallel: the process is weighed
	const many = 1000
	mx, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer mx.Close()
	go swallow(mx)
	r := newRig(t, mx.Addr().(*net.TCPAddr).AddrPort(), func(r *rig) { r.cfg.Log = nullLog{} })
	at := r.ln.Addr().(*net.TCPAddr)
	open := func() {
		p := dialRaw(t, at)
		t.Cleanup(func() { _ = unix.Close(int(p)) })
		p.say(t, "")
		p.say(t, "EHLO client.example\r\n")
	}
	open() // what the destination can do is known from here on
	r.parked(1)
	before := weigh()
	for range many {
		open()
	}
	r.parked(many + 1)
	if each := (weigh() - before) / many; each > 4<<10 {
		t.Errorf("%d bytes for each idle session, at most 4 KiB", each)
	}
}
