//go:build unix

package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Release gives up the lock on f (flock(2)) and closes it. Closing alone leaves the lock to whatever process is just being
// started: it has the open files of this one until it runs its own program.
func Release(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}
