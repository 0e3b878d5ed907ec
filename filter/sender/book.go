package sender

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what is noted. The usual mailbox takes some 150 bytes.
const (
	shards     = 16
	mostNoted  = 1 << 17 // mailboxes of all users
	mostOfUser = 200     // mailboxes of one user
	mostNew    = 50      // mailboxes of one user that are new within an hour: more are names that somebody makes up
)

// A mailbox is found once it was used on foundDays days, each at least apart from the one before: a day's worth of mail, by
// whomever, finds none.
const (
	foundDays   = 3
	apart       = 20 * time.Hour
	forget      = 90 * 24 * time.Hour // unused
	forgetEarly = 14 * 24 * time.Hour // unused, of those that are not found yet
)

// Book notes which mailboxes each user has as the senders of his good mail. Safe for concurrent use.
type Book struct {
	now    func() time.Time
	most   int // per shard
	shards [shards]shelf
	// changed is set where it is not yet: all users share it.
	changed atomic.Bool
}

type shelf struct {
	mu  sync.Mutex
	all map[uint32]*person
	n   int // mailboxes
}

type person struct {
	latest *box // the mailbox noted last: mostly the next message is of it, too
	boxes  map[string]*box
	hour   int64 // in hours since 1970, to which fresh belongs
	fresh  int
}

// box is a mailbox.
type box struct {
	name string
	use
}

// box returns a mailbox, nil where it is not noted.
func (p *person) box(mailbox []byte) *box {
	if p.latest != nil && p.latest.name == string(mailbox) {
		return p.latest
	}
	return p.boxes[string(mailbox)]
}

// use is how a mailbox was used. Times are unix seconds.
type use struct {
	First, Last, Counted int64
	Days                 uint16
	Messages             uint32
}

func (u *use) found() bool { return u.Days >= foundDays }

// over tells whether a mailbox was unused for so long that it is forgotten.
func (u *use) over(now time.Time) bool {
	after := forgetEarly
	if u.found() {
		after = forget
	}
	return now.Unix()-u.Last > int64(after/time.Second)
}

// NewBook returns one that knows nobody; now may be nil.
func NewBook(now func() time.Time) *Book {
	if now == nil {
		now = time.Now
	}
	b := &Book{now: now, most: mostNoted / shards}
	for i := range b.shards {
		b.shards[i].all = map[uint32]*person{}
	}
	return b
}

func (b *Book) shelf(user uint32) *shelf { return &b.shards[user%shards] }

// Found tells whether a mailbox, in the form of policy.AppendMailbox, was found in a user's mail.
func (b *Book) Found(user uint32, mailbox []byte, now time.Time) bool {
	s := b.shelf(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.all[user]
	if p == nil {
		return false
	}
	u := p.box(mailbox)
	return u != nil && u.found() && !u.over(now)
}

// Of lists what is noted of a user by name.
func (b *Book) Of(user uint32) (all []Mailbox) {
	s, now := b.shelf(user), b.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.all[user]; p != nil {
		for name, u := range p.boxes {
			if !u.over(now) {
				all = append(all, Mailbox{name, time.Unix(u.First, 0).UTC(), time.Unix(u.Last, 0).UTC(), int(u.Days), int(u.Messages), u.found()})
			}
		}
	}
	slices.SortFunc(all, byName)
	return all
}

// settle counts a message of a mailbox.
func (b *Book) settle(user uint32, mailbox []byte, now time.Time, bad bool) {
	if bad {
		b.doubt(user, mailbox)
		return
	}
	b.note(user, mailbox, now)
}

// note counts a good message of a mailbox.
func (b *Book) note(user uint32, mailbox []byte, now time.Time) {
	s, at := b.shelf(user), now.Unix()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.person(user)
	u := p.box(mailbox)
	if u != nil && u.over(now) {
		u.use = use{First: at}
	}
	if u == nil {
		if u = s.add(p, string(mailbox), now, b.most); u == nil {
			return
		}
	}
	p.latest = u
	u.Last = max(u.Last, at)
	u.Messages = min(u.Messages+1, 1<<31)
	if at-u.Counted >= int64(apart/time.Second) {
		u.Counted = at
		u.Days = min(u.Days+1, 1<<15)
	}
	b.touch()
}

func (b *Book) touch() {
	if !b.changed.Load() {
		b.changed.Store(true)
	}
}

// doubt forgets a mailbox of which bad mail came before it was found. One that was found stays: bad mail is what locks are for.
func (b *Book) doubt(user uint32, mailbox []byte) {
	s := b.shelf(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.all[user]; p != nil {
		if u := p.box(mailbox); u != nil && !u.found() {
			s.drop(p, string(mailbox))
			b.touch()
		}
	}
}

// person is a user's part; s.mu is held.
func (s *shelf) person(user uint32) *person {
	p := s.all[user]
	if p == nil {
		p = &person{boxes: map[string]*box{}}
		s.all[user] = p
	}
	return p
}

// add notes one more mailbox, if need be in the place of one that is not found; nil where there is no place. s.mu is held.
func (s *shelf) add(p *person, mailbox string, now time.Time, most int) *box {
	if hour := now.Unix() / 3600; hour != p.hour {
		p.hour, p.fresh = hour, 0
	}
	if p.fresh >= mostNew || len(p.boxes) >= mostOfUser && !s.makeRoom(p) || s.n >= most && !s.makeRoom(s.busiest()) {
		return nil
	}
	p.fresh++
	u := &box{mailbox, use{First: now.Unix()}}
	p.boxes[mailbox] = u
	s.n++
	return u
}

// makeRoom drops the mailbox of a user that is not found and was unused longest.
func (s *shelf) makeRoom(p *person) bool {
	oldest, last := "", int64(0)
	for name, u := range p.boxes {
		if !u.found() && (oldest == "" || u.Last < last) {
			oldest, last = name, u.Last
		}
	}
	if oldest == "" {
		return false
	}
	s.drop(p, oldest)
	return true
}

// busiest is of a few users met at random the one with most mailboxes.
func (s *shelf) busiest() (most *person) {
	tries := 16
	for _, p := range s.all {
		if most == nil || len(p.boxes) > len(most.boxes) {
			most = p
		}
		if tries--; tries == 0 {
			break
		}
	}
	return most
}

func (s *shelf) drop(p *person, mailbox string) {
	if p.latest != nil && p.latest.name == mailbox {
		p.latest = nil
	}
	delete(p.boxes, mailbox)
	s.n--
}

// sweep forgets what was unused for long. s.mu is held.
func (s *shelf) sweep(now time.Time) {
	for user, p := range s.all {
		for name, u := range p.boxes {
			if u.over(now) {
				s.drop(p, name)
			}
		}
		if len(p.boxes) == 0 {
			delete(s.all, user)
		}
	}
}
