package msglog

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"sluice/proxy/durable"
)

const (
	// packBytes is how much text a block of a sealed segment holds at least: more compresses better, less is read faster.
	packBytes = 32 << 10
	// foreignAfter is how long after its start a process leaves segments of others alone: no hand-over lasts so long, and
	// versions that took no lock of what they write are gone by then.
	foreignAfter = 10 * time.Minute
)

// rowKeys are the keys of rows, in batches: one slice of all would be copied again and again while it grows.
type rowKeys struct {
	batches []batch
	rows    uint32

	low, high int64 // flows
}

// batch are the keys of some rows, one row after the other.
type batch struct {
	keys []uint64
	ends []uint32 // where each row's keys end
}

func (r *rowKeys) add(keys []uint64, ends []uint32, low, high int64) {
	if r.rows == 0 {
		r.low, r.high = low, high
	}
	r.low, r.high = min(r.low, low), max(r.high, high)
	r.batches = append(r.batches, batch{slices.Clone(keys), slices.Clone(ends)})
	r.rows += uint32(len(ends))
}

// finished is a segment that nobody writes to any more.
type finished struct {
	name string
	keys *rowKeys // nil: they are read from its rows
}

// sealer seals finished segments, this process's at once and those that others left when it has run for a while; from then
// on it also merges them.
func (l *Log) sealer() {
	foreign := time.NewTimer(l.o.foreignAfter)
	defer foreign.Stop()
	broken := map[string]bool{} // told once
	told := func(name string, what string, err error) {
		if err != nil && !broken[name] && !errors.Is(err, errStopped) && !errors.Is(err, errBusy) {
			broken[name] = true
			l.failed(fmt.Errorf("could not %s of the message log, which stay as they are: %w", what, err))
		}
	}
	seal := func(f finished) { told(f.name, "seal segments", l.seal(f)) }
	alone := false // nobody else seals or merges
	for {
		select {
		case <-l.stop:
			return
		case f := <-l.finished:
			seal(f)
		case <-foreign.C:
			alone = true
			foreign.Reset(cleanEvery)
			names, err := segments(l.dir)
			if err != nil {
				l.failed(err)
			}
			for _, name := range names {
				if !broken[name] {
					seal(finished{name: name})
				}
			}
		}
		if alone {
			name, err := l.mergeAll(time.Now(), broken)
			told(name, "merge segments", err)
		}
	}
}

var errStopped = errors.New("the log is being closed")

// seal puts a sealed segment in the place of a finished one. Whatever moment it is interrupted at, one of them is whole.
func (l *Log) seal(f finished) (err error) {
	log, err := os.Open(f.name + logSuffix)
	if errors.Is(err, os.ErrNotExist) {
		return nil // sealed already, or cleaned away
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, durable.Release(log)) }()
	if unix.Flock(int(log.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // somebody writes to it, or seals it
	}
	if _, err := os.Stat(f.name + segSuffix); err == nil { // interrupted behind the last step but one
		return unsealed(f.name)
	}
	st, err := log.Stat()
	if err != nil {
		return err
	}
	tmp := f.name + segSuffix + tmpSuffix
	if err := l.sealTo(tmp, log, f.keys, st.ModTime()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, f.name+segSuffix); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := durable.SyncFolder(l.dir); err != nil {
		return err
	}
	return unsealed(f.name)
}

// unsealed removes what a sealed segment takes the place of.
func unsealed(name string) error {
	err := os.Remove(name + idxSuffix)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.Remove(name+logSuffix))
}

// sealTo writes the sealed form of log to a new file, which bears the time of the last record.
func (l *Log) sealTo(path string, log *os.File, keys *rowKeys, last time.Time) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	w, err := newPacker(out, keys)
	if err == nil {
		err = l.eachBlock(log, w.block)
	}
	if err == nil {
		err = w.finish()
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close(), os.Chtimes(path, last, last))
}

// eachBlock hands over the blocks of a segment up to its torn end.
func (l *Log) eachBlock(f *os.File, take func(h header, payload []byte) error) error {
	var head [headerSize]byte
	var b []byte
	for at := int64(0); ; {
		select {
		case <-l.stop:
			return errStopped
		default:
		}
		if _, err := f.ReadAt(head[:], at); err != nil {
			return notEOF(err)
		}
		h, ok := parseHeader(head[:])
		if !ok {
			return nil
		}
		if n := int(h.size()); n > cap(b) {
			b = make([]byte, n)
		}
		b = b[:h.size()]
		if _, err := f.ReadAt(b, at); err != nil {
			return notEOF(err)
		}
		filter := b[headerSize : headerSize+h.filter]
		payload := b[headerSize+h.filter:]
		if sumOf(b, filter, payload) != h.sum {
			return fmt.Errorf("%s, byte %d: a block is damaged", f.Name(), at)
		}
		if err := take(h, payload); err != nil {
			return err
		}
		at += h.size()
	}
}

