package main

import (
	"bytes"
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
	all   []*sample // oldest first
	bytes int
	users map[uint32]int
}

func (d *daemon) openSamples(cfg *config.Config) (*samples, error) {
	box, err := quarantine.Open(quarantine.Options{
		Dir: filepath.Join(cfg.Store.Dir, "samples"), KeyFile: filepath.Join(cfg.Store.Dir, "samples.key"), Index: d.store.Samples(),
		Keep:  func() time.Duration { return d.cfg.Load().Log.Retention.D() },
		Most:  func() int64 { return sampleSpace },
		Alarm: func(err error) { d.log.Error("the samples of locks need attention", "err", err) },
	})
	return &samples{box: box, users: map[uint32]int{}}, err
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
	s.all, s.bytes = append(s.all, one), s.bytes+len(one.text)
	if s.users[one.user]++; s.users[one.user] > sampleEach {
		for i, o := range s.all {
			if o.user == one.user {
				s.drop(i)
				break
			}
		}
	}
	for len(s.all) > 0 && (s.bytes > sampleBytes || one.at.Sub(s.all[0].at) > sampleAge) {
		s.drop(0)
	}
}

// drop forgets one. s.mu is held.
func (s *samples) drop(i int) {
	one := s.all[i]
	s.all, s.bytes = append(s.all[:i], s.all[i+1:]...), s.bytes-len(one.text)
	if s.users[one.user]--; s.users[one.user] == 0 {
		delete(s.users, one.user)
	}
}

// of finds a message that is remembered; nil where it is not.
func (s *samples) of(message string) *sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.all {
		if o.id == message {
			return o
		}
	}
	return nil
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
