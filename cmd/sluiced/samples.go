package main

import (
	"bytes"
	"container/list"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"sluice/cmd/internal/config"
	"sluice/filter"
	mail "sluice/filter/message"
	"sluice/proxy/quarantine"
	"sluice/proxy/spool"
)

// The bounds of what is remembered of bad mail, so that a lock that it leads to, or an appeal, has samples of it.
const (
	sampleSize  = 64 << 10 // bytes of one message; of a longer one the beginning
	sampleEach  = 20       // messages of one user
	sampleBytes = 32 << 20 // of all users; the oldest go first
	sampleAge   = 24 * time.Hour
	sampleSpace = 1 << 30 // bytes on disk
)

// sample is the text of a bad message, in memory alone until something rests on it.
type sample struct {
	id, from string
	to       []string
	user     uint32
	name     string
	client   netip.Addr
	at       time.Time
	hit      filter.Hit
	text     []byte
	cut      bool
}

// samples remember bad mail of the last hours, and keep on disk, encrypted, what locks and appeals rest on (LCK7).
type samples struct {
	box *quarantine.Box

	mu    sync.Mutex
	all   list.List // of *sample, oldest first
	bytes int
	users map[uint32][]*list.Element // likewise of each user
	ids   map[string]*sample
}

func newSamples(box *quarantine.Box) *samples {
	return &samples{box: box, users: map[uint32][]*list.Element{}, ids: map[string]*sample{}}
}

func (d *daemon) openSamples(cfg *config.Config) (*samples, error) {
	box, err := quarantine.Open(quarantine.Options{
		Dir: filepath.Join(cfg.Store.Dir, "samples"), KeyFile: filepath.Join(cfg.Store.Dir, "samples.key"), Index: d.store.Samples(),
		Keep:  func() time.Duration { return d.cfg.Load().Log.Retention.D() },
		Most:  func() int64 { return sampleSpace },
		Alarm: func(err error) { d.log.Error("the samples of locks need attention", "err", err) },
	})
	return newSamples(box), err
}

// note remembers a bad message. Good ones cost nothing.
func (s *samples) note(m *mail.Message, v *filter.Verdict) {
	h := v.Decisive()
	if h == nil || !h.Class.Bad() || m.Flow.User.ID == 0 {
		return
	}
	one := &sample{id: strings.Clone(m.ID), from: strings.Clone(string(m.Envelope.From)), user: m.Flow.User.ID, name: m.Flow.User.Name, client: m.Flow.Client.Addr().Unmap(), at: time.Now(), hit: *h,
		text: bytes.Clone(m.Data[:min(len(m.Data), sampleSize)])}
	one.cut = max(m.DataSize, int64(len(m.Data))) > int64(len(one.text))
	for _, to := range m.Envelope.To[:min(len(m.Envelope.To), 100)] {
		one.to = append(one.to, strings.Clone(string(to)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += one.weight()
	s.ids[one.id] = one
	if s.users[one.user] = append(s.users[one.user], s.all.PushBack(one)); len(s.users[one.user]) > sampleEach {
		s.drop(s.users[one.user][0])
	}
	for e := s.all.Front(); e != nil && (s.bytes > sampleBytes || one.at.Sub(e.Value.(*sample).at) > sampleAge); e = s.all.Front() {
		s.drop(e)
	}
}

// weight is about what one takes of memory.
func (s *sample) weight() int { return len(s.text) + 64*len(s.to) + 512 }

// drop forgets one, which is the oldest of its user. s.mu is held.
func (s *samples) drop(e *list.Element) {
	one := s.all.Remove(e).(*sample)
	s.bytes -= one.weight()
	if s.ids[one.id] == one {
		delete(s.ids, one.id)
	}
	if s.users[one.user] = s.users[one.user][1:]; len(s.users[one.user]) == 0 {
		delete(s.users, one.user)
	}
}

// of finds a message that is remembered; nil where it is not.
func (s *samples) of(message string) *sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ids[message]
}

// keep puts a sample on the disk, for a lock or an appeal.
func (s *samples) keep(one *sample, ticket string) error {
	_, err := s.box.Keep(&quarantine.Letter{Envelope: &spool.Envelope{Message: one.id, User: one.user, UserName: one.name, From: one.from, Received: one.at}, Text: bytes.NewReader(one.text), Entry: quarantine.Entry{
		User: one.user, UserName: one.name, Client: one.client, From: one.from, To: one.to, Size: int64(len(one.text)), Message: one.id, Ticket: ticket, Cut: one.cut,
		Check: one.hit.Check, Code: one.hit.Code, Class: one.hit.Class.String(), Evidence: one.hit.Evidence, Print: ticket + "/" + one.id,
	}})
	return err
}

// kept lists the samples of a lock or an appeal.
func (s *samples) kept(user, ticket string) ([]quarantine.Entry, error) {
	return s.box.List(quarantine.Query{User: user, Ticket: ticket})
}
