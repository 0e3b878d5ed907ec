package msglog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sort"

	"github.com/klauspost/compress/zstd"
)

// A sealed segment, name.seg, takes the place of a finished segment and its index: the same rows in the same order,
// compressed, with an index that tells for every key the rows that have it. It begins with the blocks; then come the
// directory of blocks, the buckets, the table of where each bucket ends, and the footer. Numbers are little-endian.
const (
	segSuffix   = ".seg"
	tmpSuffix   = ".tmp"     // of one that is being written
	sealedMagic = 0x31474553 // "SEG1"
	footerSize  = 80
	entrySize   = 40
)

// footer says where everything stands.
type footer struct {
	rows, blocks, buckets uint32
	first, last           int64  // least and greatest start of its records, microseconds since 1970
	low, high             int64  // least and greatest flow of its records
	dir, index, table     int64  // where directory, buckets and table begin
	merged                uint32 // length of the names of those that it took the place of, between table and footer; 0: none
}

func (t *footer) put() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, sealedMagic)
	for _, v := range []uint32{t.rows, t.blocks, t.buckets} {
		b = le.AppendUint32(b, v)
	}
	for _, v := range []int64{t.first, t.last, t.low, t.high, t.dir, t.index, t.table} {
		b = le.AppendUint64(b, uint64(v))
	}
	b = le.AppendUint32(b, t.merged)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func parseFooter(b []byte) (t footer, ok bool) {
	le := binary.LittleEndian
	if len(b) != footerSize || le.Uint32(b) != sealedMagic || crc32.Checksum(b[:footerSize-4], castagnoli) != le.Uint32(b[footerSize-4:]) {
		return footer{}, false
	}
	at := func(i int) int64 { return int64(le.Uint64(b[16+8*i:])) }
	return footer{rows: le.Uint32(b[4:]), blocks: le.Uint32(b[8:]), buckets: le.Uint32(b[12:]), first: at(0), last: at(1), low: at(2), high: at(3), dir: at(4), index: at(5), table: at(6), merged: le.Uint32(b[72:])}, true
}

// pack is one block of a sealed segment.
type pack struct {
	at          int64
	size, raw   uint32 // compressed, and as it was
	row         uint32 // its first
	first, last int64
}

func (p *pack) append(b []byte) []byte {
	le, start := binary.LittleEndian, len(b)
	b = le.AppendUint64(b, uint64(p.at))
	for _, v := range []uint32{p.size, p.raw, p.row} {
		b = le.AppendUint32(b, v)
	}
	b = le.AppendUint64(le.AppendUint64(b, uint64(p.first)), uint64(p.last))
	return le.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

func parsePack(b []byte) (p pack, ok bool) {
	le := binary.LittleEndian
	p = pack{at: int64(le.Uint64(b)), size: le.Uint32(b[8:]), raw: le.Uint32(b[12:]), row: le.Uint32(b[16:]),
		first: int64(le.Uint64(b[20:])), last: int64(le.Uint64(b[28:]))}
	return p, crc32.Checksum(b[:entrySize-4], castagnoli) == le.Uint32(b[entrySize-4:])
}

// sealed is an open sealed segment.
type sealed struct {
	f    *os.File
	size int64
	footer
}

var errSealed = errors.New("the segment is damaged")

// openSealed opens name.seg; the error is os.ErrNotExist where there is none.
func openSealed(name string) (*sealed, error) {
	f, err := os.Open(name + segSuffix)
	if err != nil {
		return nil, err
	}
	s := &sealed{f: f}
	if err := s.readFooter(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", f.Name(), err), f.Close())
	}
	return s, nil
}

func (s *sealed) readFooter() error {
	st, err := s.f.Stat()
	if err != nil {
		return err
	}
	if s.size = st.Size(); s.size < footerSize {
		return errSealed
	}
	var b [footerSize]byte
	if _, err := s.f.ReadAt(b[:], s.size-footerSize); err != nil {
		return err
	}
	var ok bool
	if s.footer, ok = parseFooter(b[:]); !ok {
		return errSealed
	}
	return nil
}

// read returns n bytes at a place; a length that cannot be is not believed.
func (s *sealed) read(at, n int64) ([]byte, error) {
	if at < 0 || n < 0 || at+n > s.size {
		return nil, errSealed
	}
	b := make([]byte, n)
	_, err := s.f.ReadAt(b, at)
	return b, err
}

// find returns the postings of a key.
func (s *sealed) find(key uint64) (postings, error) {
	if s.buckets == 0 {
		return postings{}, nil
	}
	b := int64(bucketOf(key, s.buckets))
	ends, err := s.read(s.table+4*b, 8) // where it begins and ends
	if err != nil {
		return postings{}, err
	}
	from, end := binary.LittleEndian.Uint32(ends), binary.LittleEndian.Uint32(ends[4:])
	if end == from {
		return postings{}, nil
	}
	bucket, err := s.read(s.index+int64(from), int64(end)-int64(from))
	if err != nil {
		return postings{}, err
	}
	return findIn(bucket, key)
}

// having returns the rows that may have all keys, ascending.
func (s *sealed) having(keys []uint64) ([]uint32, error) {
	all := make([]postings, 0, len(keys))
	for _, k := range keys {
		p, err := s.find(k)
		if err != nil || p.n == 0 {
			return nil, err
		}
		all = append(all, p)
	}
	return common(all), nil
}

// pack returns an entry of the directory, and the row behind its last.
func (s *sealed) pack(i int) (p pack, end uint32, err error) {
	n := int64(2)
	if end = s.rows; i == int(s.blocks)-1 {
		n = 1
	}
	b, err := s.read(s.dir+int64(i)*entrySize, n*entrySize)
	if err != nil {
		return p, 0, err
	}
	p, ok := parsePack(b)
	if ok && n == 2 {
		var next pack
		next, ok = parsePack(b[entrySize:])
		end = next.row
	}
	if !ok {
		return p, 0, errSealed
	}
	return p, end, nil
}

// packs returns n entries of the directory.
func (s *sealed) packs(from, n int) ([]pack, error) {
	b, err := s.read(s.dir+int64(from)*entrySize, int64(n)*entrySize)
	if err != nil {
		return nil, err
	}
	all := make([]pack, n)
	for i := range all {
		var ok bool
		if all[i], ok = parsePack(b[i*entrySize:]); !ok {
			return nil, errSealed
		}
	}
	return all, nil
}

// holding returns the number of the block that holds a row.
func (s *sealed) holding(row uint32) (int, error) {
	var failed error
	i := sort.Search(int(s.blocks), func(i int) bool {
		p, _, err := s.pack(i)
		failed = errors.Join(failed, err)
		return p.row > row
	})
	if i == 0 && failed == nil {
		failed = errSealed
	}
	return i - 1, failed
}

// unpacker reads compressed blocks.
type unpacker struct {
	dec *zstd.Decoder
	buf []byte
}

func newUnpacker() (*unpacker, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlock))
	return &unpacker{dec: d}, err
}

// text returns the rows of a block, which hold until the next call.
func (u *unpacker) text(s *sealed, p *pack) ([]byte, error) {
	b, err := s.read(p.at, int64(p.size))
	if err != nil {
		return nil, err
	}
	if u.buf, err = u.dec.DecodeAll(b, u.buf[:0]); err != nil || len(u.buf) != int(p.raw) {
		return nil, errors.New("a block is damaged")
	}
	return u.buf, nil
}
