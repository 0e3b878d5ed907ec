package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Report tells what a start, or a later look, found of generations that ended.
type Report struct {
	Generations int
	Living      int // generations whose process lives on
	Deliveries  int
	Torn        int      // records that were being written at the end; nobody was told that they are kept
	Damaged     []string // stretches of segments that were on disk and cannot be read any more
	Interrupted []Interrupted
	SetAside    []ID // of these, those that are on hold now because it happened too often
}

// Interrupted is a delivery that was being tried: nobody knows whether the destination took it.
type Interrupted struct {
	ID
	Message string   // its id in the log
	To      []string // those of its recipients who were not settled
}

// replay is one reading of what generations left.
type replay struct {
	s       *Spool
	tags    map[uint16]bool // taken in this go
	foreign map[uint16]bool // somebody else's still
	gone    map[ID]*segment // deliveries that are done: the youngest segment that says so
	copies  []copied        // records of those
	late    map[ID]*orphan  // states that came by before their delivery
	leases  map[ID]tried    // the latest try
	crashed map[uint16]bool // tags whose owner crashed
	tails   map[ID]ID       // files of large messages: the first delivery of their entry
	news    []ID
	rep     Report
}

// tried is a try that was begun.
type tried struct {
	ver uint32 // of the delivery then
	by  uint16 // the tag of who began it
}

// copied is a record of an entry with a delivery that is done.
type copied struct {
	id  ID
	seg *segment
}

// orphan is a state of a delivery that is not known here (yet).
type orphan struct {
	st  *state
	at  place
	pin *segment // kept for it
}

// Takeover takes the deliveries of generations over whose process has ended. It is called by Open, unless Keep is set, and
// may be called at any time.
func (s *Spool) Takeover() (*Report, error) {
	s.takeMu.Lock()
	defer s.takeMu.Unlock()
	r := &replay{s: s, gone: map[ID]*segment{}, late: map[ID]*orphan{}, leases: map[ID]tried{}, crashed: map[uint16]bool{}, tails: map[ID]ID{}}
	locks, err := r.take()
	if err != nil {
		return nil, err
	}
	if len(r.tags) == 0 {
		return &r.rep, nil
	}
	s.mu.Lock()
	maps.Copy(s.taken, locks)
	before := s.half
	s.half = true
	s.mu.Unlock()
	if err := r.all(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.half = before
	s.mu.Unlock()
	r.announce()
	if len(r.rep.Damaged) > 0 && s.o.Alarm != nil {
		s.o.Alarm(fmt.Errorf("the spool is damaged: what stood in %s cannot be read, so mail may be lost; the files are kept, restore them or move them away", strings.Join(r.rep.Damaged, "; ")))
	}
	s.tidySoon()
	return &r.rep, nil
}

// all reads what is there and brings it up to date.
func (r *replay) all() error {
	if err := r.read(); err != nil {
		return err
	}
	r.settle()
	if err := r.bury(); err != nil {
		return err
	}
	if err := r.interrupted(); err != nil {
		return err
	}
	return r.sweep()
}

// take locks all tags whose owner has ended.
func (r *replay) take() (map[uint16]io.Closer, error) {
	locks := map[uint16]io.Closer{}
	r.tags = map[uint16]bool{}
	for {
		seen, err := r.s.foreignTags()
		if err != nil {
			return nil, err
		}
		r.foreign = map[uint16]bool{}
		again := false
		for tag, hasLock := range seen {
			if r.tags[tag] {
				continue
			}
			var c io.Closer
			if hasLock {
				c, err = r.s.d.take(lockName(tag))
			} else {
				c, err = r.s.d.lock(lockName(tag))
			}
			if err != nil {
				return nil, errors.Join(fmt.Errorf("could not take over what generation %03x left: %w", tag, err), closeAll(locks))
			}
			if c == nil {
				r.foreign[tag] = true
				continue
			}
			locks[tag], r.tags[tag], again = c, true, true
			r.crashed[tag] = r.s.says(lockName(tag))
		}
		if !again { // who ends gives up all its tags, but one by one
			r.rep.Generations, r.rep.Living = len(locks), len(r.foreign)
			return locks, nil
		}
	}
}

func closeAll(locks map[uint16]io.Closer) (err error) {
	for _, c := range locks {
		err = errors.Join(err, c.Close())
	}
	return err
}

// foreignTags lists the tags of the folder that this process does not own, and whether they have a file to lock.
func (s *Spool) foreignTags() (map[uint16]bool, error) {
	names, err := s.d.list()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[uint16]bool{}
	for _, n := range names {
		base, suffix, _ := strings.Cut(n, ".")
		tag, _, ok := parseSegName(base)
		if id, is := tailID(n); is {
			tag, ok = id.tag(), true
		}
		if "."+suffix == suffixLock {
			var t uint16
			if k, _ := fmt.Sscanf(base, "%03x", &t); k == 1 && lockName(t) == n {
				tag, ok = t, true
			}
		}
		if _, mine := s.taken[tag]; !ok || mine || tag == s.tag || strings.HasSuffix(n, suffixBad) {
			continue
		}
		seen[tag] = seen[tag] || "."+suffix == suffixLock
	}
	return seen, nil
}

// read goes through the segments of the tags.
func (r *replay) read() error {
	names, err := r.s.d.list()
	if err != nil {
		return err
	}
	type one struct {
		name   string
		tag    uint16
		number uint32
	}
	var all []one
	for _, n := range names {
		base, ok := strings.CutSuffix(n, suffixSeg)
		if tag, number, is := parseSegName(base); ok && is && r.tags[tag] {
			all = append(all, one{base, tag, number})
		}
	}
	slices.SortFunc(all, func(a, b one) int { return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.tag, b.tag)) })
	c := &scanner{d: r.s.d}
	for _, f := range all {
		g, err := c.openSegment(f.name)
		if err != nil {
			return fmt.Errorf("could not read %s%s: %w", f.name, suffixSeg, err)
		}
		g.head.tag = f.tag
		r.s.mu.Lock()
		r.s.adopt(g)
		r.s.stamp = max(r.s.stamp, g.head.stamp)
		r.s.mu.Unlock()
		g.suspect = true
		holes, err := c.scan(g, func(f *found) {
			r.s.mu.Lock()
			defer r.s.mu.Unlock()
			r.record(g, f)
		})
		if err != nil {
			return fmt.Errorf("could not read %s%s: %w", f.name, suffixSeg, err)
		}
		r.note(g, holes)
		// What a killed program wrote and never synced is on disk before anything is built on it.
		if g.suspect {
			if err := g.file.sync(); err != nil {
				return fmt.Errorf("could not have %s%s on disk: %w", f.name, suffixSeg, err)
			}
		}
	}
	return nil
}

