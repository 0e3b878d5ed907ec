package spool

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"sync"
)

const (
	suffixSeg  = ".seg"
	suffixIdx  = ".idx"
	suffixTail = ".tail"
	suffixLock = ".lock"
	suffixNew  = ".new"
	suffixBad  = ".damaged"
)

// segment is one file of records, and what of it still counts.
type segment struct {
	key  uint32 // in this process
	name string // without suffix
	head segHead

	// Under Spool.mu.
	sealed bool
	size   int64
	live   int64               // bytes of records that count
	refs   map[uint32]struct{} // segments with records that one of this says to be out of date
	pins   int                 // records about deliveries that another generation may still hold
	kept   bool                // something in it could not be written anew
	// suspect: its writer did not seal it, so what reads well may be in memory only: the end came before the sync, or the
	// sync failed. What counts of it is written anew before anything is removed.
	suspect bool

	mu   sync.RWMutex // reading against removal
	file file         // nil once removed
}

func segName(tag uint16, number uint32) string { return fmt.Sprintf("%03x-%08x", tag, number) }

// parseSegName reads the name of a segment without its suffix.
func parseSegName(name string) (tag uint16, number uint32, ok bool) {
	t, n, _ := strings.Cut(name, "-")
	a, err := strconv.ParseUint(t, 16, tagBits)
	b, err2 := strconv.ParseUint(n, 16, 32)
	return uint16(a), uint32(b), err == nil && err2 == nil && segName(uint16(a), uint32(b)) == name
}

// createSegment makes a new segment whose header and name are on disk.
func createSegment(d disk, head segHead) (*segment, error) {
	s := &segment{name: segName(head.tag, head.number), head: head, refs: map[uint32]struct{}{}, size: segHeadSize}
	if _, err := rand.Read(s.head.marker[:]); err != nil {
		return nil, err
	}
	f, err := d.create(s.name + suffixSeg)
	if err != nil {
		return nil, err
	}
	var b [segHeadSize]byte
	s.head.put(b[:])
	if _, err = f.Write(b[:]); err == nil {
		if err = f.sync(); err == nil {
			err = d.syncDir()
		}
		if err != nil {
			err = syncFailed{err}
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), d.remove(s.name+suffixSeg))
	}
	s.file = f
	return s, nil
}

// syncFailed marks what spoils a spool for good.
type syncFailed struct{ error }

func (e syncFailed) Unwrap() error { return e.error }

var errRemoved = errors.New("the segment is gone")

// read fills p from pos on.
func (s *segment) read(p []byte, pos int64) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.file == nil {
		return errRemoved
	}
	if len(p) == 0 {
		return nil
	}
	_, err := s.file.ReadAt(p, pos)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// close ends all reading.
func (s *segment) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}

// An index file repeats heads and fields of all records of a sealed segment, so that a start need not read the messages.
// It is the segment's head, these, and a trailer: their length, their sum, the segment's size, magic. One that is torn is
// as good as none.
const idxTrailer = 24

var idxMagic = [4]byte{'I', 'D', 'X', '1'}

// mostIdx is where an index stops to be worth it: a segment of small records is read as fast itself.
const mostIdx = 8 << 20

// writeIdx stores the index of s. Nothing is lost if it fails, or never reaches the disk.
func writeIdx(d disk, s *segment, records []byte) error {
	f, err := d.create(s.name + suffixIdx)
	if err != nil {
		return err
	}
	b := make([]byte, segHeadSize, segHeadSize+len(records)+idxTrailer)
	s.head.put(b)
	b = append(b, records...)
	sum := crc32.Checksum(b, castagnoli)
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(len(records)))
	b = le.AppendUint64(b, uint64(s.size))
	b = append(le.AppendUint32(b, sum), idxMagic[:]...)
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// found is a record that a scan came by. The slices are valid during the call.
type found struct {
	head recHead
	pos  int64
	meta []byte
}

// scanner reads segments; its buffers are used again.
type scanner struct {
	d   disk
	buf []byte
}

// hole is a stretch of a segment that is no record.
type hole struct {
	from, to int64
	// torn: nobody was told that something is kept here; it was being written when the program or machine ended.
	torn bool
}

