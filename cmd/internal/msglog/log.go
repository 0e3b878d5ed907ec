// Package msglog keeps the record of every message and session in append-only segment files that find their records again.
package msglog

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sluice/proxy"
)

// Options set up a log. The zero value has the defaults.
type Options struct {
	Keep         time.Duration // how long records are kept; 0 means 35 days (LOG1)
	SegmentBytes int64         // a segment that has grown so large is followed by a new one; 0 means 32 MiB
	FlushEvery   time.Duration // how long a record may wait in memory; 0 means 100 ms
	MaxQueued    int           // bytes that wait in memory while the disk takes nothing; 0 means 64 MiB
	Failed       func(error)   // hears of a write that failed and will be tried again; must not block; may be nil

	foreignAfter time.Duration // of tests
}

// Stats count since the start.
type Stats struct {
	Records, Blocks, Bytes uint64 // what was handed over, and what reached the file system
	Lost                   uint64 // records that found no room in memory while the disk took nothing
	Queued                 int    // bytes in memory now
}

const (
	blockBytes = 64 << 10 // a block is written when it is so full
	retryAfter = time.Second
	cleanEvery = time.Hour
)

// Log is an open log. Several processes may write to one folder, each to segments of its own. Safe for concurrent use.
type Log struct {
	dir   string
	o     Options
	stats struct{ records, blocks, bytes, lost atomic.Uint64 }

	mu     sync.Mutex
	cur    *block   // takes records
	full   []*block // wait for the disk, oldest first
	free   []*block
	queued int
	gap    gap
	keep   *keeper // of what no segment has; nil where it could not be made

	begun  chan struct{} // the current block has got its first record
	filled chan struct{} // a block is full
	stop   chan struct{}
	done   sync.WaitGroup
	closed sync.Once

	writing  sync.Mutex // held by whoever writes to the segment
	seg      *segment
	finished chan finished // wait to be sealed; what finds no room is sealed later

	tails tails
}

// block is a batch of records on its way to the disk.
type block struct {
	payload []byte   // rows
	keys    []uint64 // of all its records
	ends    []uint32 // where the keys of each record end
	count   int
	first   int64 // least and greatest start of its records, microseconds since 1970
	last    int64
	low     int64 // least and greatest flow
	high    int64
}

// gap is what was lost while the disk took nothing.
type gap struct {
	n        int
	from, to time.Time
}

// Open opens the log in the folder dir, which it makes where it is missing, and begins a new segment with the first
// record. What a killed process had not written is written now; torn ends of segments, as a crash leaves them, are passed
// over by readers.
func Open(dir string, o Options) (*Log, error) {
	if o.Keep <= 0 {
		o.Keep = 35 * 24 * time.Hour
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 32 << 20
	}
	if o.FlushEvery <= 0 {
		o.FlushEvery = 100 * time.Millisecond
	}
	if o.MaxQueued <= 0 {
		o.MaxQueued = 64 << 20
	}
	if o.foreignAfter <= 0 {
		o.foreignAfter = foreignAfter
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("could not open the message log: %w", err)
	}
	if err := writable(dir); err != nil {
		return nil, fmt.Errorf("could not open the message log in %s: %w; the folder must belong to the user that runs sluiced", dir, err)
	}
	l := &Log{
		dir: dir, o: o, cur: &block{},
		begun: make(chan struct{}, 1), filled: make(chan struct{}, 1), stop: make(chan struct{}), finished: make(chan finished, 4),
	}
	if err := l.adopt(); err != nil {
		l.failed(err) // it stays there for the next start
	}
	if k, err := newKeeper(dir); err == nil {
		l.keep = k
	} else {
		l.failed(fmt.Errorf("could not set up the message log against being killed: %w; the last records before a kill may be lost", err))
	}
	l.done.Go(l.writer)
	l.done.Go(l.sealer)
	return l, nil
}

func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Put takes a record, which must not be changed afterwards. It never waits for the disk: records wait in memory, and
// when the disk has taken nothing for so long that the memory set aside is full, they are counted as lost and the log
// itself says so once the disk works again.
func (l *Log) Put(r *proxy.Record) {
	l.stats.records.Add(1)
	e := encoders.Get().(*encoder)
	e.encode(r)
	l.mu.Lock()
	wake := l.add(e, r)
	l.mu.Unlock()
	encoders.Put(e)
	if wake != nil {
		select {
		case wake <- struct{}{}:
		default: // it has been told already
		}
	}
	l.tails.offer(r)
}

// add appends what e holds to the current block and returns who is to be woken. l.mu is held.
func (l *Log) add(e *encoder, r *proxy.Record) (wake chan struct{}) {
	if l.queued+len(e.row) > l.o.MaxQueued {
		l.stats.lost.Add(1)
		l.gap.add(r.Start)
		return nil
	}
	b := l.cur
	b.add(e, r)
	l.keep.put(e.row)
	l.queued += len(e.row)
	if len(b.payload) >= blockBytes {
		l.full = append(l.full, b)
		l.cur = l.fresh()
		return l.filled
	}
	if b.count == 1 {
		return l.begun
	}
	return nil
}

