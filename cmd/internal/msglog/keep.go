package msglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sluice/proxy"
	"sluice/proxy/durable"
)

// keeper holds the records that no segment has yet in a shared mapping of a file: writing there costs no system call,
// and what stands there outlives a killed process. The next one to open the log writes it to a segment.
type keeper struct {
	file *os.File
	mem  []byte // the length of what follows, then rows
}

const (
	keepSuffix = ".keep"
	keepBytes  = 1 << 20
	keepHead   = 8
)

// newKeeper makes a keeper of this process in dir. Its lock says that the process lives.
func newKeeper(dir string) (*keeper, error) {
	f, err := os.CreateTemp(dir, "*"+keepSuffix)
	if err != nil {
		return nil, err
	}
	k := &keeper{file: f}
	if err := k.mapFile(); err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()), f.Close())
	}
	return k, nil
}

func (k *keeper) mapFile() (err error) {
	if err := unix.Flock(int(k.file.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	// All its blocks now: where the disk is full when a page is first written the process is killed.
	err = unix.Fallocate(int(k.file.Fd()), 0, 0, keepBytes)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = k.file.Write(make([]byte, keepBytes))
	}
	if err != nil {
		return err
	}
	k.mem, err = unix.Mmap(int(k.file.Fd()), 0, keepBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return err
}

// length is where the length stands; it is written last, so that a row is there whole or not at all.
func (k *keeper) length() *uint64 { return (*uint64)(unsafe.Pointer(&k.mem[0])) }

// put keeps a row. One for which there is no room, since the disk has taken nothing for long, is not kept.
func (k *keeper) put(row []byte) {
	if k == nil {
		return
	}
	n := *k.length()
	if room := k.mem[keepHead+n:]; len(row) <= len(room) {
		copy(room, row)
		atomic.StoreUint64(k.length(), n+uint64(len(row)))
	}
}

// reset forgets everything: segments have it.
func (k *keeper) reset() {
	if k != nil {
		atomic.StoreUint64(k.length(), 0)
	}
}

func (k *keeper) close() error {
	if k == nil {
		return nil
	}
	err := os.Remove(k.file.Name())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(unix.Munmap(k.mem), err, k.file.Close())
}

// adopt writes what killed processes kept to a segment of this one, and removes their files once that is done.
func (l *Log) adopt() error {
	names, err := filepath.Glob(filepath.Join(l.dir, "*"+keepSuffix))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := l.adoptFile(name); err != nil {
			return fmt.Errorf("could not take over the records that an earlier process left in %s: %w", name, err)
		}
	}
	return nil
}

func (l *Log) adoptFile(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = durable.Release(f) }() // only read; it is gone, or is tried again
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // its process lives
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if st, err := f.Stat(); err == nil && len(b) == 0 && time.Since(st.ModTime()) < time.Minute {
		return nil // its process is just starting
	}
	if err := l.takeOver(b); err != nil {
		return err
	}
	return os.Remove(name)
}

// takeOver puts the records of a kept file b that no segment has.
func (l *Log) takeOver(b []byte) error {
	if len(b) < keepHead {
		return nil
	}
	text := b[keepHead:]
	rows, err := cutRows(nil, text[:min(binary.NativeEndian.Uint64(b), uint64(len(text)))])
	if err != nil {
		l.failed(err)
	}
	var left []*proxy.Record
	for _, row := range rows {
		r, err := decode(row)
		if err != nil {
			l.failed(err)
			continue
		}
		// The process may have been killed after the segment had it and before it was forgotten here.
		found, err := l.Find(context.Background(), Query{ID: r.ID, From: r.Start, Until: r.Start.Add(time.Microsecond)})
		if err != nil {
			l.failed(err) // a damaged block: better a record twice than not at all
		}
		if len(found) == 0 {
			left = append(left, r)
		}
	}
	for _, r := range left {
		l.Put(r)
	}
	return l.Flush()
}
