package relay

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/proxy/smtp"
)

// keeping is a Dialer that keeps, and a destination for it.
func keeping(t *testing.T, reply func(line string) string) (*Dialer, Route) {
	t.Helper()
	target, _ := destination(t, "220 mx", reply)
	d := NewDialer(Options{Keep: wait})
	t.Cleanup(d.Close)
	return d, Route{Target: target, Source: netip.MustParseAddr("127.0.0.77"), Helo: "out.gw.example"}
}

// spoken opens a session and leads one transaction to the moment before the message, then abandons and settles it.
func spoken(t *testing.T, d *Dialer, r Route) *Session {
	t.Helper()
	s, err := d.Open(t.Context(), r)
	must(t, err)
	s.begun++ // a transaction that went well
	return s
}

// other gives a value of the field's type that is not the one there.
func other(t *testing.T, v reflect.Value) {
	t.Helper()
	switch x := v.Addr().Interface().(type) {
	case *netip.AddrPort:
		*x = netip.MustParseAddrPort("127.0.0.1:9")
	case *netip.Addr:
		*x = netip.MustParseAddr("127.0.0.78")
	case *bool:
		*x = !*x
	case *string:
		*x += "x"
	case *uint32:
		*x++
	default:
		switch v.Kind() {
		case reflect.Uint8:
			v.SetUint(v.Uint() + 1)
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
		case reflect.Struct:
			other(t, v.Field(0))
		default:
			t.Fatalf("say what another %v is", v.Type())
		}
	}
}

// TestAKeptSessionIsForItsOwnWayOnly: whatever part of the key differs, nobody gets it: another user, another address,
// another name, another destination, other terms of TLS. Each field that the route ever gets is tried.
func TestAKeptSessionIsForItsOwnWayOnly(t *testing.T) {
	t.Parallel()
	d, r := keeping(t, usual)
	s := spoken(t, d, r)
	if !d.Keep(7, s) {
		t.Fatal("not kept")
	}
	if d.Take(8, r) != nil {
		t.Error("another user got it")
	}
	for i := range reflect.TypeFor[Route]().NumField() {
		way := r
		f := reflect.TypeFor[Route]().Field(i)
		if !f.IsExported() {
			continue
		}
		other(t, reflect.ValueOf(&way).Elem().Field(i))
		if way == r {
			t.Fatalf("%s is the same", f.Name)
		}
		if d.Take(7, way) != nil {
			t.Errorf("somebody got it whose way differs by %s", f.Name)
		}
	}
	if got := d.Take(7, r); got != s {
		t.Errorf("its own user got %v", got)
	}
	if d.Take(7, r) != nil {
		t.Error("it is given twice")
	}
}

// TestWhatIsNotKept goes through the states in which a session must not be used again.
func TestWhatIsNotKept(t *testing.T) {
	t.Parallel()
	refuse := func(verb, reply string) func(string) string {
		return func(line string) string {
			if strings.HasPrefix(line, verb) {
				return reply
			}
			return usual(line)
		}
	}
	mail, rcpt := smtp.Mail{Size: -1}, []smtp.Rcpt{{Path: smtp.Path{Address: "b@sink.example"}}}
	for name, c := range map[string]struct {
		reply func(string) string
		lead  func(s *Session)
	}{
		"no transaction":   {usual, func(s *Session) { s.begun = 0 }},
		"an open one":      {usual, func(s *Session) { _ = s.Recipients(&mail, rcpt, deaf{}) }},
		"RSET is owed":     {usual, func(s *Session) { _ = s.Recipients(&mail, rcpt, deaf{}); s.Abandon() }},
		"refused MAIL":     {refuse("MAIL", "550 no"), func(s *Session) { _ = s.Recipients(&mail, rcpt, deaf{}) }},
		"failed RSET":      {refuse("RSET", "500 no"), func(s *Session) { _ = s.Recipients(&mail, rcpt, deaf{}); s.Abandon(); _ = s.Reset() }},
		"421":              {refuse("NOOP", "421 later"), func(s *Session) { _ = s.Noop(); s.Close() }},
		"many enough":      {usual, func(s *Session) { s.begun = keptMessages }},
		"an unasked reply": {refuse("NOOP", "250 ok\r\n250 and more"), func(s *Session) { _ = s.Noop(); await(t, func() bool { return !s.Alive() }) }},
		"it has left":      {refuse("NOOP", ""), func(s *Session) { _ = s.Noop() }},
		"of his own":       {usual, func(s *Session) { s.route.Own = true }},
		"MAILMAX":          {refuse("EHLO", "250-mx\r\n250 LIMITS MAILMAX=1"), func(*Session) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, r := keeping(t, c.reply)
			s := spoken(t, d, r)
			defer s.Close()
			c.lead(s)
			if d.Keep(7, s) {
				t.Error("kept")
			}
			if d.kept.n != 0 || len(d.kept.at) != 0 {
				t.Errorf("%d are counted at %d places", d.kept.n, len(d.kept.at))
			}
		})
	}
}

// deaf hears no replies.
type deaf struct{}

func (deaf) Answer(int, *smtp.Reply) {}

