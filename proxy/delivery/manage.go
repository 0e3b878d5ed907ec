package delivery

import (
	"errors"
	"slices"
	"strings"
	"time"

	"sluice/proxy/spool"
)

// Filter selects deliveries; empty fields select all.
type Filter struct {
	ID       spool.ID
	Message  string // its id in the log
	User     string // name
	Identity string
	Sender   string // address or domain
	Domain   string // of the recipients
	Campaign string // that it is a copy of
	Held     *bool
	Owner    uint32 // id of the user
	Why      string // what a hold says
}

// cheap tells whether memory alone says that a delivery is not meant.
func (f *Filter) cheap(d *spool.Delivery) bool {
	return (f.ID == 0 || f.ID == d.ID) && (f.Domain == "" || strings.EqualFold(f.Domain, d.Domain)) && (f.Owner == 0 || f.Owner == d.User) && (f.Held == nil || *f.Held == d.Held)
}

// reads tells whether the disk must be asked.
func (f *Filter) reads() bool {
	return f.Message != "" || f.User != "" || f.Why != "" || f.Identity != "" || f.Sender != "" || f.Campaign != ""
}

func (f *Filter) matches(e *spool.Envelope, st *spool.State) bool {
	return (f.Why == "" || f.Why == st.Hold) && (f.Message == "" || f.Message == e.Message) && (f.User == "" || f.User == e.UserName) && (f.Identity == "" || strings.EqualFold(f.Identity, e.Identity)) &&
		(f.Campaign == "" || f.Campaign == e.Campaign) &&
		(f.Sender == "" || strings.EqualFold(f.Sender, e.From) || strings.EqualFold(f.Sender, spool.Domain(e.From)))
}

// Entry is a delivery as people see it.
type Entry struct {
	spool.Delivery
	Envelope spool.Envelope
	State    spool.State
	Size     int64
}

// List returns up to most deliveries from a place on (0: the first), and the place to go on from; 0: that was all.
func (q *Queue) List(f Filter, from uint32, most int) (out []Entry, next uint32, err error) {
	if f.ID != 0 {
		d, err := q.s.Get(f.ID)
		if err != nil {
			return nil, 0, err
		}
		e, err := q.show(d)
		return []Entry{e}, 0, err
	}
	for len(out) < most {
		var some []spool.Delivery
		from = q.s.Each(from, func(d *spool.Delivery) bool {
			if f.cheap(d) {
				some = append(some, *d)
			}
			return len(some) < most-len(out)
		})
		for i := range some {
			e, err := q.show(&some[i])
			if errors.Is(err, spool.ErrUnknown) { // gone meanwhile
				continue
			}
			if err != nil && !errors.Is(err, spool.ErrDamaged) {
				return nil, 0, err
			}
			if f.matches(&e.Envelope, &e.State) {
				out = append(out, e)
			}
		}
		if from == 0 {
			break
		}
	}
	return out, from, nil
}

func (q *Queue) show(d *spool.Delivery) (Entry, error) {
	l, err := q.s.Look(d.ID)
	if err != nil {
		return Entry{Delivery: *d}, err
	}
	return Entry{Delivery: *d, Envelope: l.Envelope, State: l.State, Size: l.Size}, nil
}

// Hold puts deliveries on hold, and returns how many. One that is being tried is when that ends.
func (q *Queue) Hold(f Filter, why string) (int, error) {
	return q.each(f, true, func(id spool.ID) error { return q.s.Hold(id, why) })
}

// Release lifts holds; what was held is due at once.
func (q *Queue) Release(f Filter) (int, error) {
	held := true
	f.Held = &held
	return q.each(f, false, func(id spool.ID) error { return q.again(id, q.s.Release) })
}

// Retry has deliveries due at once, and forgets that their destinations were not reached.
func (q *Queue) Retry(f Filter) (int, error) {
	held := false
	f.Held = &held
	return q.each(f, false, func(id spool.ID) error { return q.again(id, q.s.Retry) })
}

