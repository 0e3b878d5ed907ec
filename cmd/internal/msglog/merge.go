package msglog

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/proxy/durable"
)

// fan is how many sealed segments are merged into one: a search for somebody who writes seldom asks the index of each
// segment, and what is left of 35 days with 50 million records is some fifty instead of five hundred.
const fan = 16

// errBusy says that somebody searches, for longer than it is waited for, or merges: segments are merged another time.
var errBusy = errors.New("the message log is in use")

// mergeAll merges what there is to merge. With an error stands the segment at which it happened.
func (l *Log) mergeAll(now time.Time, not map[string]bool) (name string, err error) {
	for {
		names, err := l.mergeable(now, not)
		if err != nil || names == nil {
			return "", err
		}
		if err := l.merge(names); err != nil {
			return names[0], err
		}
	}
}

// mergeable returns the paths of sealed segments that are to become one: fan in a row that were begun on one day, or what
// is left of a day that is over; none of those in not. What a crash left of segments that were merged is removed.
func (l *Log) mergeable(now time.Time, not map[string]bool) ([]string, error) {
	names, err := segments(l.dir)
	if err != nil {
		return nil, err
	}
	today := dayOf(now.UTC().Format(nameTime))
	var run []string
	for _, name := range append(names, "") { // behind the last one a run ends, too
		ready := name != "" && !not[name] && l.mayMerge(name)
		if len(run) > 1 && (!ready || dayOf(run[0]) != dayOf(name)) && dayOf(run[0]) < today {
			return run, nil
		}
		if !ready || len(run) > 0 && dayOf(run[0]) != dayOf(name) {
			run = nil
		}
		if ready {
			run = append(run, name)
		}
		if len(run) == fan {
			return run, nil
		}
	}
	return nil, nil
}

// dayOf is the day on which a segment was begun.
func dayOf(name string) string {
	day, _, _ := strings.Cut(filepath.Base(name), "T")
	return day
}

// mayMerge tells whether a segment is sealed and was not merged before.
func (l *Log) mayMerge(name string) bool {
	if _, err := os.Stat(name + logSuffix); err == nil {
		return false
	}
	g, err := openSealed(name)
	if err != nil {
		return false // a search tells of the damage
	}
	defer g.f.Close()
	if err := g.tidy(l.dir); err != nil {
		l.failed(fmt.Errorf("could not remove segments of the message log that were merged into %s: %w", g.f.Name(), err))
	}
	return g.merged == 0 && g.buckets == bucketCount
}