// await waits until what it asks for is so.
func await(t *testing.T, so func() bool) {
	t.Helper()
	for end := time.Now().Add(wait); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come to that")
		}
	}
}

// TestKeptSessionsAreFew: of one user's way, and of all users to one destination.
func TestKeptSessionsAreFew(t *testing.T) {
	t.Parallel()
	d, r := keeping(t, usual)
	kept := 0
	for user := range uint32(5) {
		for n := range keptPerWay + 1 {
			s := spoken(t, d, r)
			want := n < keptPerWay && kept < keptPerPair
			if got := d.Keep(user, s); got != want {
				t.Errorf("session %d of user %d with %d in all: kept %v", n, user, kept, got)
			} else if got {
				kept++
			} else {
				s.Close()
			}
		}
	}
	d.Drop(0)
	if s := spoken(t, d, r); !d.Keep(9, s) {
		t.Error("there is no room though one user's are gone")
	}
	d.Close()
	if d.kept.n != 0 || len(d.kept.at) != 0 || len(d.kept.ways) != 0 {
		t.Errorf("after the end %d are counted at %d places", d.kept.n, len(d.kept.at))
	}
	s := spoken(t, d, r)
	defer s.Close()
	if d.Keep(7, s) {
		t.Error("kept after the end")
	}
}

// TestOnlyOneGetsAKeptSession, however many ask at once.
func TestOnlyOneGetsAKeptSession(t *testing.T) {
	t.Parallel()
	d, r := keeping(t, usual)
	for range 20 {
		if !d.Keep(7, spoken(t, d, r)) {
			t.Fatal("not kept")
		}
		var wg sync.WaitGroup
		got := make(chan *Session, 8)
		for range cap(got) {
			wg.Go(func() {
				if s := d.Take(7, r); s != nil {
					got <- s
				}
			})
		}
		wg.Wait()
		if len(got) != 1 {
			t.Fatalf("%d got it", len(got))
		}
		(<-got).Close()
	}
}

// TestIdleSessionsGiveWay: a destination with few places turns nobody away because of sessions of ours that stand idle there,
// and for a while none stand there any more; at others they do. One that turns everybody away is tried no more often than ever.
func TestIdleSessionsGiveWay(t *testing.T) {
	t.Parallel()
	const places = 2
	var mu sync.Mutex
	open, turned, always := 0, 0, false
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			full := always || open == places
			if full {
				turned++
			} else {
				open++
			}
			mu.Unlock()
			go func() {
				defer nc.Close()
				if full {
					_, _ = io.WriteString(nc, "421 Too many concurrent SMTP connections; please try again later.\r\n")
					return
				}
				defer func() { mu.Lock(); open--; mu.Unlock() }()
				_, _ = io.WriteString(nc, "220 mx\r\n")
				for lines := bufio.NewScanner(nc); lines.Scan(); {
					if lines.Text() == "QUIT" {
						_, _ = io.WriteString(nc, "221 bye\r\n")
						return
					}
					_, _ = io.WriteString(nc, usual(lines.Text())+"\r\n")
				}
			}()
		}
	}()
	elsewhere, _ := destinationOn(t, "127.0.0.2:0", "220 mx", usual)
	d := NewDialer(Options{Keep: wait})
	t.Cleanup(d.Close)
	small := Route{Target: ln.Addr().(*net.TCPAddr).AddrPort(), Source: netip.MustParseAddr("127.0.0.77"), Helo: "out.gw.example"}
	large := small
	large.Target = elsewhere
	if !d.Keep(1, spoken(t, d, large)) {
		t.Fatal("not kept")
	}
	for user := range uint32(places) {
		if !d.Keep(user, spoken(t, d, small)) {
			t.Fatal("not kept")
		}
	}
	s := spoken(t, d, small)
	mu.Lock()
	if open != 1 || turned != 1 {
		t.Errorf("%d sessions are open, %d were turned away; 1 and 1 were expected", open, turned)
	}
	always = true
	mu.Unlock()
	if d.Keep(1, s) {
		t.Error("a session stands idle where there is no place for it")
	}
	s.Close()
	if d.Take(1, large) == nil {
		t.Error("another destination's session is gone")
	}
	var f *Failure
	if _, err := d.Open(t.Context(), small); !errors.As(err, &f) || f.Code != 421 || f.Raw == nil {
		t.Errorf("turned away it says %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if turned != 2 {
		t.Errorf("tried %d times where nothing of ours stood", turned-1)
	}
}

// TestFullDestinations: what is known of them ends with its time and stays small.
func TestFullDestinations(t *testing.T) {
	t.Parallel()
	var k keeper
	now := time.Now()
	a := netip.MustParseAddr("2001:db8::1")
	k.markFull(a, now)
	if !k.isFull(a, now.Add(fullTime)) || k.isFull(a, now.Add(fullTime+time.Second)) || len(k.full) != 0 {
		t.Error("it does not hold for its time")
	}
	for range 2 * fullRoom {
		k.markFull(a, now)
		a = a.Next()
	}
	if len(k.full) != fullRoom || !k.isFull(a.Prev(), now) {
		t.Errorf("%d destinations are remembered", len(k.full))
	}
}
