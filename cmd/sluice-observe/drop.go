package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// drop gives up every privilege of every thread, for good: what follows parses strangers' bytes.
func drop(uid, gid int) error {
	if uid == 0 {
		return errors.New("could not drop privileges: intercept.daemon_user is root; name an account without rights")
	}
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		if e == syscall.ENOTSUP {
			return errors.New("could not drop privileges of all threads: this program was built with cgo; build it with CGO_ENABLED=0, as make does")
		}
		return fmt.Errorf("could not set no_new_privs: %w", e)
	}
	if os.Getuid() == 0 {
		err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid))
		if err != nil {
			return fmt.Errorf("could not become uid %d: %w; are CAP_SETUID and CAP_SETGID there?", uid, err)
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&none)), 0); e != 0 {
		return fmt.Errorf("could not drop capabilities: %w", e)
	}
	return nil
}

// dropped makes sure of it: the kernel's own account of each thread.
func dropped() error {
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(threads) == 0 {
		return fmt.Errorf("could not see the threads' capabilities in /proc: %w", errors.Join(err, os.ErrNotExist))
	}
	for _, t := range threads {
		b, err := os.ReadFile(t)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(line, ":")
			value = strings.TrimSpace(value)
			switch {
			case (name == "CapPrm" || name == "CapEff" || name == "CapInh" || name == "CapAmb") && strings.Trim(value, "0") != "",
				name == "NoNewPrivs" && value != "1", name == "Uid" && strings.HasPrefix(value, "0\t"):
				return fmt.Errorf("could not drop privileges: %s says %s %s", t, name, value)
			}
		}
	}
	return nil
}
