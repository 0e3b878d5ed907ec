package spool

import "time"

// slot is what memory knows of a delivery: no pointers, so that a million cost the garbage collector nothing.
type slot struct {
	id       ID
	left     uint64 // recipients not settled
	at       place  // the entry's record
	state    place  // the latest state's record; size 0: there is none
	due      uint32 // seconds since the epoch of the spool
	born     uint32
	ver      uint32
	move     uint32
	user     uint32
	domain   uint32
	attempts uint16
	nth      uint16 // of the entry's deliveries
	crashes  uint8
	kills    uint8
	flags    uint8
}

// place is a record on disk.
type place struct {
	seg  uint32 // key of the segment; 0 is none
	pos  uint32
	size uint32
}

const (
	leased uint8 = 1 << iota
	held
	delayed
	notice // the entry is a notice
	many   // the entry has further deliveries
	used   // the slot is in use
	owned  // the entry counts as its user's
	owed   // its sender has not heard what is final
)

const slabSize = 4096

// index holds the slots.
type index struct {
	slabs   []*[slabSize]slot
	free    []uint32
	n       uint32 // slots ever used
	byID    map[ID]uint32
	domains []domain
	domain  map[string]uint32
	unnamed []uint32 // numbers of domains that are free again
	// siblings counts the open deliveries of entries that have several, by the first one's ID.
	siblings map[ID]int
	// waiting counts the entries of each user that are not done, notices left out.
	waiting map[uint32]int
}

// domain is one to which something is to be delivered.
type domain struct {
	name string
	n    uint32 // slots that name it
}

func newIndex() index {
	return index{byID: make(map[ID]uint32), domain: make(map[string]uint32), siblings: make(map[ID]int), waiting: make(map[uint32]int)}
}

func (x *index) at(i uint32) *slot { return &x.slabs[i/slabSize][i%slabSize] }

func (x *index) get(id ID) *slot {
	i, ok := x.byID[id]
	if !ok {
		return nil
	}
	return x.at(i)
}

// add gives a new slot for id.
func (x *index) add(id ID) *slot {
	var i uint32
	if k := len(x.free); k > 0 {
		i, x.free = x.free[k-1], x.free[:k-1]
	} else {
		if int(x.n) == len(x.slabs)*slabSize {
			x.slabs = append(x.slabs, new([slabSize]slot))
		}
		i = x.n
		x.n++
	}
	x.byID[id] = i
	s := x.at(i)
	*s = slot{id: id, flags: used}
	return s
}

func (x *index) remove(id ID) {
	i := x.byID[id]
	delete(x.byID, id)
	x.leave(x.at(i).domain)
	*x.at(i) = slot{}
	x.free = append(x.free, i)
}

// enter gives the number of a domain, for one slot more.
func (x *index) enter(name string) uint32 {
	n, ok := x.domain[name]
	switch k := len(x.unnamed); {
	case ok:
	case k > 0:
		n, x.unnamed = x.unnamed[k-1], x.unnamed[:k-1]
	default:
		n = uint32(len(x.domains))
		x.domains = append(x.domains, domain{})
	}
	if !ok {
		x.domains[n].name, x.domain[name] = name, n
	}
	x.domains[n].n++
	return n
}

// leave forgets a domain with the last slot that names it: whom mail goes to in the course of months, nobody bounds.
func (x *index) leave(n uint32) {
	d := &x.domains[n]
	if d.n--; d.n == 0 {
		delete(x.domain, d.name)
		*d = domain{}
		x.unnamed = append(x.unnamed, n)
	}
}

// own counts an entry as its user's with the first of its deliveries that comes, and disown forgets it with the last.
func (x *index) own(user uint32) { x.waiting[user]++ }

func (x *index) disown(user uint32) {
	if x.waiting[user]--; x.waiting[user] == 0 {
		delete(x.waiting, user)
	}
}

// each calls f with all slots in use from number from on until it gives false, and returns where to go on; 0: all was seen.
func (x *index) each(from uint32, f func(*slot) bool) uint32 {
	for i := from; i < x.n; i++ {
		if s := x.at(i); s.flags&used != 0 && !f(s) {
			return i + 1
		}
	}
	return 0
}

func seconds(t time.Time) uint32 {
	d := t.Sub(epoch) / time.Second
	return uint32(max(0, min(d, 1<<32-1)))
}

func fromSeconds(s uint32) time.Time { return epoch.Add(time.Duration(s) * time.Second) }

// apply takes over a state that is newer. Whether the delivery is leased is another thing.
func (s *slot) apply(st *state) {
	s.ver, s.left, s.due = st.ver, st.Left, seconds(st.Due)
	s.attempts, s.crashes, s.kills = uint16(min(st.Attempts, 1<<16-1)), uint8(min(st.Crashes, 1<<8-1)), uint8(min(st.Kills, 1<<8-1))
	s.flags &^= held | delayed | owed
	if st.Owed() {
		s.flags |= owed
	}
	if st.Hold != "" {
		s.flags |= held
	}
	if st.Delayed {
		s.flags |= delayed
	}
}
