package spool

import "io"

// disk is the folder of a spool. It has as many methods as there are ways for a disk to fail: tests put one in its place
// that loses what was not synced and fails where it is told to.
type disk interface {
	create(name string) (file, error) // a new file, to append to and read
	open(name string) (file, error)   // to read
	list() ([]string, error)
	remove(name string) error
	syncDir() error
	// lock makes the file name and holds a lock on it until it is closed.
	lock(name string) (io.Closer, error)
	// take holds the lock on an existing file; nil where somebody else does, or the file is gone.
	take(name string) (io.Closer, error)
	free() (room, size uint64, err error) // bytes of the file system
}

// file is one file of a spool.
type file interface {
	io.Writer
	io.ReaderAt
	io.Closer
	sync() error
	truncate(size int64) error
	size() (int64, error)
}
