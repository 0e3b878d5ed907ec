package main

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"sluice/filter/limit"
)

// countsEvery is how often what users have sent is written down; a killed process forgets so much.
const countsEvery = time.Second

// countsFile keeps counts over a restart, in two files in turn, so that one of them is always whole. They are written
// in place and synced at the planned end only: a killed process loses nothing by that, a power cut may.
type countsFile struct {
	counts *limit.Counts
	files  [2]*os.File
	seq    uint64
	buf    []byte
	failed bool // the last save
}

const countsHead = 8 + 8 + 4 // number, length, checksum of all that follows the checksum and of both

// openCounts restores counts from dir.
func openCounts(dir string, counts *limit.Counts) (_ *countsFile, err error) {
	c := &countsFile{counts: counts}
	var newest []byte
	for i, name := range [2]string{"counts.0", "counts.1"} {
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, c.close())
		}
		if seq, payload, ok := parseCounts(b); ok && seq > c.seq {
			c.seq, newest = seq, payload
		}
		if c.files[i], err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	if newest == nil {
		return c, nil
	}
	return c, counts.Restore(newest)
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

// save writes the counts if they changed.
func (c *countsFile) save() error {
	if !c.counts.Changed() && !c.failed {
		return nil
	}
	c.failed = true
	c.seq++
	c.buf = c.counts.Append(append(c.buf[:0], make([]byte, countsHead)...))
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

// keepCounts saves until ctx ends. Many users take longer: the work stays at one part in fifty of one core.
func (d *daemon) keepCounts(ctx context.Context) {
	wait, told := countsEvery, false
	for {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		begin := time.Now()
		err := d.counts.save()
		wait = max(countsEvery, 50*time.Since(begin))
		if err != nil && !told {
			d.log.Error("could not save what users have sent; limits begin anew after a restart", "err", err)
		}
		told = err != nil
	}
}

// close saves for the last time.
func (c *countsFile) close() error {
	var errs []error
	if c.files[0] != nil && c.files[1] != nil {
		errs = append(errs, c.save())
	}
	for _, f := range c.files {
		if f != nil {
			errs = append(errs, f.Sync(), f.Close())
		}
	}
	return errors.Join(errs...)
}
