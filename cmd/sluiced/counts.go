package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sluice/filter/limit"
	"sluice/filter/lock"
	"sluice/proxy/durable"
	"sluice/proxy/pool"
)

// keptEvery is how often what changed is written down; a killed process forgets so much.
const keptEvery = time.Second

// outliving is what outlives a process in memory's own form. Restore adds what Append wrote.
type outliving interface {
	Changed() bool
	Append(dst []byte) []byte
	Restore(b []byte) error
}

// keptFile keeps something over a restart, in two files in turn, so that one of them is always whole. They are written
// in place and synced at the planned end only: a killed process loses nothing by that, a power cut may.
type keptFile struct {
	what   outliving
	every  time.Duration // how often it is saved while it changes; at least keptEvery
	files  [2]*os.File
	mu     sync.Mutex // guards all below
	owner  bool       // this process writes the files; it holds their lock
	seq    uint64
	buf    []byte
	failed bool // the last save

	released bool
}

// countsFile keeps what users have sent (LIM6).
type countsFile struct {
	keptFile
	counts *limit.Counts
	given  atomic.Bool // to another process: from then on it is told what is booked
}

// give leaves the counts to another process. What is booked while they are saved may count twice there, and nothing not at all.
func (c *countsFile) give() error {
	c.given.Store(true)
	return c.release()
}

// choicesFile keeps delivery addresses that were chosen otherwise than by the pool (DIP2).
type choicesFile struct {
	keptFile
	choices *pool.Choices
}

// claimEvery is how often a new process looks whether the old one has saved for it.
const claimEvery = 10 * time.Millisecond

const countsHead = 8 + 8 + 4 // number, length, checksum of all that follows the checksum and of both

// openCounts restores counts from dir, or leaves that to claim where another process has them.
func openCounts(dir string, counts *limit.Counts) (*countsFile, error) {
	c := &countsFile{keptFile: keptFile{what: counts}, counts: counts}
	return c, c.open(dir, "counts")
}

// openChoices does so with choices.
func openChoices(dir string, choices *pool.Choices) (*choicesFile, error) {
	c := &choicesFile{keptFile{what: choices}, choices}
	return c, c.open(dir, "addresses")
}

// openConduct does so with what is known of senders.
func openConduct(dir string, locks *lock.Locks) (*keptFile, error) {
	c := &keptFile{what: locks}
	return c, c.open(dir, "conduct")
}

// open opens both files, which are nil after an error in that, and claims what they hold.
func (c *keptFile) open(dir, name string) (err error) {
	for i := range c.files {
		if c.files[i], err = os.OpenFile(filepath.Join(dir, fmt.Sprintf("%s.%d", name, i)), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			err = errors.Join(err, c.close())
			c.files = [2]*os.File{}
			return err
		}
	}
	_, err = c.claim()
	return err
}

// claim makes this process the one that writes, unless another one does, and adds what that one saved.
func (c *keptFile) claim() (mine bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner || c.released {
		return c.owner, nil
	}
	err = flock(c.files[0], unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c.owner = true
	var newest []byte
	for _, f := range c.files {
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
		if err != nil {
			return true, err
		}
		if seq, payload, ok := parseCounts(b); ok && seq > c.seq {
			c.seq, newest = seq, payload
		}
	}
	if newest == nil {
		return true, nil
	}
	return true, c.what.Restore(newest)
}

// release saves for another process to claim, and never claims again.
func (c *keptFile) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.released = true
	if !c.owner {
		return nil
	}
	err := c.save()
	c.owner = false
	return errors.Join(err, flock(c.files[0], unix.LOCK_UN))
}

// flock is on the open file: the kernel gives it up when this process dies.
func flock(f *os.File, how int) error {
	return withFD(f, func(fd int) error { return unix.Flock(fd, how) })
}

func parseCounts(b []byte) (seq uint64, payload []byte, ok bool) {
	if len(b) < countsHead {
		return 0, nil, false
	}
	n := binary.LittleEndian.Uint64(b[8:])
	if n > uint64(len(b)-countsHead) {
		return 0, nil, false
	}
	payload = b[countsHead : countsHead+n]
	return binary.LittleEndian.Uint64(b), payload, binary.LittleEndian.Uint32(b[16:]) == sumCounts(b[:16], payload)
}

func sumCounts(head, payload []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(head), crc32.IEEETable, payload)
}

// keep claims the files if nobody has them, and saves if they are this process's.
func (c *keptFile) keep() (mine bool, err error) {
	if mine, err = c.claim(); !mine || err != nil {
		return mine, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.owner {
		return false, nil
	}
	return true, c.save()
}

// save writes what is kept if it changed. c.mu is held.
func (c *keptFile) save() error {
	if !c.what.Changed() && !c.failed {
		return nil
	}
	c.failed = true
	c.seq++
	c.buf = c.what.Append(append(c.buf[:0], make([]byte, countsHead)...))
	payload := c.buf[countsHead:]
	binary.LittleEndian.PutUint64(c.buf, c.seq)
	binary.LittleEndian.PutUint64(c.buf[8:], uint64(len(payload)))
	binary.LittleEndian.PutUint32(c.buf[16:], sumCounts(c.buf[:16], payload))
	f := c.files[c.seq%2]
	if _, err := f.WriteAt(c.buf, 0); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(c.buf))); err != nil {
		return err
	}
	c.failed = false
	return nil
}

// keepKept saves until ctx ends; lost tells what is forgotten when that fails. What is large takes longer: the work stays
// at one part in fifty of one core.
func (d *daemon) keepKept(ctx context.Context, c *keptFile, lost string) {
	wait, told := claimEvery, false
	for {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		begin := time.Now()
		mine, err := c.keep()
		wait = max(keptEvery, c.every, 50*time.Since(begin))
		if !mine && !d.retired() {
			wait = claimEvery
		}
		if err != nil && !told {
			d.log.Error("could not save state; "+lost, "err", err)
		}
		told = err != nil
	}
}

// close saves for the last time, and leaves the files to the next process at once.
func (c *keptFile) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	if c.owner {
		errs = append(errs, c.save())
	}
	for _, f := range c.files {
		if f != nil {
			errs = append(errs, f.Sync(), durable.Release(f))
		}
	}
	return errors.Join(errs...)
}