// packer writes a sealed segment.
type packer struct {
	f     *os.File
	w     *bufio.Writer
	enc   *zstd.Encoder
	keys  *rowKeys
	known bool // the keys are there; else they are read from the rows
	at    int64
	text  []byte // of the block that is being filled
	cur   pack
	packs []pack
	buf   []byte
	rows  uint32

	low, high int64 // flows
}

func newPacker(f *os.File, keys *rowKeys) (*packer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(4*packBytes))
	p := &packer{f: f, w: bufio.NewWriterSize(f, 256<<10), enc: enc, keys: keys, known: keys != nil}
	if p.known {
		p.flows(keys.low, keys.high)
	} else {
		p.keys = &rowKeys{}
	}
	return p, err
}

// block adds the rows of a block of the segment.
func (p *packer) block(h header, payload []byte) error {
	if len(p.text) == 0 {
		p.cur = pack{at: p.at, row: p.rows, first: h.first, last: h.last}
	}
	p.cur.first, p.cur.last = min(p.cur.first, h.first), max(p.cur.last, h.last)
	p.text = append(p.text, payload...)
	p.rows += h.count
	if !p.known {
		if err := p.note(payload); err != nil {
			return err
		}
	}
	if len(p.text) < packBytes {
		return nil
	}
	return p.pack()
}

// note reads the keys of rows that are not known.
func (p *packer) note(text []byte) error {
	rows, err := cutRows(nil, text)
	if err != nil {
		return err
	}
	var e encoder
	var b block
	for _, row := range rows {
		r, err := decode(row)
		if err != nil {
			return err
		}
		e.keys = e.keys[:0]
		e.addKeys(r)
		b.add(&e, r)
	}
	p.keys.add(b.keys, b.ends, b.low, b.high)
	p.flows(b.low, b.high)
	return nil
}

func (p *packer) flows(low, high int64) {
	if p.low == 0 && p.high == 0 {
		p.low, p.high = low, high
	}
	p.low, p.high = min(p.low, low), max(p.high, high)
}

// pack writes the block that is being filled.
func (p *packer) pack() error {
	p.buf = p.enc.EncodeAll(p.text, p.buf[:0])
	p.cur.size, p.cur.raw = uint32(len(p.buf)), uint32(len(p.text))
	p.packs = append(p.packs, p.cur)
	p.text = p.text[:0]
	return p.put(p.buf)
}

func (p *packer) put(b []byte) error {
	p.at += int64(len(b))
	_, err := p.w.Write(b)
	return err
}

// finish writes the last block and all that stands behind the blocks.
func (p *packer) finish() error {
	if p.rows != p.keys.rows {
		return io.ErrUnexpectedEOF
	}
	if len(p.text) > 0 {
		if err := p.pack(); err != nil {
			return err
		}
	}
	t, err := p.directory()
	if err == nil {
		err = p.index(&t)
	}
	if err != nil {
		return err
	}
	return errors.Join(p.put(t.put()), p.w.Flush())
}

// directory writes the directory of the blocks and begins the footer.
func (p *packer) directory() (footer, error) {
	t := footer{rows: p.rows, blocks: uint32(len(p.packs)), low: p.low, high: p.high, dir: p.at}
	var dir []byte
	for i := range p.packs {
		k := &p.packs[i]
		if i == 0 {
			t.first, t.last = k.first, k.last
		}
		t.first, t.last = min(t.first, k.first), max(t.last, k.last)
		dir = k.append(dir)
	}
	return t, p.put(dir)
}

// index writes buckets and table.
func (p *packer) index(t *footer) error {
	t.buckets, t.index = bucketCount, p.at
	sorted, ends := buckets(p.keys, t.buckets)
	table := make([]byte, 4, 4*(len(ends)+1))
	from := uint32(0)
	for _, end := range ends {
		p.buf = appendBucket(p.buf[:0], sorted[from:end])
		if err := p.put(p.buf); err != nil {
			return err
		}
		table = binary.LittleEndian.AppendUint32(table, uint32(p.at-t.index))
		from = end
	}
	t.table = p.at
	return p.put(table)
}
