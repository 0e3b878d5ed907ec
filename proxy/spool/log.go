package spool

import (
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"syscall"
	"time"
)

// op is one record on its way to the disk. Those that come while others are being synced go together with the next sync.
type op struct {
	kind    uint8
	meta    []byte
	body    [2][]byte
	bodySum uint32
	sync    bool // somebody waits for it to be on disk
	// mail: refused when there is no room, and always waited for. Anything else waits for room, since it has happened already.
	mail bool
	// landed is called under Spool.mu once the record is where it belongs; p.size is that of the whole record.
	landed func(p place, s *segment)
	err    error
	done   chan struct{} // nil where nobody waits
}

const (
	writeAtOnce = 1 << 20  // bytes gathered for one write
	mostPending = 64 << 20 // bytes on their way; who brings more waits
)

func (o *op) bytes() int64 {
	return recHeadSize + int64(len(o.meta)) + int64(len(o.body[0])) + int64(len(o.body[1]))
}

// push puts o into the log's order. s.mu is held.
func (s *Spool) push(o *op) error {
	for s.pendingBytes > mostPending && s.state() == nil {
		s.space.Wait()
	}
	if err := s.state(); err != nil {
		return err
	}
	if o.mail && s.starved != nil {
		return s.starved
	}
	s.pending = append(s.pending, o)
	s.pendingBytes += o.bytes()
	s.work.Signal()
	return nil
}

// state tells why nothing is taken, nil where it is. s.mu is held.
func (s *Spool) state() error {
	switch {
	case s.bad != nil:
		return s.bad
	case s.closing:
		return ErrClosed
	}
	return nil
}

// await waits until o is on disk.
func (o *op) await() error {
	<-o.done
	return o.err
}

// commit writes what is pending until the spool is closed.
func (s *Spool) commit() {
	defer close(s.committed)
	for {
		runtime.Gosched() // who is about to bring something shares the next sync: on an idle machine this is nobody, and costs nothing
		s.mu.Lock()
		for len(s.pending) == 0 && !s.closing {
			s.work.Wait()
		}
		batch := s.pending
		s.pending, s.spare = s.spare[:0], nil
		s.pendingBytes = 0
		s.space.Broadcast()
		bad := s.bad
		s.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		if bad == nil {
			bad = s.write(batch)
		}
		s.finish(batch, bad)
	}
}

// finish tells all who wait.
func (s *Spool) finish(batch []*op, bad error) {
	s.mu.Lock()
	if bad != nil && s.bad == nil {
		s.bad = fmt.Errorf("%w: %w", ErrBad, bad)
		s.space.Broadcast()
	}
	s.spare = batch
	for i, o := range batch {
		if bad != nil && o.err == nil {
			o.err = s.bad
		}
		if o.done != nil {
			close(o.done)
		}
		batch[i] = nil
	}
	s.mu.Unlock()
	if bad != nil && s.o.Alarm != nil {
		s.once.Do(func() { s.o.Alarm(fmt.Errorf("%w: %w", ErrBad, bad)) })
	}
}

// write has the batch on disk. Messages that were refused for lack of room have their error; any other error spoils the
// spool. Of a batch that fills the segment the rest goes to the next one.
func (s *Spool) write(batch []*op) error {
	for len(batch) > 0 {
		n, err := s.run(batch)
		if err == nil {
			batch = batch[n:]
			s.starve(nil)
			continue
		}
		if !noRoom(err) {
			return err
		}
		if batch, err = s.withoutMail(batch, err); err != nil {
			return err
		}
	}
	return nil
}

// withoutMail cuts off what lies behind the last good record, refuses the messages of a batch that found no room, and
// returns what has happened already and must be written once there is some.
func (s *Spool) withoutMail(batch []*op, cause error) ([]*op, error) {
	if err := s.cur.file.truncate(s.end); err != nil {
		return nil, errors.Join(cause, err)
	}
	s.starve(fmt.Errorf("%w: %w", ErrFull, cause))
	left := make([]*op, 0, len(batch))
	for _, o := range batch {
		if o.mail {
			o.err = s.starved
		} else {
			left = append(left, o)
		}
	}
	if len(left) == len(batch) { // there was no mail to make do without
		s.mu.Lock()
		closing := s.closing
		s.mu.Unlock()
		if closing {
			return nil, cause
		}
		time.Sleep(s.o.whenFull)
	}
	return left, nil
}

