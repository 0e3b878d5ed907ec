package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"sluice/proxy/smtp"
)

// Delivery is what memory knows of one.
type Delivery struct {
	ID       ID
	User     uint32
	Domain   string // of its recipients
	Due      time.Time
	Born     time.Time
	Attempts int
	Suspect  bool // the program ended while it was being tried
	Rcpts    int  // recipients not settled
	Held     bool
	Delayed  bool
	Notice   bool
	Leased   bool
	Several  bool // the message has other deliveries, or had
	Owed     bool // nothing of it is tried any more, but its sender has not heard yet
}

// delivery shows a slot. s.mu is held.
func (s *Spool) delivery(x *slot) *Delivery {
	return &Delivery{
		ID: x.id, User: x.user, Domain: s.x.domains[x.domain].name, Due: fromSeconds(x.due), Born: fromSeconds(x.born), Attempts: int(x.attempts),
		Suspect: x.crashes > 0 || x.kills > 0, Rcpts: ones(x.left), Held: x.flags&held != 0, Delayed: x.flags&delayed != 0, Notice: x.flags&notice != 0, Leased: x.flags&leased != 0,
		Several: x.flags&many != 0, Owed: x.flags&owed != 0,
	}
}

func ones(n uint64) (k int) {
	for ; n != 0; n &= n - 1 {
		k++
	}
	return k
}

// Get returns what memory knows of a delivery, or ErrUnknown.
func (s *Spool) Get(id ID) (*Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.x.get(id)
	if x == nil {
		return nil, ErrUnknown
	}
	return s.delivery(x), nil
}

// Each calls f with deliveries from a place on (0: the first) until it gives false, and returns the place to go on from; 0:
// all were seen. Those that come or go meanwhile may be missed. f must not call the spool.
func (s *Spool) Each(from uint32, f func(*Delivery) bool) uint32 {
	for {
		s.mu.Lock()
		n, stopped := 0, false
		next := s.x.each(from, func(x *slot) bool {
			n++
			stopped = !f(s.delivery(x))
			return !stopped && n < 1000 // others want the lock, too
		})
		s.mu.Unlock()
		if stopped || next == 0 {
			return next
		}
		from = next
	}
}

// Lease is a delivery that somebody tries. It ends with Settle or Return.
type Lease struct {
	ID       ID
	Envelope Envelope // its Rcpts are those of this delivery
	State    State
	Size     int64 // bytes of the message
	Facts    smtp.Facts

	s     *Spool
	e     *entry
	ver   uint32
	noted *op
	// record is what was read of the entry at once, and still holds the message where that is small; nil once it was taken.
	record *[atOnce]byte
	text   []byte // in it
	sum    uint32 // that it must have
}

// Noted waits until the end of the program could not hide that this delivery was being tried. Whoever is about to do what
// cannot be undone calls it before.
func (l *Lease) Noted() error {
	if l.noted == nil { // it was only looked at
		return nil
	}
	return l.noted.await()
}

// Open tells whether recipient i is not settled.
func (l *Lease) Open(i int) bool { return l.State.Left&(1<<uint(i)) != 0 }

// Lease gives the delivery to the caller. That it is being tried is written without waiting for it (see Noted), so that a
// message that has the program crash is found out. Errors: ErrUnknown, ErrBusy, ErrHeld, ErrDamaged, ErrBad, ErrClosed.
func (s *Spool) Lease(id ID) (*Lease, error) {
	l, err := s.lease(id, false)
	if err != nil {
		return nil, err
	}
	if err := l.note(); err != nil {
		s.unlease(id)
		return nil, err
	}
	return l, nil
}

// note has it written that the delivery, as it is now, is being tried.
func (l *Lease) note() error {
	meta := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(nil, uint64(l.ID)), l.ver)
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	o := &op{kind: kLease, meta: meta, done: make(chan struct{})}
	if err := l.s.push(o); err != nil {
		return err
	}
	l.noted = o
	return nil
}

// Claim gives the delivery to a caller who will not try it. Errors are those of Lease.
func (s *Spool) Claim(id ID) (*Lease, error) {
	l, err := s.lease(id, true)
	switch {
	case errors.Is(err, ErrDamaged):
		return nil, errors.Join(err, s.setAside(id, err))
	case err == nil && l.State.Hold != "":
		s.unlease(id)
		return nil, ErrHeld
	}
	return l, err
}

// Several tells whether the message has other deliveries, or had.
func (l *Lease) Several() bool { return len(l.e.parts) > 1 }

// Each calls f with the deliveries of the message that are open, in order, this one among them, until it gives false. f must
// not call the spool.
func (l *Lease) Each(f func(*Delivery) bool) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	for i := range l.e.parts {
		if x := l.s.x.get(l.e.first.nth(i)); x != nil && !f(l.s.delivery(x)) {
			return
		}
	}
}

