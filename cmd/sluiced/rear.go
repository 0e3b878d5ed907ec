package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// rear is where a goroutine stands behind all others that have something to do, those included for which something has come
// that the runtime has not looked at yet. Gosched alone is not: the runtime looks at sockets once nobody can run, and who has
// just yielded can.
type rear struct {
	file *os.File
	raw  syscall.RawConn
}

func newRear() (*rear, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("could not make an event: %w", err)
	}
	r := &rear{file: os.NewFile(uintptr(fd), "rear")}
	r.raw, err = r.file.SyscallConn()
	return r, err
}

// stand returns once the runtime has looked at what has come, and has had others do it; at once where a processor has
// nothing to do.
func (r *rear) stand() {
	told := false
	_ = r.raw.Read(func(fd uintptr) bool { // fails only once it is closed
		if told {
			return true // each write is an event, so nothing needs to be read
		}
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, err := syscall.Write(int(fd), one[:])
		told = true
		return err != nil // then nothing will come
	})
	runtime.Gosched() // of those for whom something has come the last is woken first
}

func (r *rear) close() { _ = r.file.Close() }