// openSegment opens a segment to be read.
func (c *scanner) openSegment(name string) (*segment, error) {
	f, err := c.d.open(name + suffixSeg)
	if err != nil {
		return nil, err
	}
	s := &segment{name: name, sealed: true, refs: map[uint32]struct{}{}, file: f}
	if s.size, err = f.size(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	var b [segHeadSize + 8]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && err != io.EOF {
		return nil, errors.Join(err, f.Close())
	}
	head, ver := parseSegHead(b[:n])
	tag, number, _ := parseSegName(name)
	switch {
	case ver > version:
		return nil, errors.Join(fmt.Errorf("it was written by a newer version of sluiced (format %d, this one knows %d); start that one", ver, version), f.Close())
	case ver == 0:
		// The first record tells the marker, too; whether it is one its sum tells.
		head = segHead{tag: tag, number: number}
		copy(head.marker[:], b[segHeadSize:])
	}
	s.head = head
	return s, nil
}

// scan calls take with every record of s, and returns what is none.
func (c *scanner) scan(s *segment, take func(*found)) ([]hole, error) {
	if c.fromIdx(s, take) {
		return nil, nil
	}
	if int64(cap(c.buf)) < s.size {
		c.buf = make([]byte, s.size)
	}
	b := c.buf[:s.size]
	if err := s.read(b, 0); err != nil {
		return nil, err
	}
	pos, durable := int64(segHeadSize), int64(0)
	var holes []hole
	if _, ver := parseSegHead(b); ver == 0 && s.size > 0 {
		holes, pos = append(holes, hole{from: 0, to: min(segHeadSize, s.size)}), min(segHeadSize, s.size)
	}
	for pos < s.size {
		h, ok := recordAt(b, &s.head.marker, pos)
		if ok {
			durable = max(durable, int64(h.durable))
			take(&found{h, pos, b[pos+recHeadSize:][:h.meta]})
			pos += h.size()
			continue
		}
		next := s.size
		for from := pos + 1; from < s.size; {
			i := bytes.Index(b[from:], s.head.marker[:])
			if i < 0 {
				break
			}
			from += int64(i)
			if _, ok := recordAt(b, &s.head.marker, from); ok {
				next = from
				break
			}
			from++
		}
		holes = append(holes, hole{from: pos, to: next})
		pos = next
	}
	for i := range holes {
		holes[i].torn = holes[i].from >= durable && holes[i].from >= segHeadSize || s.size <= segHeadSize
	}
	return holes, nil
}

// recordAt tells whether a whole record stands at pos.
func recordAt(b []byte, marker *[8]byte, pos int64) (recHead, bool) {
	h, ok := parseRecHead(b[pos:], marker, pos)
	if !ok || pos+h.size() > int64(len(b)) {
		return h, false
	}
	meta := b[pos+recHeadSize:][:h.meta]
	body := b[pos+recHeadSize+int64(h.meta):][:h.body]
	return h, whole(b[pos:], meta) && crc32.Checksum(body, castagnoli) == h.bodySum
}

// fromIdx reads the records from the index; false where there is no good one.
func (c *scanner) fromIdx(s *segment, take func(*found)) bool {
	f, err := c.d.open(s.name + suffixIdx)
	if err != nil {
		return false
	}
	defer f.Close()
	size, err := f.size()
	if err != nil || size < segHeadSize+idxTrailer || size > 2*mostIdx {
		return false
	}
	if int64(cap(c.buf)) < size {
		c.buf = make([]byte, size)
	}
	b := c.buf[:size]
	if n, _ := f.ReadAt(b, 0); int64(n) < size {
		return false
	}
	le := binary.LittleEndian
	t := b[size-idxTrailer:]
	records := b[segHeadSize : size-idxTrailer]
	head, ver := parseSegHead(b)
	if [4]byte(t[20:]) != idxMagic || le.Uint64(t) != uint64(len(records)) || le.Uint64(t[8:]) != uint64(s.size) ||
		le.Uint32(t[16:]) != crc32.Checksum(b[:size-idxTrailer], castagnoli) || ver == 0 || head.marker != s.head.marker {
		return false
	}
	for len(records) >= recHeadSize {
		h, ok := parseRecHead(records, &head.marker, int64(le.Uint32(records[8:])))
		if !ok || recHeadSize+int64(h.meta) > int64(len(records)) {
			return false // it cannot be: the sum is right
		}
		take(&found{h, int64(h.pos), records[recHeadSize:][:h.meta]})
		records = records[recHeadSize+int64(h.meta):]
	}
	return true
}
