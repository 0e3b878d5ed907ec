// Package inflight remembers, in memory that outlives the process, which messages are between their final dot and the
// remote's answer.
//
// A process that is killed there can not know whether the remote took the message: the client heard nothing and will
// send it again. These are the only duplicates that a cut-through relay can cause (RFC 1047), so each must be listed.
// A shared mapping of a file is written without a system call, and the kernel keeps it when the process dies.
package inflight

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sluice/proxy/durable"
)

const (
	slotSize  = 512     // one message; longer fields are cut, see Entry
	slotCount = 1 << 14 // messages between dot and answer at once; more are counted, not remembered
	suffix    = ".inflight"
	unnamed   = ".new" // of a journal that is being made
)

// Entry is one message whose fate is unknown.
type Entry struct {
	ID     string
	User   string
	Client netip.AddrPort
	Target netip.AddrPort
	Source netip.Addr // the address the mail left from
	From   string     // cut at 100 bytes
	To     string     // the first recipient, cut at 100 bytes
	Rcpts  int
	Size   int64
	Sent   time.Time // when the final dot was about to leave
}

// Journal is this process's list. It is safe for concurrent use.
type Journal struct {
	file *os.File
	name string
	mem  []byte
	mu   sync.Mutex
	free []uint32 // a stack, so that few slots, and few pages, are ever touched
	full uint64
}

// Open starts a journal of this process in dir. The entries that dead processes left there are first given to record,
// and forgotten only when it returned no error: it must have them on disk by then. Files of living processes (an older
// generation that still drains) are left alone: they hold a lock.
func Open(dir string, record func([]Entry) error) (*Journal, error) {
	if err := adopt(dir, record); err != nil {
		return nil, err
	}
	// It gets the name by which it is adopted only when its lock is held: two processes may start at once.
	f, err := os.CreateTemp(dir, fmt.Sprintf("%d-*%s", os.Getpid(), unnamed))
	if err != nil {
		return nil, fmt.Errorf("start the journal of messages in flight: %w", err)
	}
	j := &Journal{file: f, name: strings.TrimSuffix(f.Name(), unnamed) + suffix, free: make([]uint32, slotCount)}
	err = j.mapFile()
	if err == nil {
		err = os.Rename(f.Name(), j.name)
	}
	if err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, fmt.Errorf("map the journal of messages in flight %s: %w", f.Name(), err)
	}
	for i := range j.free {
		j.free[i] = uint32(slotCount - 1 - i)
	}
	return j, nil
}

func (j *Journal) mapFile() (err error) {
	if err := unix.Flock(int(j.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	if err := allocate(j.file, slotSize*slotCount); err != nil {
		return err
	}
	j.mem, err = unix.Mmap(int(j.file.Fd()), 0, slotSize*slotCount, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return err
}

// allocate gives f its blocks: where the disk is full when a page of the mapping is first written the process is killed.
func allocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	_, err = f.Write(make([]byte, size))
	return err
}

// Sent remembers e and returns its slot for Answered. It must be called before the final dot leaves. A journal that is
// full returns -1 and counts it.
func (j *Journal) Sent(e *Entry) int {
	j.mu.Lock()
	if len(j.free) == 0 {
		j.full++
		j.mu.Unlock()
		return -1
	}
	i := int(j.free[len(j.free)-1])
	j.free = j.free[:len(j.free)-1]
	j.mu.Unlock()

	slot := j.mem[i*slotSize : (i+1)*slotSize : (i+1)*slotSize]
	n := len(encode(slot[:4], e)) - 4
	binary.LittleEndian.PutUint32(slot, uint32(n)) // the length last: a slot of length 0 is free
	return i
}

// Answered forgets the message in slot: its fate is known and told.
func (j *Journal) Answered(slot int) {
	if slot < 0 {
		return
	}
	binary.LittleEndian.PutUint32(j.mem[slot*slotSize:], 0)
	j.mu.Lock()
	j.free = append(j.free, uint32(slot))
	j.mu.Unlock()
}

// Overflowed returns how many messages found the journal full.
func (j *Journal) Overflowed() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.full
}

// Close ends the journal of a process that has no message in flight any more, and removes its file.
func (j *Journal) Close() error {
	return errors.Join(unix.Munmap(j.mem), os.Remove(j.name), j.file.Close())
}

// adopt reads the journals of dead processes in dir, has their entries recorded, and removes them.
func adopt(dir string, record func([]Entry) error) error {
	if err := sweep(dir); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		return err
	}
	var left []Entry
	var dead []*os.File
	defer func() {
		for _, f := range dead {
			_ = durable.Release(f) // the journal is gone, or is read again at the next start
		}
	}()
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return fmt.Errorf("read the journal that an earlier process left: %w", err)
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			f.Close()
			continue
		}
		dead = append(dead, f)
		left = append(left, read(f)...)
	}
	if len(left) > 0 {
		if err := record(left); err != nil {
			return fmt.Errorf("record the messages that an earlier process left in flight: %w", err)
		}
	}
	for _, f := range dead {
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("remove the journal that an earlier process left: %w", err)
		}
	}
	return nil
}