// note counts what is no record.
func (r *replay) note(g *segment, holes []hole) {
	for _, h := range holes {
		if h.torn {
			r.rep.Torn++
			continue
		}
		g.kept, g.pins = true, g.pins+1 // for whoever can read more of it than we do
		r.rep.Damaged = append(r.rep.Damaged, fmt.Sprintf("%s%s: bytes %d to %d", g.name, suffixSeg, h.from, h.to))
	}
}

// settle gives late states to their deliveries, and keeps those of deliveries that another generation holds still: it
// may be about to end.
func (r *replay) settle() {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.weigh()
	for id, o := range s.orphans {
		if r.tags[id.tag()] || !r.foreign[id.tag()] {
			o.pin.pins--
			delete(s.orphans, id)
			if x := s.x.get(id); x != nil && !o.st.done && o.st.ver > x.ver {
				s.stateLanded(o.st, o.at, o.pin)
			}
		}
	}
	for id, o := range r.late {
		g := s.segs[o.at.seg]
		if x := s.x.get(id); x != nil {
			if o.st.ver > x.ver {
				s.stateLanded(o.st, o.at, g)
			}
		} else if r.gone[id] == nil && r.foreign[id.tag()] {
			s.pin(id, o, g)
		}
	}
	for id, g := range r.gone {
		if r.foreign[id.tag()] {
			s.pin(id, &orphan{st: &state{id: id, done: true}, at: place{seg: g.key}}, g)
		}
	}
}

func (s *Spool) pin(id ID, o *orphan, g *segment) {
	if old := s.orphans[id]; old != nil {
		old.pin.pins--
	}
	o.pin = g
	g.pins++
	s.orphans[id] = o
}

// sweep removes files of large messages that no delivery needs, and what a start left that was killed.
func (r *replay) sweep() error {
	names, err := r.s.d.list()
	if err != nil {
		return err
	}
	s := r.s
	for _, n := range names {
		base, isIdx := strings.CutSuffix(n, suffixIdx)
		if tag, _, ok := parseSegName(base); isIdx && ok && r.tags[tag] && !slices.Contains(names, base+suffixSeg) {
			if err := s.d.remove(n); err != nil {
				return fmt.Errorf("could not remove an index without its segment: %w", err)
			}
		}
		id, ok := tailID(n)
		if !ok || !r.tags[id.tag()] {
			continue
		}
		s.mu.Lock()
		first, known := r.tails[id]
		open := known && s.anyOpen(first)
		if open {
			s.tails[id.tag()]++
		}
		s.mu.Unlock()
		if open {
			continue
		}
		if err := s.d.remove(n); err != nil {
			return fmt.Errorf("could not remove the rest of a message that is gone: %w", err)
		}
	}
	return nil
}

// anyOpen tells whether the entry whose first delivery is given has one that is open. s.mu is held.
func (s *Spool) anyOpen(first ID) bool {
	if x := s.x.get(first); x != nil {
		return true
	}
	return s.x.siblings[first] > 0
}

// announce tells of the deliveries that were taken over.
func (r *replay) announce() {
	s := r.s
	for _, id := range r.news {
		s.mu.Lock()
		var d *Delivery
		if x := s.x.get(id); x != nil {
			r.rep.Deliveries++
			d = s.delivery(x)
		}
		s.mu.Unlock()
		if d != nil && s.o.Arrived != nil {
			s.o.Arrived(d)
		}
	}
}
