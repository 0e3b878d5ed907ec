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
	port    uint16
	alarms  []string
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
	w.q = New(o)
	var err error
	if w.s, err = spool.Open(t.TempDir(), spool.Options{Arrived: w.q.Arrived, Now: w.now}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w.q.Start(ctx, w.s)
	t.Cleanup(func() {
		stop()
		w.q.Stop(context.Background())
		d.Close()
		w.s.Close()
	})
	return w
}

// freePort finds a port that is free on several loopback addresses.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
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
	b, err := smtp.BodyFromBytes([]byte(text))
	if err != nil {
		w.t.Fatal(err)
	}
	defer b.Release()
	ids, err := d.Commit(env, nil, b)
	if err != nil {
		w.t.Fatal(err)
	}
	return ids
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

func TestDelivers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	mx := w.serve("127.0.0.2", nil)
	w.send(w.mail("x@one.example", "y@one.example"), text)
	r := w.next()
	if len(r.Rcpts) != 2 || r.Rcpts[0].Fate != Delivered || r.Rcpts[1].Fate != Delivered || r.Host != "mx1.one.example" || r.Tries != 1 {
		t.Errorf("the result is %+v", r)
	}
	w.empty()
	if got := mx.taken(); len(got) != 1 || got[0] != text {
		t.Errorf("taken: %q", got)
	}
}

func TestEachRecipientHasItsOwnFate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	w.host("sender.example", "127.0.0.3")
	answer := map[string]string{"RCPT TO:<no@one.example>": "550 5.1.1 no such user", "RCPT TO:<later@one.example>": "450 4.2.1 mailbox busy"}
	var mu sync.Mutex
	mx := w.serve("127.0.0.2", func(cmd string) string {
		mu.Lock()
		defer mu.Unlock()
		return answer[cmd]
	})
	back := w.serve("127.0.0.3", nil)
	id := w.send(w.mail("yes@one.example", "no@one.example", "later@one.example"), text)[0]
	r := w.next()
	if f := [3]Fate{r.Rcpts[0].Fate, r.Rcpts[1].Fate, r.Rcpts[2].Fate}; f != [3]Fate{Delivered, Failed, Deferred} || r.Notice == 0 || r.Next.Sub(w.now()) < 15*time.Minute {
		t.Errorf("fates %v, result %+v", f, r)
	}
	if n := w.next(); n.Delivery != r.Notice || n.Rcpts[0].Fate != Delivered {
		t.Errorf("the notice: %+v", n)
	}
	notice := back.taken()
	if len(notice) != 1 || !strings.Contains(notice[0], "Final-Recipient: rfc822; no@one.example\r\nAction: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx1.one.example\r\nDiagnostic-Code: smtp; 550 no such user") ||
		strings.Contains(notice[0], "later@") || !strings.Contains(notice[0], "Subject: hello") {
		t.Errorf("the notice is %q", notice)
	}
	mu.Lock()
	delete(answer, "RCPT TO:<later@one.example>")
	mu.Unlock()
	if l, _, err := w.q.List(Filter{ID: id}, 0, 1); err != nil || l[0].Rcpts != 1 || l[0].State.Replies[0].Code != 450 {
		t.Errorf("%v, %+v", err, l)
	}
	w.pass(17 * time.Minute)
	if r := w.next(); len(r.Rcpts) != 1 || r.Rcpts[0].Rcpt.Address != "later@one.example" || r.Rcpts[0].Fate != Delivered || r.Tries != 2 {
		t.Errorf("the second try: %+v", r)
	}
	w.empty()
	if n := len(mx.taken()); n != 2 {
		t.Errorf("taken %d times", n)
	}
}

func TestDeadDestinationDelaysNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.AtOnce = 3 })
	w.host("dead.example", "127.0.0.4") // nothing listens there
	w.host("good.example", "127.0.0.2")
	mx := w.serve("127.0.0.2", nil)
	for range 20 {
		w.send(w.mail("x@dead.example"), text)
	}
	for range 20 {
		w.send(w.mail("x@good.example"), text)
	}
	dead, good := 0, 0
	for good < 20 {
		if r := w.next(); r.Rcpts[0].Fate == Delivered {
			good++
		} else {
			dead++
		}
	}
	if dead > 3 || len(mx.taken()) != 20 {
		t.Errorf("%d tries at the dead one, %d taken", dead, len(mx.taken()))
	}
	lanes := w.q.Lanes()
	if lanes[0].Domain != "dead.example" || lanes[0].Misses == 0 || !strings.Contains(lanes[0].Why, "refused") {
		t.Errorf("lanes are %+v", lanes)
	}
	// After five days all senders hear of it, though only one is tried.
	w.host("sender.example", "127.0.0.3")
	w.serve("127.0.0.3", nil)
	w.pass(5*24*time.Hour + time.Minute)
	expired := 0
	for expired < 20 {
		if r := w.next(); r.Envelope.From == "" {
			continue
		} else if r.Rcpts[0].Fate == Expired && r.Notice != 0 {
			expired++
		} else {
			t.Fatalf("the result is %+v", r)
		}
	}
	w.empty()
}

