//go:build linux && !race

// Sessions are weighed as they run: with the race detector stacks are larger.

package proxy

import (
	"bytes"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
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
	if n == 0 || buf[0] != '2' && buf[0] != '3' {
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

// TestWaitingSessionsWeighLittle holds what a session costs whose message of 10 KiB has left, while its destination takes its
// time: stacks of 8 KiB, and the message in as little memory as it needs.
func TestWaitingSessionsWeighLittle(t *testing.T) { // not parallel: the process is weighed
	const many = 500
	mx, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer mx.Close()
	heard := make(chan struct{})
	go muse(t, mx, heard)
	r := newRig(t, mx.Addr().(*net.TCPAddr).AddrPort(), func(r *rig) { r.cfg.Log = nullLog{} })
	at := r.ln.Addr().(*net.TCPAddr)
	message := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 160) + ".\r\n")
	r.srv.paces.took(r.target.Addr(), slowAnswer)
	send := func() {
		p := dialRaw(t, at)
		t.Cleanup(func() { _ = unix.Close(int(p)) })
		for _, line := range []string{"", "EHLO client.example\r\n", "MAIL FROM:<a@client.example>\r\n", "RCPT TO:<b@sink.example>\r\n", "DATA\r\n"} {
			p.say(t, line)
		}
		_, err := unix.Write(int(p), message)
		must(t, err)
		select {
		case <-heard:
		case <-time.After(wait):
			t.Fatal("the message did not reach the destination")
		}
	}
	send()
	before := weigh()
	for range many {
		send()
	}
	each := (weigh() - before) / many
	for tries := 0; each > 34<<10 && tries < 10; tries++ { // stacks shrink by half in each collection; on a busy machine some grew
		each = (weigh() - before) / many
	}
	if each > 34<<10 {
		t.Errorf("%d bytes for each session that waits for its destination, at most 34 KiB", each)
	}
}

// muse is a destination that answers everything but messages. It leads one session after the other, so that next to nothing
// of it is weighed.
func muse(t *testing.T, ln net.Listener, heard chan<- struct{}) {
	var buf [32 << 10]byte
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		t.Cleanup(func() { _ = nc.Close() })
		reply := "220 mx\r\n"
		for reply != "" {
			if _, err = nc.Write([]byte(reply)); err != nil {
				break
			}
			n := 0
			for n == 0 || buf[n-1] != '\n' {
				var more int
				if more, err = nc.Read(buf[n:]); err != nil {
					break
				}
				n += more
			}
			switch said := buf[:n]; {
			case bytes.HasPrefix(said, []byte("EHLO")):
				reply = "250-mx\r\n250 PIPELINING\r\n"
			case bytes.HasSuffix(said, []byte("\r\n.\r\n")):
				reply = ""
				heard <- struct{}{}
			case bytes.HasSuffix(said, []byte("DATA\r\n")):
				reply = strings.Repeat("250 ok\r\n", bytes.Count(said, []byte("\n"))-1) + "354 go\r\n"
			default:
				reply = strings.Repeat("250 ok\r\n", bytes.Count(said, []byte("\n")))
			}
		}
	}
}
