package relay

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/proxy/smtp"
)

const wait = 10 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// destination answers each line by a function and tells who connected.
func destination(t *testing.T, greeting string, reply func(line string) string) (netip.AddrPort, chan netip.Addr) {
	t.Helper()
	return destinationOn(t, "127.0.0.1:0", greeting, reply)
}

func destinationOn(t *testing.T, listen, greeting string, reply func(line string) string) (netip.AddrPort, chan netip.Addr) {
	t.Helper()
	ln, err := net.Listen("tcp", listen)
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	who := make(chan netip.Addr, 100)
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			who <- nc.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
			go func() {
				defer nc.Close()
				br := bufio.NewReader(nc)
				out := greeting
				for {
					if out == "" {
						return
					}
					if _, err := nc.Write([]byte(out + "\r\n")); err != nil {
						return
					}
					line, err := br.ReadString('\n')
					if err != nil {
						return
					}
					out = reply(strings.TrimSpace(line))
				}
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort(), who
}

func usual(line string) string {
	if strings.HasPrefix(line, "EHLO") {
		return "250-mx\r\n250-PIPELINING\r\n250 SIZE 77"
	}
	return "250 ok"
}

func TestSessionLeavesFromTheDeliveryAddressAndIsRemembered(t *testing.T) {
	t.Parallel()
	target, who := destination(t, "220 mx", usual)
	d := NewDialer(Options{})
	r := Route{Target: target, Source: netip.MustParseAddr("127.0.0.77"), Helo: "out.gw.example"}
	if _, ok := d.Known(&r); ok {
		t.Error("known before it was seen")
	}
	s, err := d.Open(context.Background(), r)
	must(t, err)
	defer s.Close()
	if from := <-who; from != r.Source {
		t.Errorf("left from %v, want %v", from, r.Source)
	}
	if c, ok := d.Known(&r); !ok || c.Size != 77 || !c.ESMTP || c.Encrypted || !c.Has(smtp.ExtPipelining) {
		t.Errorf("remembered %+v, %v", c, ok)
	}
	other := r
	other.Source = netip.MustParseAddr("127.0.0.78")
	if _, ok := d.Known(&other); ok {
		t.Error("what one source sees is taken for another's")
	}
	d.Forget(&r)
	if _, ok := d.Known(&r); ok {
		t.Error("known after it was forgotten")
	}
}

func TestSessionOverIPv6(t *testing.T) {
	t.Parallel()
	target, who := destinationOn(t, "[::1]:0", "220 mx", usual)
	r := Route{Target: target, Source: netip.IPv6Loopback(), Helo: "out.gw.example"}
	s, err := NewDialer(Options{}).Open(context.Background(), r)
	must(t, err)
	defer s.Close()
	if from := <-who; from != r.Source {
		t.Errorf("left from %v, want %v", from, r.Source)
	}
}

func TestAddressThatIsOnlyRoutedHereMayBeLeftFrom(t *testing.T) {
	t.Parallel()
	_, err := NewDialer(Options{Timeouts: Timeouts{Connect: 200 * time.Millisecond}}).Open(context.Background(), Route{
		Target: netip.MustParseAddrPort("127.0.0.1:1"), Source: netip.MustParseAddr("203.0.113.16"), Helo: "out.gw.example",
	})
	// Without FREEBIND the bind fails with "cannot assign requested address"; with it the connect is refused, or lost
	// because the answer to an address of nobody does not come back.
	if err == nil || strings.Contains(err.Error(), "assign") {
		t.Errorf("got %v", err)
	}
}

func TestFailureDropsWhatWasKnown(t *testing.T) {
	t.Parallel()
	target, _ := destination(t, "554 5.7.1 go away", usual)
	d := NewDialer(Options{})
	r := Route{Target: target, Helo: "x"}
	d.cache.put(r.place(), &Caps{}, time.Now())
	_, err := d.Open(context.Background(), r)
	var f *Failure
	if !errors.As(err, &f) || string(f.Raw) != "554 5.7.1 go away\r\n" || !f.Close || f.Code != 554 {
		t.Fatalf("got %#v", err)
	}
	if _, ok := d.Known(&r); ok {
		t.Error("still known")
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	target, who := destination(t, "220 mx", func(string) string { <-hang; return "" })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := NewDialer(Options{}).Open(ctx, Route{Target: target, Helo: "x"})
		done <- err
	}()
	<-who
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("opened")
		}
	case <-time.After(wait):
		t.Fatal("Open does not end")
	}
}

func TestCacheExpiresAndStaysSmall(t *testing.T) {
	var c cache
	now := time.Now()
	p := place{target: netip.MustParseAddrPort("198.51.100.20:25")}
	c.put(p, &Caps{ESMTP: true}, now)
	if k := c.get(p, now.Add(cacheTime-time.Second)); k == nil || !k.caps.ESMTP {
		t.Error("gone before its time")
	}
	if c.get(p, now.Add(cacheTime+time.Second)) != nil {
		t.Error("there after its time")
	}
	first := c.put(p, &Caps{ESMTP: true, PlainAuth: []string{"PLAIN"}}, now)
	if again := c.put(p, &Caps{ESMTP: true, PlainAuth: []string{"PLAIN"}}, now.Add(time.Minute)); again != first || c.get(p, now.Add(cacheTime+time.Second)) == nil {
		t.Error("what is said again is kept twice, or no longer")
	}
	if other := c.put(p, &Caps{ESMTP: true}, now); other == first || len(first.PlainAuth) != 1 || len(c.get(p, now).caps.PlainAuth) != 0 {
		t.Error("what others have in hand was changed, or the old is still remembered")
	}
	for i := range 3 * cacheRoom / cacheParts {
		a := netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), 100})
		c.put(place{target: netip.AddrPortFrom(a, uint16(25+i>>16)), source: netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})}, &Caps{}, now)
	}
	n := 0
	for i := range c.parts {
		n += len(c.parts[i].m)
	}
	if n > cacheRoom {
		t.Errorf("%d entries, want at most %d", n, cacheRoom)
	}
	for i := range c.parts {
		if len(c.parts[i].m) > cacheRoom/cacheParts {
			t.Errorf("part %d has %d entries", i, len(c.parts[i].m))
		}
	}
}

func TestOwnDeliveryThatIsNotSetUp(t *testing.T) {
	t.Parallel()
	_, err := NewDialer(Options{}).Open(context.Background(), Route{Target: netip.MustParseAddrPort("127.0.0.1:25"), Own: true})
	var f *Failure
	if !errors.As(err, &f) || f.Code != 421 || !strings.Contains(f.Error(), "not set up") {
		t.Errorf("got %v", err)
	}
}

// TestGreetingHasNoLongerThanACommand: whoever shortens the wait for replies does not wait longer for the first ones.
func TestGreetingHasNoLongerThanACommand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ command, want time.Duration }{{0, 2 * time.Minute}, {10 * time.Second, 10 * time.Second}, {30 * time.Minute, 2 * time.Minute}} {
		if got := (Timeouts{Command: c.command}).orDefaults().Greeting; got != c.want {
			t.Errorf("with %v for a command a greeting has %v, want %v", c.command, got, c.want)
		}
	}
}
