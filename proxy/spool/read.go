package spool

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"

	"sluice/proxy/smtp"
)

// atOnce is how much of an entry is read in one go when it is leased: with a message of ordinary size all of it.
const atOnce = 32 << 10

var records = sync.Pool{New: func() any { return new([atOnce]byte) }}

// release gives the room of the record back, once Body has read what is in it or nobody asked for that.
func (l *Lease) release() {
	if l.record != nil {
		records.Put(l.record)
		l.record, l.text = nil, nil
	}
}

// readMeta reads the fields of a record.
func readMeta(g *segment, p place) ([]byte, error) {
	_, meta, _, err := readRecord(g, p, nil)
	return meta, err
}

// readRecord reads head and fields of a record, and where room has place for all of it the message's bytes, of which the
// checksum was not looked at. What it returns is in room, as far as it is large enough.
func readRecord(g *segment, p place, room []byte) (h recHead, meta, text []byte, err error) {
	if g == nil {
		return h, nil, nil, errRemoved
	}
	if len(room) < 1024 {
		room = make([]byte, 1024)
	}
	b := room[:min(int(p.size), len(room))]
	if err := g.read(b, int64(p.pos)); err != nil {
		return h, nil, nil, readError(err)
	}
	h, ok := parseRecHead(b, &g.head.marker, int64(p.pos))
	if !ok || h.size() != int64(p.size) {
		return h, nil, nil, fmt.Errorf("%w: no record stands at %d of %s", ErrDamaged, p.pos, g.name)
	}
	if n, have := recHeadSize+int(h.meta), len(b); n > have {
		b = append(b[:have:have], make([]byte, n-have)...)
		if err := g.read(b[have:], int64(p.pos)+int64(have)); err != nil {
			return h, nil, nil, readError(err)
		}
	}
	meta = b[recHeadSize:][:h.meta]
	if !whole(b, meta) {
		return h, nil, nil, fmt.Errorf("%w: the record at %d of %s has another checksum", ErrDamaged, p.pos, g.name)
	}
	if int64(len(b)) == h.size() {
		text = b[recHeadSize+int(h.meta):]
	}
	return h, meta, text, nil
}

func readError(err error) error {
	if errors.Is(err, errRemoved) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// Body reads the message. The caller releases it. The error is ErrDamaged with its cause, or that the file could not be opened.
func (l *Lease) Body() (*smtp.Body, error) {
	if l.record != nil {
		defer l.release()
		return l.stored(nil, func(p []byte) error {
			if copy(p, l.text) != len(p) || crc32.Checksum(p, castagnoli) != l.sum {
				return fmt.Errorf("%w: the message has another checksum", ErrDamaged)
			}
			return nil
		})
	}
	for {
		l.s.mu.Lock()
		x := l.s.x.get(l.ID)
		if x == nil {
			l.s.mu.Unlock()
			return nil, ErrUnknown
		}
		at, seg := x.at, l.s.segs[x.at.seg]
		l.s.mu.Unlock()
		b, err := l.body(at, seg)
		if !errors.Is(err, errRemoved) {
			return b, err
		}
	}
}

func (l *Lease) body(at place, seg *segment) (*smtp.Body, error) {
	var rest smtp.Rest
	if l.e.tail > 0 {
		f, err := l.s.d.open(tailName(l.e.tailID))
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if err != nil {
			return nil, err
		}
		if n, err := f.size(); err != nil || n != l.e.tail {
			return nil, errors.Join(fmt.Errorf("%w: the file of the large message has %d bytes, not %d", ErrDamaged, n, l.e.tail), f.Close())
		}
		rest = f
	}
	b, err := l.stored(rest, func(p []byte) error { return readBody(seg, at, p) })
	if err != nil && rest != nil {
		err = errors.Join(err, rest.Close())
	}
	return b, err
}

// stored makes a body of what fill gives, and what is in a file of its own.
func (l *Lease) stored(rest smtp.Rest, fill func([]byte) error) (*smtp.Body, error) {
	return smtp.StoredBody(int(l.e.size-l.e.tail), fill, rest, l.e.size, l.e.facts)
}

// readBody reads the message's bytes in a record.
func readBody(g *segment, at place, p []byte) error {
	if g == nil {
		return errRemoved
	}
	var head [recHeadSize]byte
	if err := g.read(head[:], int64(at.pos)); err != nil {
		return readError(err)
	}
	h, ok := parseRecHead(head[:], &g.head.marker, int64(at.pos))
	if !ok || int(h.body) != len(p) {
		return fmt.Errorf("%w: the record at %d of %s is another one", ErrDamaged, at.pos, g.name)
	}
	if err := g.read(p, int64(at.pos)+recHeadSize+int64(h.meta)); err != nil {
		return readError(err)
	}
	if crc32.Checksum(p, castagnoli) != h.bodySum {
		return fmt.Errorf("%w: the message at %d of %s has another checksum", ErrDamaged, at.pos, g.name)
	}
	return nil
}
