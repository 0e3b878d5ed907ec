//go:build unix

package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sluice/proxy/durable"
)

// folder is a real one.
type folder string

type osFile struct{ *os.File }

func (f osFile) sync() error               { return syncData(f.File) }
func (f osFile) truncate(size int64) error { return f.Truncate(size) }

// size gives the length of the file, not its place in the page cache.
func (f osFile) size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (d folder) create(name string) (file, error) {
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d folder) open(name string) (file, error) {
	f, err := os.Open(filepath.Join(string(d), name))
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d folder) list() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d folder) remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }

func (d folder) syncDir() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// lock gives the file its name only when the lock is held: whoever looks for dead owners must never find it without.
func (d folder) lock(name string) (io.Closer, error) {
	path := filepath.Join(string(d), name)
	f, err := os.OpenFile(fmt.Sprintf("%s.%d%s", path, os.Getpid(), suffixNew), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = os.Link(f.Name(), path) // unlike a rename this fails where the name is taken
	}
	err = errors.Join(err, os.Remove(f.Name()))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return locked{f}, nil
}

// locked is a file whose lock goes with closing it.
type locked struct{ f *os.File }

func (l locked) Close() error { return durable.Release(l.f) }

func (d folder) take(name string) (io.Closer, error) {
	path := filepath.Join(string(d), name)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil, f.Close()
	}
	// It may have been removed, by one who has done with it, between open and lock.
	mine, err := f.Stat()
	if err == nil {
		var now os.FileInfo
		if now, err = os.Stat(path); err == nil && os.SameFile(mine, now) {
			return locked{f}, nil
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return nil, errors.Join(err, durable.Release(f))
}