// Delete drops deliveries without a word to anybody. One that is being tried goes when that ends.
func (q *Queue) Delete(f Filter) (int, error) {
	return q.each(f, true, q.s.Delete)
}

// forget takes deliveries out of their lanes.
func (q *Queue) forget(gone map[spool.ID]bool) {
	if len(gone) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.lanes {
		before := len(l.items)
		l.items = slices.DeleteFunc(l.items, func(it item) bool { return gone[it.id] })
		if len(l.items) != before {
			reheap(l)
			q.fix(l)
		}
	}
}

// each does something to all deliveries that are meant; leave tells that they do not wait in their lanes then.
func (q *Queue) each(f Filter, leave bool, do func(spool.ID) error) (n int, err error) {
	gone := map[spool.ID]bool{}
	defer func() {
		if leave {
			q.forget(gone)
		}
	}()
	var ids []spool.ID
	if f.ID != 0 {
		ids = []spool.ID{f.ID}
	} else {
		q.s.Each(0, func(d *spool.Delivery) bool {
			if f.cheap(d) {
				ids = append(ids, d.ID)
			}
			return true
		})
	}
	for _, id := range ids {
		if f.reads() {
			l, err := q.s.Look(id)
			if err != nil || !f.matches(&l.Envelope, &l.State) {
				continue
			}
		}
		err := do(id)
		if errors.Is(err, spool.ErrBusy) {
			q.mu.Lock()
			q.wishes[id] = func() error { return do(id) }
			q.mu.Unlock()
			// It may have ended in between, without having seen the wish.
			if again := do(id); !errors.Is(again, spool.ErrBusy) {
				q.mu.Lock()
				delete(q.wishes, id)
				q.mu.Unlock()
				err = again
			} else {
				err = nil
			}
		}
		if errors.Is(err, spool.ErrUnknown) && f.ID == 0 {
			continue
		}
		if err != nil {
			return n, err
		}
		gone[id] = true
		n++
	}
	return n, nil
}

// again changes a delivery and has it wait for its turn.
func (q *Queue) again(id spool.ID, change func(spool.ID) error) error {
	d, err := q.s.Get(id)
	if err != nil {
		return err
	}
	if err := change(id); err != nil {
		return err
	}
	q.mu.Lock()
	l := q.lane(d.Domain)
	l.misses, l.pause = 0, time.Time{}
	delete(q.waiting, id)
	l.items = slices.DeleteFunc(l.items, func(it item) bool { return it.id == id }) // where it waited until later
	reheap(l)
	q.fix(l)
	q.mu.Unlock()
	q.put(d.Domain, id, q.o.Now())
	return nil
}

// Lane is what waits for one domain.
type Lane struct {
	Domain  string
	Site    string // whose hosts take its mail; "" before the first try
	Waiting int
	Active  int
	Next    time.Time // when something happens; zero where nothing waits
	Misses  int       // tries in a row that did not reach it
	Why     string
}

// Lanes returns the lanes, those with the most deliveries first.
func (q *Queue) Lanes() []Lane {
	q.mu.Lock()
	out := make([]Lane, 0, len(q.lanes))
	for _, l := range q.lanes {
		if l.domain == reports {
			continue
		}
		one := Lane{Domain: l.domain, Waiting: len(l.items), Active: l.active, Misses: l.misses, Why: l.why}
		if l.site != nil {
			one.Site = l.site.name
			for _, w := range l.site.idle {
				if w.l == l {
					one.Active--
				}
			}
		}
		if len(l.items) > 0 {
			one.Next = l.next()
		} else if one.Active == 0 { // its workers wait for what may come
			continue
		}
		out = append(out, one)
	}
	q.mu.Unlock()
	slices.SortFunc(out, func(a, b Lane) int {
		if a.Waiting != b.Waiting {
			return b.Waiting - a.Waiting
		}
		return strings.Compare(a.Domain, b.Domain)
	})
	return out
}
