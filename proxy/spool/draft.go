package spool

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"sluice/proxy/smtp"
)

// Draft is a message on its way into the spool. It belongs to one goroutine.
type Draft struct {
	s    *Spool
	tail *tail
	over bool
}

// Create begins a message. It costs nothing until the message outgrows memory. The error is ErrFull, ErrBad or ErrClosed.
func (s *Spool) Create() (*Draft, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	if err := s.hasRoom(); err != nil {
		return nil, err
	}
	return &Draft{s: s}, nil
}

// OpenSpill opens the file for what is beyond memory: it serves as smtp.DataOptions.OpenSpill, so that a large message is
// written where it will stay while it arrives.
func (d *Draft) OpenSpill() (smtp.Spill, error) {
	if d.tail != nil || d.over {
		return nil, errors.New("the message has its file already, or is over")
	}
	id := d.s.newIDs(1)
	f, err := d.s.d.create(tailName(id))
	if err != nil {
		return nil, fmt.Errorf("could not open a file for a large message: %w", err)
	}
	d.tail = &tail{s: d.s, id: id, f: f}
	return d.tail, nil
}

// Commit stores prefix (header lines that stand before the body, may be nil) and body with its envelope, and returns the IDs
// of its deliveries, one for each domain and every 64 recipients, once all is on disk. The body stays the caller's; if it
// spilled, then by OpenSpill. An error is ErrFull, ErrBad or ErrClosed with its cause, or says what is wrong with the
// envelope; nothing is kept then that could be delivered.
func (d *Draft) Commit(env *Envelope, prefix []byte, body *smtp.Body) ([]ID, error) {
	return d.commit(env, prefix, body, "", nil)
}

// CommitHeld does as Commit, and the deliveries are on hold from the first moment, which no crash can make undone.
func (d *Draft) CommitHeld(env *Envelope, prefix []byte, body *smtp.Body, why string) ([]ID, error) {
	if why == "" {
		return nil, errors.New("a hold needs a reason")
	}
	return d.commit(env, prefix, body, why, nil)
}

// commit stores the message: on hold where hold says why, and in one step with it what became of other deliveries.
func (d *Draft) commit(env *Envelope, prefix []byte, body *smtp.Body, hold string, also []*state) ([]ID, error) {
	if d.over {
		return nil, errors.New("the message was committed or aborted before")
	}
	defer d.Abort()
	if len(env.Rcpts) == 0 {
		return nil, errors.New("the message has no recipients")
	}
	if err := d.s.hasRoom(); err != nil && len(also) == 0 {
		return nil, err
	}
	e := &entry{env: *env, size: int64(len(prefix)) + body.Size(), facts: body.Facts(prefix), states: also}
	e.env.Rcpts, e.parts = split(env.Rcpts)
	if body.Spilled() {
		if d.tail == nil {
			return nil, errors.New("the body spilled elsewhere; use OpenSpill of the draft")
		}
		e.tail = body.Size() - int64(len(body.Bytes()))
		if err := d.tail.keep(e.tail); err != nil {
			return nil, d.s.failed(err)
		}
	}
	if e.tail > 0 {
		e.tailID = d.tail.id
	}
	e.first = d.s.newIDs(len(e.parts))
	if hold != "" {
		e.hold(hold)
	}
	ids, err := d.s.store(e, prefix, body.Bytes(), len(also) == 0)
	if e.tail > 0 && (err == nil || errors.Is(err, ErrBad)) { // what is on disk of it nobody knows: the next start does
		d.tail = nil
	}
	return ids, err
}

// Abort drops what was not committed. It may be called at any time, also after Commit.
func (d *Draft) Abort() {
	d.over = true
	if d.tail != nil {
		d.tail.drop()
		d.tail = nil
	}
}