func TestNextExchangerIsTried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.4", "127.0.0.5", "127.0.0.2")
	w.serve("127.0.0.5", func(cmd string) string {
		if cmd == "connect" {
			return "554 not here"
		}
		return ""
	})
	w.serve("127.0.0.2", nil)
	w.send(w.mail("x@one.example"), text)
	if r := w.next(); r.Rcpts[0].Fate != Delivered || r.Host != "mx3.one.example" {
		t.Errorf("the result is %+v", r)
	}
}

func TestRoutesThatLeadNowhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Self = func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.9") } })
	w.domains["null.example"] = &tlspolicy.Domain{Name: "null.example", Null: true}
	w.host("nothing.example", "")
	w.host("self.example", "127.0.0.9", "127.0.0.2")
	w.host("sender.example", "127.0.0.3")
	w.serve("127.0.0.3", nil)
	for domain, want := range map[string]smtp.Enhanced{
		"null.example": {5, 1, 10}, "nothing.example": {5, 1, 2}, "self.example": {5, 4, 6}, "[192.0.2.300]": {5, 1, 3}, "[127.0.0.9]": {5, 4, 6}, "unknown.example": {4, 4, 3},
	} {
		w.send(w.mail("x@"+domain), text)
		for {
			r := w.next()
			if r.Envelope.From == "" {
				continue
			}
			if got := r.Rcpts[0]; got.Reply.Enh != want || (got.Fate == Failed) != (want[0] == 5) {
				t.Errorf("%s: %+v, want %v", domain, got, want)
			}
			break
		}
	}
	// A better exchanger than the gateway itself is used.
	w.host("behind.example", "127.0.0.2", "127.0.0.9")
	w.serve("127.0.0.2", nil)
	w.send(w.mail("x@behind.example"), text)
	for r := w.next(); r.Envelope.From != "" || r.Rcpts[0].Fate != Delivered; r = w.next() {
		if r.Envelope.From != "" && r.Host == "mx1.behind.example" && r.Rcpts[0].Fate == Delivered {
			break
		}
	}
}

func TestNoticesGoWhereTheyMay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	w.serve("127.0.0.2", func(cmd string) string {
		if strings.HasPrefix(cmd, "RCPT") {
			return "550 5.1.1 no"
		}
		return ""
	})
	for name, change := range map[string]func(*spool.Envelope){
		"null sender":       func(e *spool.Envelope) { e.From = "" },
		"unverified sender": func(e *spool.Envelope) { e.Verified = false },
		"NOTIFY=NEVER":      func(e *spool.Envelope) { e.Rcpts[0].Notify = smtp.NotifyNever },
		"NOTIFY=DELAY":      func(e *spool.Envelope) { e.Rcpts[0].Notify = smtp.NotifyDelay },
		"a notice":          func(e *spool.Envelope) { e.Class = "notice" },
	} {
		env := w.mail("x@one.example")
		change(env)
		w.send(env, text)
		if r := w.next(); r.Notice != 0 || r.Rcpts[0].Fate != Failed {
			t.Errorf("%s: %+v", name, r)
		}
		w.empty()
	}
}

func TestDelayAndSuccessAreTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	w.host("sender.example", "127.0.0.3")
	back := w.serve("127.0.0.3", nil)
	var mu sync.Mutex
	busy := true
	w.serve("127.0.0.2", func(cmd string) string {
		mu.Lock()
		defer mu.Unlock()
		if busy && strings.HasPrefix(cmd, "RCPT") {
			return "450 4.2.0 greylisted"
		}
		return ""
	})
	env := w.mail("x@one.example")
	env.Rcpts[0].Notify, env.EnvID = smtp.NotifyDelay|smtp.NotifySuccess, "q+2B1"
	w.send(env, text)
	if r := w.next(); r.Notice != 0 {
		t.Errorf("a notice at once: %+v", r)
	}
	w.pass(4*time.Hour + time.Minute)
	if r := w.next(); r.Notice == 0 || r.Rcpts[0].Fate != Deferred {
		t.Errorf("after four hours: %+v", r)
	}
	w.next() // the notice
	w.pass(time.Hour)
	if r := w.next(); r.Notice != 0 {
		t.Errorf("told twice: %+v", r)
	}
	mu.Lock()
	busy = false
	mu.Unlock()
	w.pass(3 * time.Hour)
	if r := w.next(); r.Notice == 0 || r.Rcpts[0].Fate != Relayed {
		t.Errorf("in the end: %+v", r)
	}
	w.next()
	got := back.taken()
	if len(got) != 2 || !strings.Contains(got[0], "Action: delayed\r\nStatus: 4.2.0") || !strings.Contains(got[0], "Will-Retry-Until:") ||
		!strings.Contains(got[0], "Original-Envelope-Id: q+1\r\n") || !strings.Contains(got[1], "Action: relayed\r\nStatus: 2.") {
		t.Errorf("notices are %q", got)
	}
}

func TestOperatorsCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("dead.example", "127.0.0.4")
	w.host("one.example", "127.0.0.2")
	w.send(w.mail("x@dead.example"), text)
	w.next()
	bob := w.mail("y@dead.example")
	bob.UserName, bob.From, bob.User = "bob", "b@other.example", 8
	w.send(bob, text)
	if n, err := w.q.Hold(Filter{User: "bob"}, "under suspicion"); n != 1 || err != nil {
		t.Errorf("held %d, %v", n, err)
	}
	held := true
	if l, next, err := w.q.List(Filter{Held: &held}, 0, 10); err != nil || next != 0 || len(l) != 1 || l[0].State.Hold != "under suspicion" || l[0].Envelope.UserName != "bob" {
		t.Errorf("%v %d %+v", err, next, l)
	}
	if l, _, err := w.q.List(Filter{Sender: "sender.example"}, 0, 10); err != nil || len(l) != 1 || l[0].Attempts != 1 {
		t.Errorf("%v %+v", err, l)
	}
	w.serve("127.0.0.4", nil)
	if n, err := w.q.Retry(Filter{Domain: "dead.example"}); n != 1 || err != nil {
		t.Errorf("tried again %d, %v", n, err)
	}
	if r := w.next(); r.Rcpts[0].Fate != Delivered || r.Envelope.UserName != "alice" {
		t.Errorf("the result is %+v", r)
	}
	if n, err := w.q.Release(Filter{User: "bob"}); n != 1 || err != nil {
		t.Errorf("released %d, %v", n, err)
	}
	if r := w.next(); r.Rcpts[0].Fate != Delivered || r.Envelope.UserName != "bob" {
		t.Errorf("the result is %+v", r)
	}
	w.empty()
	w.host("dead.example", "127.0.0.6")
	w.send(w.mail("x@dead.example"), text)
	w.next()
	if n, err := w.q.Delete(Filter{Sender: "a@sender.example"}); n != 1 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	w.empty()
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	var o Options
	o.fill()
	at, tries := time.Duration(0), 0
	var pauses []time.Duration
	for at < o.Schedule.Until {
		tries++
		p := o.Schedule.pause(tries)
		pauses = append(pauses, p)
		at += p
	}
	if pauses[0] != 15*time.Minute || pauses[7] != 15*time.Minute || pauses[8] != 22*time.Minute+30*time.Second || pauses[len(pauses)-1] != 8*time.Hour || tries > 40 {
		t.Errorf("%d tries: %v", tries, pauses)
	}
}

func TestWhatTheDestinationCannotTake(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("old.example", "127.0.0.2")
	mx := w.serve("127.0.0.2", nil)
	mx.caps = "250 mx"
	for name, c := range map[string]struct {
		change func(*spool.Envelope)
		text   string
		want   smtp.Enhanced
	}{
		"SMTPUTF8":   {func(e *spool.Envelope) { e.UTF8 = true }, text, smtp.Enhanced{5, 6, 7}},
		"REQUIRETLS": {func(e *spool.Envelope) { e.RequireTLS = true }, text, smtp.Enhanced{5, 7, 30}},
		"8-bit":      {func(*spool.Envelope) {}, "DKIM-Signature: v=1; b=x\r\nSubject: x\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n", smtp.Enhanced{5, 6, 3}},
	} {
		env := w.mail("x@old.example")
		env.Verified = false
		c.change(env)
		w.send(env, c.text)
		if r := w.next(); r.Rcpts[0].Fate != Failed || r.Rcpts[0].Reply.Enh != c.want {
			t.Errorf("%s: %+v", name, r.Rcpts)
		}
	}
	w.send(w.mail("x@old.example"), text)
	if r := w.next(); r.Rcpts[0].Fate != Delivered {
		t.Errorf("an ordinary message: %+v", r)
	}
}