// sweep removes what processes left that were killed while they made their journal.
func sweep(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"+unnamed))
	if err != nil {
		return err
	}
	for _, name := range names {
		if st, err := os.Stat(name); err != nil || time.Since(st.ModTime()) < time.Minute {
			continue // gone meanwhile, or being made
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove a journal that was never begun: %w", err)
		}
	}
	return nil
}

func read(f *os.File) []Entry {
	var left []Entry
	slot := make([]byte, slotSize)
	for i := range int64(slotCount) {
		if n, _ := f.ReadAt(slot, i*slotSize); n < slotSize {
			break
		}
		size := binary.LittleEndian.Uint32(slot)
		if size == 0 || size > slotSize-4 {
			continue
		}
		if e, ok := decode(slot[4 : 4+size]); ok {
			left = append(left, e)
		}
	}
	return left
}

// encode appends e to b, which has the capacity of a slot: the cuts below keep it inside.
func encode(b []byte, e *Entry) []byte {
	for _, s := range [...]struct {
		text string
		max  int
	}{{e.ID, 40}, {e.User, 60}, {e.From, 100}, {e.To, 100}} {
		text := s.text[:min(len(s.text), s.max)]
		b = append(append(b, byte(len(text))), text...)
	}
	for _, a := range [...]netip.AddrPort{e.Client, e.Target, netip.AddrPortFrom(e.Source, 0)} {
		a16 := [16]byte{}
		if a.Addr().IsValid() {
			a16 = a.Addr().As16()
		}
		b = append(b, a16[:]...)
		b = binary.LittleEndian.AppendUint16(b, a.Port())
	}
	b = binary.AppendUvarint(b, uint64(e.Rcpts))
	b = binary.AppendUvarint(b, uint64(e.Size))
	return binary.AppendUvarint(b, uint64(e.Sent.UnixNano()))
}

func decode(b []byte) (e Entry, ok bool) {
	for _, s := range [...]*string{&e.ID, &e.User, &e.From, &e.To} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return e, false
		}
		*s = strings.Clone(string(b[1 : 1+b[0]]))
		b = b[1+b[0]:]
	}
	var source netip.AddrPort
	for _, a := range [...]*netip.AddrPort{&e.Client, &e.Target, &source} {
		if len(b) < 18 {
			return e, false
		}
		*a = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.LittleEndian.Uint16(b[16:]))
		b = b[18:]
	}
	if e.Source = source.Addr(); e.Source.IsUnspecified() {
		e.Source = netip.Addr{}
	}
	var sent uint64
	var rcpts, size uint64
	for _, v := range [...]*uint64{&rcpts, &size, &sent} {
		x, n := binary.Uvarint(b)
		if n <= 0 {
			return e, false
		}
		*v, b = x, b[n:]
	}
	e.Rcpts, e.Size, e.Sent = int(rcpts), int64(size), time.Unix(0, int64(sent))
	return e, true
}