// lease marks the delivery as leased and reads what is on disk of it.
func (s *Spool) lease(id ID, evenHeld bool) (*Lease, error) {
	s.mu.Lock()
	x := s.x.get(id)
	err := s.state()
	switch {
	case err != nil:
	case x == nil:
		err = ErrUnknown
	case x.flags&leased != 0:
		err = ErrBusy
	case x.flags&held != 0 && !evenHeld:
		err = ErrHeld
	default:
		x.flags |= leased
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var rec *[atOnce]byte
	if !evenHeld { // who tries it will want the message
		rec = records.Get().(*[atOnce]byte)
	}
	l, err := s.load(id, rec)
	if rec != nil && (err != nil || l.record == nil) {
		records.Put(rec)
	}
	if err != nil {
		s.unlease(id)
		if errors.Is(err, ErrDamaged) && !evenHeld {
			err = errors.Join(err, s.setAside(id, err))
		}
		return nil, err
	}
	return l, nil
}

func (s *Spool) unlease(id ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.x.get(id); x != nil {
		x.flags &^= leased
	}
}

// SetAside ends the lease of a delivery whose message cannot be read: it is on hold then, and an operator hears of it.
func (l *Lease) SetAside(cause error) error {
	l.s.unlease(l.ID)
	return l.s.setAside(l.ID, cause)
}

// setAside puts a delivery on hold whose message cannot be read, and says so.
func (s *Spool) setAside(id ID, cause error) error {
	if s.o.Alarm != nil {
		s.o.Alarm(fmt.Errorf("delivery %v is on hold: %w", id, cause))
	}
	return s.change(id, &State{}, func(st *State) { st.Hold = "damaged: " + cause.Error() })
}

// Look reads what is on disk of a delivery, whoever has leased it.
func (s *Spool) Look(id ID) (*Lease, error) {
	return s.load(id, nil)
}

// load reads entry and state, into rec as far as that is given. Its place may change while it reads, then it reads again.
func (s *Spool) load(id ID, rec *[atOnce]byte) (*Lease, error) {
	for {
		s.mu.Lock()
		x := s.x.get(id)
		if x == nil {
			s.mu.Unlock()
			return nil, ErrUnknown
		}
		cp := *x
		seg, stateSeg := s.segs[cp.at.seg], s.segs[cp.state.seg]
		s.mu.Unlock()
		l, err := s.loadAt(&cp, seg, stateSeg, rec)
		if !errors.Is(err, errRemoved) {
			return l, err
		}
	}
}

func (s *Spool) loadAt(x *slot, seg, stateSeg *segment, rec *[atOnce]byte) (*Lease, error) {
	var room []byte
	if rec != nil {
		room = rec[:]
	}
	h, meta, text, err := readRecord(seg, x.at, room)
	if err != nil {
		return nil, err
	}
	e, ok := parseEntry(meta)
	if !ok || int(x.nth) >= len(e.parts) {
		return nil, fmt.Errorf("%w: its envelope makes no sense", ErrDamaged)
	}
	l := &Lease{ID: x.id, Envelope: e.env, Size: e.size, Facts: e.facts, s: s, e: e, ver: x.ver}
	if text != nil && e.tail == 0 {
		l.record, l.text, l.sum = rec, text, h.bodySum
	}
	l.Envelope.Rcpts = e.rcpts(int(x.nth))
	if x.state.size > 0 {
		meta, err := readMeta(stateSeg, x.state)
		if err != nil {
			return nil, err
		}
		st, ok := stateIn(meta, x.id)
		if !ok {
			return nil, fmt.Errorf("%w: its state makes no sense", ErrDamaged)
		}
		l.State = st.State
	}
	// Memory is newer where a change is on its way.
	l.State.Due, l.State.Attempts, l.State.Crashes, l.State.Kills, l.State.Left, l.State.Delayed = fromSeconds(x.due), int(x.attempts), int(x.crashes), int(x.kills), x.left, x.flags&delayed != 0
	if x.flags&held == 0 {
		l.State.Hold = ""
	}
	return l, nil
}

// stateIn finds the state of a delivery in the fields of a state's or an entry's record.
func stateIn(meta []byte, id ID) (*state, bool) {
	if st, ok := parseState(meta); ok && st.id == id && !isEntry(meta) {
		return st, true
	}
	e, ok := parseEntry(meta)
	if !ok {
		return nil, false
	}
	for _, st := range e.states {
		if st.id == id {
			return st, true
		}
	}
	return nil, false
}

// isEntry tells fields of an entry, which has recipients, from those of a state.
func isEntry(meta []byte) (is bool) {
	each(meta, func(n uint64, _ []byte) { is = is || n == fPart })
	return is
}
