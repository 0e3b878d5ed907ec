package msglog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"sort"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// A sealed segment, name.seg, takes the place of a finished segment and its index: the same lines in the same order,
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

// pack returns a line of the directory, and the row behind its last.
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

// packs returns n lines of the directory.
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

// lines returns the lines of a block, which hold until the next call.
func (u *unpacker) lines(s *sealed, p *pack) ([]byte, error) {
	b, err := s.read(p.at, int64(p.size))
	if err != nil {
		return nil, err
	}
	if u.buf, err = u.dec.DecodeAll(b, u.buf[:0]); err != nil || len(u.buf) != int(p.raw) {
		return nil, errors.New("a block is damaged")
	}
	return u.buf, nil
}

// looked is what the index of a sealed segment says to a search.
type looked struct {
	g    *sealed // nil: there is no such segment
	rows []uint32
	err  error
}

// look asks the index of a segment. It may be called for several segments at once.
func (s *search) look(name string) (k looked) {
	if k.g, k.err = openSealed(name); k.err != nil {
		if errors.Is(k.err, os.ErrNotExist) {
			k.err = nil
		}
		return k
	}
	if g := k.g; len(s.indexed) > 0 && s.within(g.first, g.last) && (s.flow == 0 || g.low <= s.flow && s.flow <= g.high) {
		if k.rows, k.err = g.having(s.indexed); len(k.rows) > 0 && len(k.rows) <= fewRows {
			_, _, k.err = g.fetch(k.rows, len(k.rows))
		}
	}
	return k
}

const (
	// fewRows of a segment are read whatever the other segments have: the disk is told of them while those are still asked.
	fewRows = 8
	// Of so many blocks the disk is told before the first of them is read.
	firstAhead, mostAhead = 4, 64
)

// held is a block with wanted rows.
type held struct {
	number int
	rows   []uint32
}

// fetch finds the blocks that hold the last of rows, which ascend, at most so many, and has the disk begin to read them all.
// rest are the rows before those.
func (s *sealed) fetch(rows []uint32, most int) (found []held, rest []uint32, err error) {
	for len(rows) > 0 && len(found) < most {
		i, err := s.holding(rows[len(rows)-1])
		if err != nil {
			return nil, nil, err
		}
		p, _, err := s.pack(i)
		if err != nil {
			return nil, nil, err
		}
		from, _ := slices.BinarySearch(rows, p.row)
		found = append(found, held{i, rows[from:]})
		rows = rows[:min(from, len(rows)-1)]
		_ = unix.Fadvise(int(s.f.Fd()), p.at, int64(p.size), unix.FADV_WILLNEED) // it is read in any case
	}
	return found, rows, nil
}

// sealed searches a sealed segment, the newest rows first.
func (s *search) sealed(ctx context.Context, g *sealed, rows []uint32) (err error) {
	if !s.within(g.first, g.last) {
		return nil
	}
	if s.unpack == nil {
		if s.unpack, err = newUnpacker(); err != nil {
			return err
		}
	}
	from, to := s.window(g)
	if from == to {
		return nil
	}
	if len(s.indexed) == 0 {
		for i := to - 1; i >= from && !s.done && ctx.Err() == nil; i-- {
			err = errors.Join(err, s.numbered(g, i, nil))
		}
		return errors.Join(err, context.Cause(ctx))
	}
	if rows, err = g.between(rows, from, to); err != nil {
		return err
	}
	for n := firstAhead; len(rows) > 0 && !s.done && ctx.Err() == nil; n = min(2*n, mostAhead) {
		found, rest, e := g.fetch(rows, n)
		if e != nil {
			return errors.Join(err, e)
		}
		for _, h := range found {
			if s.done || ctx.Err() != nil {
				break
			}
			err = errors.Join(err, s.numbered(g, h.number, h.rows))
		}
		rows = rest
	}
	return errors.Join(err, context.Cause(ctx))
}

// window returns the numbers of the first block that touches the time asked for, and of that behind the last.
func (s *search) window(g *sealed) (from, to int) {
	to = int(g.blocks)
	if s.within(g.first, g.first) && s.within(g.last, g.last) {
		return 0, to
	}
	all, err := g.packs(0, to)
	if err != nil {
		return 0, to // each block is asked for itself, and says what is damaged
	}
	touches := func(p pack) bool { return s.within(p.first, p.last) }
	if from = slices.IndexFunc(all, touches); from < 0 {
		return 0, 0
	}
	for !touches(all[to-1]) {
		to--
	}
	return from, to
}

// between returns those of rows, which ascend, that stand in the blocks from one number up to another.
func (s *sealed) between(rows []uint32, from, to int) ([]uint32, error) {
	if from == 0 && to == int(s.blocks) {
		return rows, nil
	}
	first, _, err := s.pack(from)
	if err != nil {
		return nil, err
	}
	_, end, err := s.pack(to - 1)
	if err != nil {
		return nil, err
	}
	i, _ := slices.BinarySearch(rows, first.row)
	j, _ := slices.BinarySearch(rows, end)
	return rows[i:j], nil
}

// numbered looks at the wanted rows of a block by its number.
func (s *search) numbered(g *sealed, i int, wanted []uint32) error {
	p, end, err := g.pack(i)
	if err == nil && s.within(p.first, p.last) {
		err = s.pack(g, &p, end, wanted)
	}
	if err != nil {
		return fmt.Errorf("block %d: %w", i, err)
	}
	return nil
}

// pack looks at the wanted rows of one block, or at all where nothing is asked that has a key.
func (s *search) pack(g *sealed, p *pack, end uint32, wanted []uint32) error {
	text, err := s.unpack.lines(g, p)
	if err != nil {
		return err
	}
	for row := end; len(text) > 0 && !s.done; {
		row--
		start := bytes.LastIndexByte(text[:len(text)-1], '\n') + 1
		switch n := len(wanted); {
		case len(s.indexed) == 0:
			err = s.line(text[start : len(text)-1])
		case n > 0 && wanted[n-1] == row:
			wanted = wanted[:n-1]
			err = s.line(text[start : len(text)-1])
		case n == 0:
			return nil
		}
		if err != nil {
			return err
		}
		text = text[:start]
	}
	return nil
}
