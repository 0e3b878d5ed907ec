package msglog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/proxy/durable"
)

// A segment is a file of blocks, name.log, with an index beside it, name.idx. A block is a header, a filter of the keys
// of its records, and the records. The index repeats, for each block, where it starts, the header and the filter; where
// it is missing or torn, the segment itself is read. All numbers are little-endian. Once it is finished it is sealed.
const (
	logSuffix = ".log"
	idxSuffix = ".idx"
	nameTime  = "20060102T150405.000000"

	magic      = 0x31474f4c // "LOG1"
	headerSize = 40
	// maxBlock bounds what a reader believes of a length; a block is 64 KiB unless one record alone is larger.
	maxBlock = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header describes a block.
type header struct {
	payload, filter uint32 // lengths in bytes
	count           uint32
	first, last     int64
	sum             uint32 // CRC-32C of header, filter and payload
}

// put writes the header: magic, lengths, count, first, last, sum, four bytes of zero.
func (h *header) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[4:], h.payload)
	le.PutUint32(b[8:], h.filter)
	le.PutUint32(b[12:], h.count)
	le.PutUint64(b[16:], uint64(h.first))
	le.PutUint64(b[24:], uint64(h.last))
	le.PutUint32(b[32:], h.sum)
	le.PutUint32(b[36:], 0)
}

// parseHeader returns false where no header stands.
func parseHeader(b []byte) (h header, ok bool) {
	le := binary.LittleEndian
	if len(b) < headerSize || le.Uint32(b) != magic {
		return header{}, false
	}
	h = header{
		payload: le.Uint32(b[4:]), filter: le.Uint32(b[8:]), count: le.Uint32(b[12:]),
		first: int64(le.Uint64(b[16:])), last: int64(le.Uint64(b[24:])), sum: le.Uint32(b[32:]),
	}
	return h, h.payload <= maxBlock && h.filter <= maxBlock
}

func (h *header) size() int64 { return headerSize + int64(h.filter) + int64(h.payload) }

// sumOf is the checksum of a block whose header stands in head.
func sumOf(head, filter, payload []byte) uint32 {
	sum := crc32.Update(0, castagnoli, head[:32])
	return crc32.Update(crc32.Update(sum, castagnoli, filter), castagnoli, payload)
}

// segment is the segment being written.
type segment struct {
	log, idx         *os.File
	logSize, idxSize int64 // up to the last whole block
	born             time.Time
	name             string // without suffix
	keys             rowKeys
	buf              []byte
}

// createSegment makes a new segment. Its name sorts by time and cannot be another process's.
func createSegment(dir string, now time.Time) (*segment, error) {
	name := filepath.Join(dir, fmt.Sprintf("%s-%x", now.UTC().Format(nameTime), os.Getpid()))
	log, err := os.OpenFile(name+logSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(log.Fd()), unix.LOCK_EX); err != nil { // as long as it is open nobody seals it
		return nil, errors.Join(err, log.Close(), os.Remove(log.Name()))
	}
	idx, err := os.OpenFile(name+idxSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, errors.Join(err, log.Close(), os.Remove(log.Name()))
	}
	return &segment{log: log, idx: idx, born: now.UTC(), name: name}, nil
}

// due reports whether the next block belongs to a new segment: by size, or because the day is over.
func (s *segment) due(now time.Time, most int64) bool {
	return s.logSize >= most || now.UTC().YearDay() != s.born.YearDay() || now.UTC().Year() != s.born.Year()
}

// append writes a block with one write, then its index entry, and returns the bytes of both.
func (s *segment) append(b *block) (int, error) {
	filter := newFilter(b.keys)
	h := header{payload: uint32(len(b.payload)), filter: uint32(len(filter)), count: uint32(b.count), first: b.first, last: b.last}
	s.buf = append(s.buf[:0], make([]byte, headerSize)...)
	h.put(s.buf)
	h.sum = sumOf(s.buf, filter, b.payload)
	h.put(s.buf)
	s.buf = append(append(s.buf, filter...), b.payload...)
	if _, err := s.log.Write(s.buf); err != nil {
		return 0, err
	}
	entry := binary.LittleEndian.AppendUint64(nil, uint64(s.logSize))
	entry = append(entry, s.buf[:headerSize+len(filter)]...)
	entry = binary.LittleEndian.AppendUint32(entry, crc32.Checksum(entry, castagnoli))
	if _, err := s.idx.Write(entry); err != nil {
		return 0, err
	}
	s.logSize += int64(len(s.buf))
	s.idxSize += int64(len(entry))
	s.keys.add(b.keys, b.ends, b.low, b.high)
	return len(s.buf) + len(entry), nil
}

// undo cuts off what a failed append left.
func (s *segment) undo() error {
	for f, size := range map[*os.File]int64{s.log: s.logSize, s.idx: s.idxSize} {
		if err := f.Truncate(size); err != nil {
			return err
		}
		if _, err := f.Seek(size, io.SeekStart); err != nil {
			return err
		}
	}
	return nil
}

func (s *segment) close() error {
	return errors.Join(s.log.Sync(), durable.Release(s.log), s.idx.Close())
}

// clean removes the segments that nobody has written to for as long as records are kept, and what was not sealed to its end.
func (l *Log) clean() {
	torn, _ := filepath.Glob(filepath.Join(l.dir, "*"+segSuffix+tmpSuffix)) // the pattern is well-formed
	for _, name := range torn {
		if st, err := os.Stat(name); err == nil && time.Since(st.ModTime()) > cleanEvery {
			_ = os.Remove(name) // the next time, then
		}
	}
	names, err := segments(l.dir)
	if err != nil {
		l.failed(err)
		return
	}
	for _, name := range names {
		for _, suffix := range []string{segSuffix, logSuffix} {
			st, err := os.Stat(name + suffix)
			if err != nil || time.Since(st.ModTime()) < l.o.Keep {
				continue
			}
			if suffix == logSuffix {
				err = os.Remove(name + idxSuffix)
			}
			if err := errors.Join(err, os.Remove(name+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
				l.failed(fmt.Errorf("could not remove an old segment of the message log: %w", err))
			}
		}
	}
}

// segments returns the paths of all segments without their suffix, oldest first.
func segments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted by name, which begins with the time
	if err != nil {
		return nil, fmt.Errorf("could not list the message log: %w", err)
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), logSuffix)
		if !ok {
			name, ok = strings.CutSuffix(e.Name(), segSuffix)
		}
		if name = filepath.Join(dir, name); ok && (len(names) == 0 || names[len(names)-1] != name) {
			names = append(names, name)
		}
	}
	return names, nil
}
