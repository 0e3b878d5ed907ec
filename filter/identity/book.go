package identity

import (
	"strings"
	"sync"
	"time"

	"sluice/filter"
	"sluice/filter/limit"
)

const (
	shards = 64
	// NewPerHour is how many identities of a user may be met for the first time in an hour; further ones are Other
	// (ATT4). Whoever makes up a name for each message gains nothing.
	NewPerHour = 50
	// DefaultMost bounds the identities in memory. One costs about 250 bytes with its name.
	DefaultMost = 1 << 20
	// Forget is how long an identity is known after its last message.
	Forget = 90 * 24 * time.Hour
	tries  = 16
)

// Entry is one identity with what it sent since it was met, or since it was reset.
type Entry struct {
	User       uint32
	Name       string
	First      time.Time
	Last       time.Time
	Messages   uint64 // that were judged
	Recipients uint64 // that were told 250
	Refused    uint64 // messages, for whatever reason
	Bad        uint64 // of them, those that are bad by themselves
	Code       string // public code of the last refusal
	Reset      time.Time
}

// Book is the account of all identities. It holds at most a fixed number: where it is full, of a few met at random the
// one that was silent longest goes. Safe for concurrent use.
type Book struct {
	most   int // per shard
	shards [shards]shelf
}

// shelf holds the identities of some users.
type shelf struct {
	mu    sync.Mutex
	start time.Time
	n     int
	users map[uint32]*holder
	dirty []*entry
	_     [64]byte
}

// holder is one user with identities.
type holder struct {
	known map[string]*entry
	fresh limit.Window // those met lately for the first time

	told, untold limit.Window // messages with an identity, and without
	quiet        [alarms]time.Duration
}

type entry struct {
	Entry
	dirty bool
}

// NewBook returns an empty book that holds at most most identities; 0 means DefaultMost.
func NewBook(most int) *Book {
	if most <= 0 {
		most = DefaultMost
	}
	b := &Book{most: max(1, most/shards)}
	start := time.Now()
	for i := range b.shards {
		b.shards[i].start, b.shards[i].users = start, map[uint32]*holder{}
	}
	return b
}

func (b *Book) shelf(user uint32) *shelf { return &b.shards[user*0x9E3779B1>>26%shards] }

// Meet returns the identity as the book knows it: name itself, or Other where the user had too many new ones within the
// last hour. What it returns does not share memory with name.
func (b *Book) Meet(user uint32, name string, at time.Time) string {
	name, _ = b.meet(user, name, at)
	return name
}