// fresh returns an empty block. l.mu is held.
func (l *Log) fresh() *block {
	if n := len(l.free); n > 0 {
		b := l.free[n-1]
		l.free = l.free[:n-1]
		*b = block{payload: b.payload[:0], keys: b.keys[:0], ends: b.ends[:0]}
		return b
	}
	return &block{payload: make([]byte, 0, blockBytes+4096)}
}

func (b *block) add(e *encoder, r *proxy.Record) {
	at, id := r.Start.UnixMicro(), int64(r.Flow.ID)
	if b.count == 0 {
		b.first, b.last, b.low, b.high = at, at, id, id
	}
	b.first, b.last = min(b.first, at), max(b.last, at)
	b.low, b.high = min(b.low, id), max(b.high, id)
	b.payload = append(b.payload, e.row...)
	b.keys = append(b.keys, e.keys...)
	b.ends = append(b.ends, uint32(len(b.keys)))
	b.count++
}

func (g *gap) add(at time.Time) {
	if g.n == 0 {
		g.from = at
	}
	g.n++
	g.to = at
}

// record says in the log what the log lost.
func (g *gap) record() *proxy.Record {
	return &proxy.Record{
		Start: g.from, Duration: max(0, g.to.Sub(g.from)), Status: proxy.NoMessage,
		Note: fmt.Sprintf("%d records were lost: the disk of the message log took no writes", g.n),
	}
}

// writer brings blocks to the disk: full ones at once, others within FlushEvery.
func (l *Log) writer() {
	clean := time.NewTicker(cleanEvery)
	defer clean.Stop()
	l.clean()
	for {
		wait := l.o.FlushEvery
		select {
		case <-l.stop:
			return
		case <-clean.C:
			l.clean()
			continue
		case <-l.filled:
			wait = 0
		case <-l.begun:
		}
		for l.pause(wait) {
			err := l.Flush()
			if err == nil {
				break
			}
			l.failed(err)
			wait = retryAfter
		}
	}
}

// pause waits, but not while full blocks are waiting. It returns false when the log is closed.
func (l *Log) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	if d == retryAfter {
		select { // a disk that refuses writes is not asked more often because more wait
		case <-t.C:
			return true
		case <-l.stop:
			return false
		}
	}
	select {
	case <-t.C:
	case <-l.filled:
	case <-l.stop:
		return false
	}
	return true
}

// Flush writes what is in memory to the segment. It returns once the file system has it.
func (l *Log) Flush() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	for {
		b := l.take()
		if b == nil {
			return nil
		}
		err := l.write(b)
		l.mu.Lock()
		if err != nil {
			l.full = append([]*block{b}, l.full...)
			l.mu.Unlock()
			return err
		}
		l.queued -= len(b.payload)
		if len(l.free) < 8 {
			l.free = append(l.free, b)
		}
		if l.gap.n > 0 {
			e, r := &encoder{}, l.gap.record()
			e.encode(r)
			l.cur.add(e, r)
			l.queued += len(e.row)
			l.gap = gap{}
		}
		l.mu.Unlock()
	}
}

// take returns the oldest block with records, or nil. It is the caller's then.
func (l *Log) take() *block {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.full) > 0 {
		b := l.full[0]
		l.full = l.full[1:]
		return b
	}
	if l.cur.count == 0 {
		l.keep.reset() // segments have all of it
		return nil
	}
	b := l.cur
	l.cur = l.fresh()
	return b
}

// write appends one block to the present segment, or to a new one. l.writing is held.
func (l *Log) write(b *block) error {
	now := time.Now()
	if l.seg != nil && l.seg.due(now, l.o.SegmentBytes) {
		done := finished{l.seg.name, &l.seg.keys}
		err := l.seg.close()
		l.seg = nil
		if err != nil {
			l.failed(err)
		}
		select {
		case l.finished <- done:
		default:
		}
		l.clean()
	}
	if l.seg == nil {
		s, err := createSegment(l.dir, now)
		if err != nil {
			return fmt.Errorf("could not begin a segment of the message log: %w", err)
		}
		l.seg = s
	}
	n, err := l.seg.append(b)
	if err != nil {
		if l.seg.undo() != nil { // readers pass over its torn end
			err = errors.Join(err, l.seg.close())
			l.seg = nil
		}
		return fmt.Errorf("could not write to the message log: %w", err)
	}
	l.stats.blocks.Add(1)
	l.stats.bytes.Add(uint64(n))
	return nil
}

// Stats returns the counts.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	queued := l.queued
	l.mu.Unlock()
	return Stats{
		Records: l.stats.records.Load(), Blocks: l.stats.blocks.Load(), Bytes: l.stats.bytes.Load(), Lost: l.stats.lost.Load(), Queued: queued,
	}
}

// Close writes what is in memory, syncs and closes the segment. Nothing may be put afterwards.
func (l *Log) Close() error {
	var err error
	l.closed.Do(func() {
		close(l.stop)
		l.done.Wait()
		err = l.Flush()
		l.writing.Lock()
		defer l.writing.Unlock()
		if l.seg != nil {
			err = errors.Join(err, l.seg.close())
			l.seg = nil
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.full) == 0 && l.cur.count == 0 { // else the next start finds what the disk did not take
			err = errors.Join(err, l.keep.close())
		}
		l.keep = nil
	})
	return err
}

func (l *Log) failed(err error) {
	if l.o.Failed != nil {
		l.o.Failed(err)
	}
}