// tidy removes those that a merged segment took the place of, if a crash left them.
func (s *sealed) tidy(dir string) error {
	if s.merged == 0 {
		return nil
	}
	b, err := s.read(s.size-footerSize-int64(s.merged), int64(s.merged))
	if err != nil {
		return err
	}
	if len(b) < 4 || crc32.Checksum(b[4:], castagnoli) != binary.LittleEndian.Uint32(b) {
		return errSealed
	}
	for base := range strings.FieldsSeq(string(b[4:])) {
		name := filepath.Join(dir, filepath.Base(base)) + segSuffix
		if name == s.f.Name() {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// merge puts one sealed segment in the place of several, oldest first. Whatever moment it is interrupted at, each record is
// in one of them; until the next start it may be in two.
func (l *Log) merge(names []string) (err error) {
	first, err := os.Open(names[0] + segSuffix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, durable.Release(first)) }()
	if unix.Flock(int(first.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil || !l.mayMerge(names[0]) {
		return errBusy // another process merges it, or has
	}
	tmp := names[0] + segSuffix + tmpSuffix
	err = l.mergeTo(tmp, names)
	if err == nil {
		err = l.replace(tmp, names)
	}
	if err != nil {
		if rerr := os.Remove(tmp); !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// replace waits until nobody searches: a search lists the segments first, and must find what it listed.
func (l *Log) replace(tmp string, names []string) (err error) {
	dir, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, durable.Release(dir)) }()
	for try := 0; unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil; try++ {
		if try == 200 {
			return errBusy
		}
		select {
		case <-l.stop:
			return errStopped
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err := os.Rename(tmp, names[0]+segSuffix); err != nil {
		return err
	}
	if err := dir.Sync(); err != nil {
		return err
	}
	for _, name := range names[1:] {
		err = errors.Join(err, os.Remove(name+segSuffix))
	}
	return err
}

// hold keeps segments from being merged while somebody searches, in whatever process, until release.
func (l *Log) hold() (release func()) {
	dir, err := os.Open(l.dir)
	if err != nil {
		return func() {} // the search itself says so
	}
	_ = unix.Flock(int(dir.Fd()), unix.LOCK_SH) // without locks nothing is merged either
	return func() { _ = durable.Release(dir) }
}

// mergeTo writes the segment that takes the place of names. It bears the time of the last record.
func (l *Log) mergeTo(path string, names []string) error {
	var all []*sealed
	defer func() {
		for _, g := range all {
			_ = g.f.Close() // it was only read
		}
	}()
	var last time.Time
	for _, name := range names {
		g, err := openSealed(name)
		if err != nil {
			return err
		}
		all = append(all, g)
		st, err := g.f.Stat()
		if err != nil {
			return err
		}
		if st.ModTime().After(last) {
			last = st.ModTime()
		}
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	m := &merger{packer: packer{f: out, w: bufio.NewWriterSize(out, 256<<10)}, from: all, stop: l.stop}
	return errors.Join(m.run(names), out.Close(), os.Chtimes(path, last, last))
}

// merger makes one sealed segment of several. Blocks are copied as they are; of the index one bucket at a time is in memory.
type merger struct {
	packer
	from  []*sealed
	bases []uint32 // the first row of each in the new one
	stop  <-chan struct{}
}

func (m *merger) run(names []string) error {
	for i, g := range m.from {
		if err := m.blocks(g); err != nil {
			return fmt.Errorf("%s: %w", names[i]+segSuffix, err)
		}
	}
	t, err := m.directory()
	if err == nil {
		err = m.index(&t)
	}
	if err != nil {
		return err
	}
	list := make([]byte, 4)
	for _, name := range names {
		list = append(append(list, filepath.Base(name)...), '\n')
	}
	putBucketSum(list)
	t.merged = uint32(len(list))
	if err := errors.Join(m.put(list), m.put(t.put())); err != nil {
		return err
	}
	return m.settle()
}

// settle brings what was written to the disk, some megabytes at a time, so that others who sync do not wait for much of it.
func (m *merger) settle() error {
	select {
	case <-m.stop:
		return errStopped
	default:
	}
	if err := m.w.Flush(); err != nil {
		return err
	}
	return m.f.Sync()
}

// blocks copies the blocks of a segment.
func (m *merger) blocks(g *sealed) error {
	if uint64(m.rows)+uint64(g.rows) > math.MaxUint32 {
		return errors.New("it has too many rows")
	}
	dir, err := g.packs(0, int(g.blocks))
	if err != nil {
		return err
	}
	for i := range dir {
		dir[i].at += m.at
		dir[i].row += m.rows
	}
	m.flows(g.low, g.high)
	m.packs = append(m.packs, dir...)
	m.bases = append(m.bases, m.rows)
	m.rows += g.rows
	n, err := io.Copy(m.w, io.NewSectionReader(g.f, 0, g.dir))
	if m.at += n; err != nil {
		return err
	}
	return m.settle()
}

// index joins the buckets.
func (m *merger) index(t *footer) error {
	readers := make([]*bucketReader, len(m.from))
	for i, g := range m.from {
		readers[i] = g.inOrder()
	}
	t.buckets, t.index = bucketCount, m.at
	table := make([]byte, 4, 4*(bucketCount+1))
	var parts []part
	for b := range bucketCount {
		parts = parts[:0]
		for i, r := range readers {
			bucket, err := r.next()
			if err == nil {
				err = eachKey(bucket, func(tag uint32, p postings) bool {
					parts = append(parts, part{tag, m.bases[i], p})
					return true
				})
			}
			if err != nil {
				return fmt.Errorf("%s: %w", m.from[i].f.Name(), err)
			}
		}
		slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(a.tag, b.tag) })
		m.buf = joinBucket(m.buf[:0], parts)
		if err := m.put(m.buf); err != nil {
			return err
		}
		if m.at-t.index > math.MaxUint32 {
			return errors.New("the index is too large")
		}
		table = binary.LittleEndian.AppendUint32(table, uint32(m.at-t.index))
		if b%1024 == 1023 {
			if err := m.settle(); err != nil {
				return err
			}
		}
	}
	t.table = m.at
	return m.put(table)
}

// part is what one of the segments has of a key.
type part struct {
	tag, base uint32 // base: the first row of that segment in the new one
	postings
}

// joinBucket appends a bucket of parts, sorted by tag and, of one tag, by base.
func joinBucket(dst []byte, parts []part) []byte {
	if len(parts) == 0 {
		return dst
	}
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	var rows []byte
	for len(parts) > 0 {
		tag, n, last := parts[0].tag, 0, uint32(0)
		rows = rows[:0]
		for len(parts) > 0 && parts[0].tag == tag {
			p := parts[0]
			first, w := binary.Uvarint(p.rows)
			rows = binary.AppendUvarint(rows, uint64(p.base)+first-uint64(last))
			rows = append(rows, p.rows[max(w, 0):]...)
			last = p.base + p.last()
			n += p.n
			parts = parts[1:]
		}
		dst = appendKey(dst, tag, postings{n, rows})
	}
	putBucketSum(dst[start:])
	return dst
}

// last is the last row.
func (p postings) last() (row uint32) {
	for b := p.rows; len(b) > 0; {
		d, w := binary.Uvarint(b)
		if w <= 0 {
			break
		}
		row += uint32(d)
		b = b[w:]
	}
	return row
}

// bucketReader reads the buckets of a sealed segment one after the other.
type bucketReader struct {
	table, index *bufio.Reader
	from         uint32
	buf          []byte
}

func (s *sealed) inOrder() *bucketReader {
	return &bucketReader{
		table: bufio.NewReader(io.NewSectionReader(s.f, s.table+4, 4*int64(s.buckets))),
		index: bufio.NewReaderSize(io.NewSectionReader(s.f, s.index, s.table-s.index), 64<<10),
	}
}

// next returns the next bucket, which holds until the next call.
func (r *bucketReader) next() ([]byte, error) {
	var end [4]byte
	if _, err := io.ReadFull(r.table, end[:]); err != nil {
		return nil, err
	}
	to := binary.LittleEndian.Uint32(end[:])
	if to < r.from || to-r.from > maxBlock {
		return nil, errSealed
	}
	n := int(to - r.from)
	r.buf, r.from = slices.Grow(r.buf[:0], n)[:n], to
	_, err := io.ReadFull(r.index, r.buf)
	return r.buf, err
}
