package spool

import (
	"os"

	"golang.org/x/sys/unix"
)

// tell says a line to the parent, by another system call than those that the spool uses and that are made to fail.
func tell(line string) { _, _ = unix.Writev(int(os.Stdout.Fd()), [][]byte{[]byte(line)}) }
