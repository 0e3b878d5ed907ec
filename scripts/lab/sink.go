package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// SinkOptions of an MX that stores what it gets.
type SinkOptions struct {
	TLS        bool // offer STARTTLS with a self-signed certificate
	RequireTLS bool // 530 5.7.0 to MAIL without it
	NoESMTP    bool // EHLO is an unknown command
	NoChunks   bool // no CHUNKING
	Grey       bool // refuse a new (network, sender, recipient) at first
}

// Session is one connection to a sink.
type Session struct {
	Peer  netip.AddrPort
	Local netip.AddrPort
	Start time.Time
	// Lines are the commands received and replies sent, prefixed "C: " and
	// "S: ". Bodies are left out.
	Lines []string
	End   string // why it ended, "" while it is open
}

// Sink is an MX of this package: it stores messages byte for byte and can be
// told to misbehave.
type Sink struct {
	mx   MX
	dir  string
	opts SinkOptions
	host string
	cert certificates
	tls  *tls.Config   // other settings of STARTTLS; nil: the lab's
	gap  time.Duration // of greylisting

	mu       sync.Mutex
	news     chan struct{} // closed and replaced when something was added
	messages []*Message
	sessions []*Session
	script   script
	grey     map[string]time.Time
	conns    map[net.Conn]struct{}
	serial   int
	knows    []netip.Prefix

	stop      chan struct{}
	listeners []net.Listener
	wg        sync.WaitGroup
}

func newSink(mx MX, dir string, cert certificates, gap time.Duration) (*Sink, error) {
	for _, sub := range []string{"tmp", "new"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("could not make the mail folder of %s: %w", mx.Name, err)
		}
	}
	return &Sink{
		mx: mx, dir: dir, opts: mx.Sink, host: mx.Hostname(), cert: cert, gap: gap,
		news:  make(chan struct{}),
		grey:  map[string]time.Time{},
		conns: map[net.Conn]struct{}{},
		stop:  make(chan struct{}),
	}, nil
}

// startSinks opens every MX of the plan that this package serves itself.
func (l *Lab) startSinks() error {
	return l.In(HostInternet, func() error {
		for _, m := range Hosts() {
			var err error
			switch m.Kind {
			case KindSink:
				err = l.startSink(m)
			case KindGoSMTP:
				err = l.startGoSMTP(m)
			}
			if err != nil {
				return fmt.Errorf("start MX %s: %w", m.Name, err)
			}
		}
		return nil
	})
}

// startSink must run inside the namespace "net".
func (l *Lab) startSink(m MX) error {
	s, err := newSink(m, filepath.Join(l.dir, "sink", m.Name), l.certs, l.grey)
	if err != nil {
		return err
	}
	for _, a := range m.Addrs() {
		ln, err := listen(netip.AddrPortFrom(a, 25).String())
		if err != nil {
			return err
		}
		s.serve(ln)
	}
	l.addSink(m.Name, s)
	return nil
}

func (l *Lab) addSink(name string, s *Sink) {
	l.mu.Lock()
	l.sinks[name] = s
	l.mu.Unlock()
	l.onClose(s)
}

// Sink is the MX of that name. It panics when the plan has no such sink, as
// only a mistake in the test can ask for one.
func (l *Lab) Sink(name string) *Sink {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.sinks[name]
	if !ok {
		panic(fmt.Sprintf("lab: no sink %q in the plan", name))
	}
	return s
}

// SinkAt opens one more sink on a host of the lab, for instance the own MX of
// a customer: SinkAt("alice", "alice-mx", "192.0.2.10:25", "[2001:db8:1::10]:25").
func (l *Lab) SinkAt(host, name string, addrs ...string) (*Sink, error) {
	s, err := newSink(MX{Name: name}, filepath.Join(l.dir, "sink", name), l.certs, 0)
	if err != nil {
		return nil, err
	}
	err = l.In(host, func() error {
		for _, a := range addrs {
			ln, err := listen(a)
			if err != nil {
				return err
			}
			s.serve(ln)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("could not open sink %s on %s: %w", name, host, err)
	}
	l.addSink(name, s)
	return s, nil
}

func (s *Sink) serve(ln net.Listener) {
	s.listeners = append(s.listeners, ln)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		for {
			conn, err := ln.Accept()
			if err != nil {
				return // closed
			}
			if !s.track(conn) {
				_ = conn.Close()
				return
			}
			s.wg.Add(1)
			go func() {
				defer s.wg.Done()
				defer s.untrack(conn)
				s.session(conn)
			}()
		}
	}()
}

func (s *Sink) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stop:
		return false
	default:
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Sink) untrack(c net.Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	_ = c.Close()
}

// Close stops listening, drops open sessions and waits for them.
func (s *Sink) Close() error {
	s.mu.Lock()
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	for _, ln := range s.listeners {
		_ = ln.Close()
	}
	s.wg.Wait()
	return nil
}

// Dir is the folder with new/N.eml and new/N.json for each message.
func (s *Sink) Dir() string { return s.dir }

// Messages taken over so far, oldest first.
func (s *Sink) Messages() []*Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Sessions seen so far, oldest first. The copies do not change any more.
func (s *Sink) Sessions() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Session, len(s.sessions))
	for i, x := range s.sessions {
		all[i] = *x
		all[i].Lines = slices.Clone(x.Lines)
	}
	return all
}

// Wait returns all messages as soon as there are at least n.
func (s *Sink) Wait(ctx context.Context, n int) ([]*Message, error) {
	return s.WaitMatch(ctx, func(all []*Message) bool { return len(all) >= n })
}

// WaitMatch returns all messages as soon as enough is true for them.
func (s *Sink) WaitMatch(ctx context.Context, enough func([]*Message) bool) ([]*Message, error) {
	for {
		s.mu.Lock()
		all, news := slices.Clone(s.messages), s.news
		s.mu.Unlock()
		if enough(all) {
			return all, nil
		}
		select {
		case <-ctx.Done():
			return all, fmt.Errorf("waited for messages at %s, %d came: %w", s.mx.Name, len(all), ctx.Err())
		case <-news:
		}
	}
}

// WaitSessions returns as soon as enough is true for the sessions.
func (s *Sink) WaitSessions(ctx context.Context, enough func([]Session) bool) error {
	for {
		s.mu.Lock()
		news := s.news
		s.mu.Unlock()
		if enough(s.Sessions()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited for sessions at %s: %w", s.mx.Name, ctx.Err())
		case <-news:
		}
	}
}

// Knows has the sink refuse everybody who does not come from one of the prefixes, as a relay does that knows its customers
// by address.
func (s *Sink) Knows(prefixes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.knows = nil
	for _, p := range prefixes {
		s.knows = append(s.knows, netip.MustParsePrefix(p))
	}
}

// stranger tells whether a peer is none of those the sink knows.
func (s *Sink) stranger(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.knows) > 0 && !slices.ContainsFunc(s.knows, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// Reset forgets messages, sessions, greylisting and the script.
func (s *Sink) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages, s.sessions, s.script = nil, nil, script{}
	s.grey = map[string]time.Time{}
}

// changed wakes all waiters; s.mu is held.
func (s *Sink) changed() {
	close(s.news)
	s.news = make(chan struct{})
}