func (b *Book) meet(user uint32, name string, at time.Time) (known string, a Alarm) {
	s := b.shelf(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holder(user)
	if e, ok := h.known[name]; ok {
		return e.Name, a
	}
	now := max(0, at.Sub(s.start))
	if name != Other {
		if n := h.fresh.Sum(now, time.Hour); n >= NewPerHour {
			name, a = Other, h.alarm(Alarm{User: user, Kind: Exploding, N: n, At: at}, now)
			if e, ok := h.known[name]; ok {
				return e.Name, a
			}
		} else {
			h.fresh.Add(now, time.Hour, 1)
		}
	}
	e := s.add(h, Entry{User: user, Name: strings.Clone(name), First: at, Last: at}, b.most)
	s.touch(e)
	return e.Name, a
}

// Count accounts for a message that has ended.
func (b *Book) Count(user uint32, name string, at time.Time, o filter.Outcome) {
	s := b.shelf(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holder(user)
	e, ok := h.known[name]
	if !ok { // it was forgotten meanwhile
		e = s.add(h, Entry{User: user, Name: strings.Clone(name), First: at}, b.most)
	}
	s.touch(e)
	e.Last = at
	e.Messages++
	e.Recipients += uint64(o.Accepted)
	if o.Verdict == nil || !o.Verdict.Refused() || o.Verdict.Action == filter.HighRisk && o.Accepted > 0 {
		return
	}
	e.Refused++
	if d := o.Verdict.Decisive(); d != nil {
		e.Code = d.Code
		if d.Class.Bad() {
			e.Bad++
		}
	}
}

func (s *shelf) holder(user uint32) *holder {
	h, ok := s.users[user]
	if !ok {
		h = &holder{known: map[string]*entry{}}
		s.users[user] = h
	}
	return h
}

// add puts an identity on the shelf and makes room for it.
func (s *shelf) add(h *holder, e Entry, most int) *entry {
	if s.n >= most {
		s.evict(h)
	}
	n := &entry{Entry: e}
	h.known[n.Name] = n
	s.n++
	return n
}

// touch notes that an identity differs from what is on disk.
func (s *shelf) touch(e *entry) {
	if !e.dirty {
		e.dirty = true
		s.dirty = append(s.dirty, e)
	}
}

// evict forgets one identity, and holders without one but for the one who gets one now.
func (s *shelf) evict(keep *holder) {
	var from *holder
	var oldest *entry
	left := tries
	for user, h := range s.users {
		if len(h.known) == 0 && h != keep {
			delete(s.users, user)
			continue
		}
		each := 4
		for _, e := range h.known {
			if oldest == nil || e.Last.Before(oldest.Last) {
				from, oldest = h, e
			}
			left--
			if each--; each == 0 || left <= 0 {
				break
			}
		}
		if left <= 0 {
			break
		}
	}
	if oldest != nil {
		delete(from.known, oldest.Name)
		s.n--
	}
}

// Known returns an identity of a user.
func (b *Book) Known(user uint32, name string) (Entry, bool) {
	s := b.shelf(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.users[user]; ok {
		if e, ok := h.known[name]; ok {
			return e.Entry, true
		}
	}
	return Entry{}, false
}

// List returns the identities of a user in no order; of all users for 0.
func (b *Book) List(user uint32) (all []Entry) {
	if user != 0 {
		return b.shelf(user).list(user, nil)
	}
	for i := range b.shards {
		all = b.shards[i].list(0, all)
	}
	return all
}

func (s *shelf) list(user uint32, all []Entry) []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, h := range s.users {
		if user != 0 && id != user {
			continue
		}
		for _, e := range h.known {
			all = append(all, e.Entry)
		}
	}
	return all
}

// Begin sets the account of an identity back to nothing, as of at; false where it is not known.
func (b *Book) Begin(user uint32, name string, at time.Time) (Entry, bool) {
	s := b.shelf(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.users[user]
	if !ok {
		return Entry{}, false
	}
	e, ok := h.known[name]
	if !ok {
		return Entry{}, false
	}
	e.Entry = Entry{User: e.User, Name: e.Name, First: e.First, Last: e.Last, Reset: at}
	s.touch(e)
	return e.Entry, true
}

// Len returns how many identities are held.
func (b *Book) Len() (n int) {
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		n += s.n
		s.mu.Unlock()
	}
	return n
}

// Load adds what an earlier process knew.
func (b *Book) Load(e Entry) {
	s := b.shelf(e.User)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holder(e.User)
	if had, ok := h.known[e.Name]; ok { // met meanwhile
		had.First = e.First
		had.Messages += e.Messages
		had.Recipients += e.Recipients
		had.Refused += e.Refused
		had.Bad += e.Bad
		return
	}
	s.add(h, e, b.most)
}

// Changed returns up to most identities that changed since they were last returned, for whoever keeps them on disk.
func (b *Book) Changed(most int) (all []Entry) {
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		n := min(len(s.dirty), most-len(all))
		for _, e := range s.dirty[:n] {
			e.dirty = false
			all = append(all, e.Entry)
		}
		if s.dirty = s.dirty[n:]; len(s.dirty) == 0 {
			s.dirty = nil
		}
		s.mu.Unlock()
	}
	return all
}

// Unsaved takes back that these are on disk.
func (b *Book) Unsaved(all []Entry) {
	for i := range all {
		s := b.shelf(all[i].User)
		s.mu.Lock()
		if h, ok := s.users[all[i].User]; ok {
			if e, ok := h.known[all[i].Name]; ok {
				s.touch(e)
			}
		}
		s.mu.Unlock()
	}
}
