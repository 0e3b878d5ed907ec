package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// supervisor speaks sd_notify(3) to systemd; without it every method does nothing.
type supervisor struct {
	socket   string
	watchdog time.Duration // half of what systemd waits for; 0 is none
}

func newSupervisor() supervisor {
	s := supervisor{socket: os.Getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	pid := os.Getenv("WATCHDOG_PID")
	if err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.watchdog = time.Duration(usec) * time.Microsecond / 2
	}
	return s
}

// ready tells which process is the service's main one, too: after a hand-over it is another one.
func (s supervisor) ready() error {
	return s.send(fmt.Sprintf("READY=1\nMAINPID=%d", os.Getpid()), nil)
}

func (s supervisor) stopping() error { return s.send("STOPPING=1", nil) }

func (s supervisor) status(format string, args ...any) error {
	return s.send("STATUS="+fmt.Sprintf(format, args...), nil)
}

// reloading must be followed by ready (Type=notify-reload).
func (s supervisor) reloading() error {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return err
	}
	return s.send("RELOADING=1\nMONOTONIC_USEC="+strconv.FormatInt(ts.Nano()/1000, 10), nil)
}

func (s supervisor) alive() error { return s.send("WATCHDOG=1", nil) }

// keep stores a listening socket under a name in the place of an older one, so that it outlives this process even when
// the helper is away too.
func (s supervisor) keep(name string, f *os.File) error {
	if err := s.send("FDSTOREREMOVE=1\nFDNAME="+name, nil); err != nil {
		return err
	}
	return s.send("FDSTORE=1\nFDNAME="+name, f)
}

func (s supervisor) send(text string, f *os.File) error {
	if s.socket == "" {
		return nil
	}
	// Not net.UnixConn: it writes no descriptors to a connected datagram socket.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("could not notify systemd: %w", err)
	}
	// A name that begins with @ is in the abstract name space, here as there.
	to := &unix.SockaddrUnix{Name: s.socket}
	if f == nil {
		err = unix.Sendmsg(fd, []byte(text), nil, to, unix.MSG_NOSIGNAL)
	} else {
		err = withFD(f, func(passed int) error {
			return unix.Sendmsg(fd, []byte(text), unix.UnixRights(passed), to, unix.MSG_NOSIGNAL)
		})
	}
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("could not notify systemd: %w", err)
	}
	return nil
}

// kept returns the sockets called name that systemd kept for this process (sd_listen_fds(3)).
func kept(name string) []*os.File {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 1 || n > 1000 {
		return nil
	}
	const first = 3
	var files []*os.File
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range n {
		unix.CloseOnExec(first + i)
		f := os.NewFile(uintptr(first+i), name)
		if i < len(names) && names[i] == name {
			files = append(files, f)
			continue
		}
		_ = f.Close() // not ours: nothing may be lost by it
	}
	return files
}

// copyFile duplicates a descriptor.
func copyFile(f *os.File) (*os.File, error) {
	var fd int
	err := withFD(f, func(old int) (err error) {
		fd, err = unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// withFD runs do with f's descriptor. File.Fd would make the socket blocking, and with it the listener's copy.
func withFD(f *os.File, do func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := c.Control(func(fd uintptr) { err = do(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}