// starve has all mail refused, with why, until there is room again. What waits already need not wait for that.
func (s *Spool) starve(why error) {
	if why == nil && s.starved == nil { // set by this goroutine alone
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starved = why
	if why == nil {
		return
	}
	stay := s.pending[:0]
	for _, o := range s.pending {
		if !o.mail {
			stay = append(stay, o)
			continue
		}
		s.pendingBytes -= o.bytes()
		o.err = why
		close(o.done)
	}
	clear(s.pending[len(stay):])
	s.pending = stay
	s.space.Broadcast()
}

func noRoom(err error) bool {
	return !errors.As(err, new(syncFailed)) && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

// run writes as much of the batch as the segment takes, at least one record, and returns how many those are.
func (s *Spool) run(batch []*op) (int, error) {
	if s.end > segHeadSize && s.end+batch[0].bytes() > s.o.SegmentSize {
		if err := s.rotate(); err != nil {
			return 0, err
		}
	}
	size, sync, n := s.end, false, 0
	buf, idx := s.buf[:0], len(s.idx)
	var err error
	for _, o := range batch {
		if n > 0 && size+o.bytes() > s.o.SegmentSize {
			break
		}
		buf = s.appendRecord(buf, o, size)
		size += o.bytes()
		sync = sync || o.sync
		n++
		if len(buf) >= writeAtOnce {
			if _, err = s.cur.file.Write(buf); err != nil {
				break
			}
			buf = buf[:0]
		}
	}
	if err == nil && len(buf) > 0 {
		_, err = s.cur.file.Write(buf)
	}
	s.buf = buf[:0]
	if err != nil {
		s.idx = s.idx[:idx]
		return 0, err
	}
	if sync {
		if err := s.cur.file.sync(); err != nil {
			return 0, syncFailed{err}
		}
		s.durable = size
	}
	s.land(batch[:n])
	return n, nil
}

// appendRecord appends the record of o, which is to stand at pos, and notes it for the index.
func (s *Spool) appendRecord(buf []byte, o *op, pos int64) []byte {
	h := recHead{pos: uint32(pos), kind: o.kind, meta: uint32(len(o.meta)), body: uint32(len(o.body[0]) + len(o.body[1])), bodySum: o.bodySum, durable: uint32(s.durable)}
	n := len(buf)
	buf = append(buf, make([]byte, recHeadSize)...)
	h.put(buf[n:], &s.cur.head.marker, o.meta)
	if len(s.idx) <= mostIdx {
		s.idx = append(append(s.idx, buf[n:]...), o.meta...)
	}
	return append(append(append(buf, o.meta...), o.body[0]...), o.body[1]...)
}

// land tells the index where records stand.
func (s *Spool) land(ops []*op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range ops {
		if o.landed != nil {
			o.landed(place{s.cur.key, uint32(s.end), uint32(o.bytes())}, s.cur)
		}
		s.end += o.bytes()
	}
	s.cur.size = s.end
}

// rotate seals the segment and begins the next one.
func (s *Spool) rotate() error {
	next, err := createSegment(s.d, s.nextHead())
	if err != nil {
		return err
	}
	if err := s.seal(); err != nil {
		return errors.Join(err, next.close())
	}
	s.number++
	s.begin(next)
	return nil
}

// nextHead is that of the segment to be made.
func (s *Spool) nextHead() segHead {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stamp = max(s.stamp+1, uint64(max(s.o.Now().UnixNano(), 0)))
	return segHead{tag: s.tag, number: s.number + 1, stamp: s.stamp}
}

// begin makes a new segment the current one.
func (s *Spool) begin(next *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adopt(next)
	s.cur, s.end, s.durable, s.idx = next, next.size, next.size, s.idx[:0]
}

// seal ends the current segment: all of it is on disk, and says so.
func (s *Spool) seal() error {
	if err := s.cur.file.sync(); err != nil {
		return syncFailed{err}
	}
	s.durable = s.end
	o := &op{kind: kSeal}
	if _, err := s.cur.file.Write(s.appendRecord(nil, o, s.end)); err != nil {
		if terr := s.cur.file.truncate(s.end); terr != nil {
			return errors.Join(err, terr)
		}
	} else {
		s.land([]*op{o})
	}
	if len(s.idx) <= mostIdx {
		if err := writeIdx(s.d, s.cur, s.idx); err != nil {
			_ = s.d.remove(s.cur.name + suffixIdx) // a start without it reads the segment itself
		}
	}
	s.mu.Lock()
	s.cur.sealed = true
	s.mu.Unlock()
	s.tidySoon()
	return nil
}

// sumOf is the checksum of a message's bytes.
func sumOf(a, b []byte) uint32 {
	return crc32.Update(crc32.Checksum(a, castagnoli), castagnoli, b)
}
