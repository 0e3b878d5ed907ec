package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// notified is a stand-in for systemd: it returns the next message and whether a file came with it.
func notified(t *testing.T) (supervisor, func() (string, bool)) {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return supervisor{socket: path}, func() (string, bool) {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		b, oob := make([]byte, 1024), make([]byte, unix.CmsgSpace(4))
		n, on, _, _, err := c.ReadMsgUnix(b, oob)
		if err != nil {
			t.Fatal(err)
		}
		files := 0
		if msgs, err := unix.ParseSocketControlMessage(oob[:on]); err == nil {
			for _, m := range msgs {
				fds, err := unix.ParseUnixRights(&m)
				if err != nil {
					t.Fatal(err)
				}
				for _, fd := range fds {
					files++
					_ = unix.Close(fd)
				}
			}
		}
		return string(b[:n]), files == 1
	}
}

func TestSystemdIsTold(t *testing.T) {
	t.Parallel()
	s, next := notified(t)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, tt := range []struct {
		tell func() error
		want string
		file bool
	}{
		{s.ready, "READY=1", false},
		{s.reloading, "RELOADING=1\nMONOTONIC_USEC=", false},
		{s.stopping, "STOPPING=1", false},
		{s.alive, "WATCHDOG=1", false},
		{func() error { return s.keep("smtp", f) }, "FDSTOREREMOVE=1\nFDNAME=smtp", false},
		{func() error { return nil }, "FDSTORE=1\nFDNAME=smtp", true},
	} {
		if err := tt.tell(); err != nil {
			t.Fatal(err)
		}
		if got, file := next(); !strings.HasPrefix(got, tt.want) || file != tt.file {
			t.Errorf("told %q (with a file: %v), want %q", got, file, tt.want)
		}
	}
	c, err := copyFile(f)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := c.Stat(); err != nil || b.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("the copy is something else: %v", err)
	}
	if err := (supervisor{}).ready(); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	if err := (supervisor{socket: "/nonexistent"}).ready(); err == nil {
		t.Error("a socket that is not there was no error")
	}
}

func TestWatchdogIsOfferedOnlyToItsProcess(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "20000000")
	t.Setenv("WATCHDOG_PID", "1")
	if s := newSupervisor(); s.watchdog != 0 {
		t.Errorf("another process's watchdog was taken: %v", s.watchdog)
	}
	t.Setenv("WATCHDOG_PID", "")
	if s := newSupervisor(); s.watchdog != 10*time.Second {
		t.Errorf("half of 20 s is %v", s.watchdog)
	}
}