// store writes an entry and makes its deliveries known. mail tells that it is new mail, which may be refused for lack of room.
func (s *Spool) store(e *entry, prefix, mem []byte, mail bool) ([]ID, error) {
	meta := e.append(make(fields, 0, 512))
	if len(meta) > maxMeta || len(prefix)+len(mem) > maxBody {
		return nil, fmt.Errorf("the message has an envelope of %d bytes or %d bytes in memory, which is more than the spool takes", len(meta), len(mem))
	}
	o := &op{kind: kEntry, meta: meta, body: [2][]byte{prefix, mem}, bodySum: sumOf(prefix, mem), sync: true, mail: mail, done: make(chan struct{})}
	ids := make([]ID, len(e.parts))
	for i := range ids {
		ids[i] = e.first.nth(i)
	}
	var news []*Delivery
	o.landed = func(p place, g *segment) {
		g.live += int64(p.size)
		s.countTail(e, 1)
		for i := range e.parts {
			s.place(e, i, p)
		}
		for _, st := range e.states {
			s.stateLanded(st, p, g)
		}
		if s.o.Arrived == nil {
			return
		}
		for _, id := range ids {
			news = append(news, s.delivery(s.x.get(id)))
		}
	}
	s.mu.Lock()
	err := s.push(o)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := o.await(); err != nil {
		return nil, err
	}
	for _, n := range news {
		s.o.Arrived(n)
	}
	return ids, nil
}

// place makes a slot for delivery number i of e, whose record stands at p. s.mu is held.
func (s *Spool) place(e *entry, i int, p place) *slot {
	slot := s.x.add(e.first.nth(i))
	slot.at, slot.nth, slot.user, slot.move = p, uint16(i), e.env.User, e.move
	slot.left = e.parts[i].all()
	slot.domain = s.x.enter(e.parts[i].domain)
	slot.born = seconds(e.env.Received)
	slot.due = slot.born
	if e.env.Class != "" {
		slot.flags |= notice
	}
	first := true
	if len(e.parts) > 1 {
		slot.flags |= many
		s.x.siblings[e.first]++
		first = s.x.siblings[e.first] == 1
	}
	if e.env.User != 0 && e.env.Class != ClassNotice {
		slot.flags |= owned
		if first {
			s.x.own(e.env.User)
		}
	}
	return slot
}

// newIDs gives n IDs in a row.
func (s *Spool) newIDs(n int) ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID = max(s.lastID+1, uint64(s.o.Now().Sub(epoch).Microseconds()))
	first := s.lastID
	s.lastID += uint64(n - 1)
	return ID(first<<tagBits | uint64(s.tag))
}

// failed spoils the spool where err says that a sync failed, and gives what the caller is to hear.
func (s *Spool) failed(err error) error {
	if noRoom(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	if !errors.As(err, new(syncFailed)) {
		return err
	}
	s.finish(nil, err)
	return s.Err()
}

// tail is the end of a large message, in a file of its own.
type tail struct {
	s  *Spool
	id ID
	f  file
}

func tailName(id ID) string { return id.String() + suffixTail }

func tailID(name string) (ID, bool) {
	base, ok := strings.CutSuffix(name, suffixTail)
	if !ok {
		return 0, false
	}
	id, err := ParseID(base)
	return id, err == nil
}

// Write takes more of the message as long as the file system has room.
func (t *tail) Write(p []byte) (int, error) {
	if err := t.s.hasRoom(); err != nil {
		return 0, err
	}
	return t.f.Write(p)
}

func (t *tail) ReadAt(p []byte, off int64) (int, error) { return t.f.ReadAt(p, off) }

// Close ends reading. What becomes of the file the draft says.
func (t *tail) Close() error { return t.f.Close() }

// keep has the file on disk.
func (t *tail) keep(size int64) error {
	if n, err := t.f.size(); err != nil || n != size {
		return fmt.Errorf("the file of a large message has %d bytes where %d were written: %w", n, size, errors.Join(err, io.ErrShortWrite))
	}
	if err := t.f.sync(); err != nil {
		return syncFailed{err}
	}
	if err := t.s.d.syncDir(); err != nil {
		return syncFailed{err}
	}
	return nil
}

func (t *tail) drop() {
	_ = t.f.Close() // it goes in any case; what stays is swept at the next start
	_ = t.s.d.remove(tailName(t.id))
}
