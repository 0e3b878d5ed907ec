package delivery

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/proxy/relay"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
	"sluice/proxy/tlspolicy"
)

// world is a DNS with servers behind it, and a queue that delivers to them.
type world struct {
	t       *testing.T
	mu      sync.Mutex
	domains map[string]*tlspolicy.Domain
	asked   map[string]int
	results chan Result
	clock   time.Time
	s       *spool.Spool
	q       *Queue
	stop    context.CancelFunc
	port    uint16
	alarms  []string
	dir     string
	o       Options
}

func (w *world) Domain(_ context.Context, name string) (*tlspolicy.Domain, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[name]++
	if d := w.domains[name]; d != nil {
		return d, nil
	}
	return nil, errors.New("no answer")
}

func (w *world) Addresses(_ context.Context, host string) ([]netip.Addr, error) {
	return nil, errors.New("no such host " + host)
}

func (w *world) Tried(r *Result) {
	c := *r
	e := *r.Envelope
	c.Envelope = &e
	w.results <- c
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	w.clock = w.clock.Add(d)
	w.mu.Unlock()
	w.q.stir()
}

// host makes a domain of servers, each at an address of its own, in order of preference.
func (w *world) host(domain string, addrs ...string) {
	d := &tlspolicy.Domain{Name: domain}
	for i, a := range addrs {
		h := tlspolicy.Host{MX: tlspolicy.MX{Host: fmt.Sprintf("mx%d.%s", i+1, domain), Preference: uint16(10 * (i + 1))}, Policy: &tlspolicy.Policy{}}
		if a != "" {
			h.Answer.Addrs = []netip.Addr{netip.MustParseAddr(a)}
		}
		d.Hosts = append(d.Hosts, h)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.domains[domain] = d
}

func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	w := &world{t: t, domains: map[string]*tlspolicy.Domain{}, asked: map[string]int{}, results: make(chan Result, 10_000), clock: time.Now(), port: freePort(t)}
	d := relay.NewDialer(relay.Options{Keep: time.Second, Timeouts: relay.Timeouts{Connect: 5 * time.Second}})
	o := Options{Name: "gw.example.net", Domains: w, Dialer: d, Log: w, Port: w.port, Now: w.now, Alarm: func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.alarms = append(w.alarms, err.Error())
	}}
	if change != nil {
		change(&o)
	}
	w.dir, w.o = t.TempDir(), o
	t.Cleanup(d.Close)
	w.start()
	return w
}

// start begins to deliver what is in the spool.
func (w *world) start() {
	w.t.Helper()
	q := New(w.o)
	s, err := spool.Open(w.dir, spool.Options{Arrived: q.Arrived, Now: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w.q, w.s, w.stop = q, s, stop
	q.Start(ctx, s)
	w.t.Cleanup(func() {
		stop()
		q.Stop(context.Background())
		s.Close()
	})
}

// again ends the program, whatever it is doing, and starts it anew.
func (w *world) again() {
	w.t.Helper()
	w.stop()
	if err := w.s.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.start()
}

// freePort finds a port that is free on several loopback addresses. On one it is held, so that no other test is given it.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// server is a destination whose answers a function makes. It returns what it took.
type server struct {
	mu    sync.Mutex
	got   []string
	caps  string
	reply func(cmd string) string // "" is the usual answer
}

func (w *world) serve(addr string, reply func(cmd string) string) *server {
	w.t.Helper()
	s := &server{reply: reply, caps: "250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 1000000"}
	l, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(addr), w.port).String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.session(c)
		}
	}()
	return s
}

func (s *server) session(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	say := func(cmd, usual string) bool {
		text := usual
		if s.reply != nil {
			if r := s.reply(cmd); r != "" {
				text = r
			}
		}
		if text == "close" {
			return false
		}
		_, err := c.Write([]byte(text + "\r\n"))
		return err == nil && !strings.HasPrefix(text, "421")
	}
	if !say("connect", "220 mx") {
		return
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		switch verb, _, _ := strings.Cut(strings.ToUpper(line), " "); verb {
		case "EHLO":
			if !say(line, s.caps) {
				return
			}
		case "DATA":
			if !say(line, "354 go on") {
				return
			}
			var text strings.Builder
			for {
				l, err := in.ReadString('\n')
				if err != nil {
					return
				}
				if l == ".\r\n" {
					break
				}
				text.WriteString(strings.TrimPrefix(l, "."))
			}
			s.mu.Lock()
			s.got = append(s.got, text.String())
			s.mu.Unlock()
			if !say(".", "250 2.0.0 taken") {
				return
			}
		case "QUIT":
			say(line, "221 bye")
			return
		default:
			if !say(line, "250 2.1.0 ok") {
				return
			}
		}
	}
}

func (s *server) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.got...)
}

// send commits a message.
func (w *world) send(env *spool.Envelope, text string) []spool.ID {
	w.t.Helper()
	d, err := w.s.Create()
	if err != nil {
		w.t.Fatal(err)
	}
	b := bodyOf(w.t, text)
	defer b.Release()
	ids, err := d.Commit(env, nil, b)
	if err != nil {
		w.t.Fatal(err)
	}
	return ids
}

func bodyOf(t *testing.T, text string) *smtp.Body {
	t.Helper()
	b, err := smtp.BodyFromBytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sendLarge commits a message, the end of which stands in a file of its own.
func (w *world) sendLarge(env *spool.Envelope, text string) {
	w.t.Helper()
	d, err := w.s.Create()
	if err != nil {
		w.t.Fatal(err)
	}
	b := smtp.NewBody(&smtp.DataOptions{OpenSpill: d.OpenSpill})
	defer b.Release()
	if err := errors.Join(b.Append([]byte(text)), b.Finish()); err != nil {
		w.t.Fatal(err)
	}
	if _, err := d.Commit(env, nil, b); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) mail(to ...string) *spool.Envelope {
	e := &spool.Envelope{Message: "m1", User: 7, UserName: "alice", From: "a@sender.example", Verified: true, Received: w.now()}
	for _, a := range to {
		e.Rcpts = append(e.Rcpts, spool.Rcpt{Address: a})
	}
	return e
}

const text = "Subject: hello\r\n\r\n.dot\r\nbody\r\n"

// next waits for the next result.
func (w *world) next() Result {
	w.t.Helper()
	select {
	case r := <-w.results:
		return r
	case <-time.After(20 * time.Second):
		w.t.Fatal("nothing was tried")
	}
	return Result{}
}

func (w *world) empty() {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for w.s.Figures().Deliveries > 0 {
		if time.Now().After(deadline) {
			w.t.Fatalf("%+v are left", w.s.Figures())
		}
		time.Sleep(time.Millisecond)
	}
}
