//go:build labtest

package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// bobOwn is the usual configuration where bob's mail leaves from his own address.
var bobOwn = strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "bob"}}
delivery = "own"{{end}}`, 1)

// TestOwnDelivery: the MX sees the customer's address where his user says so, and a delivery address otherwise.
func TestOwnDelivery(t *testing.T) { onEachPath(t, ownDeliveryBy) }

func ownDeliveryBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by(path, bobOwn))
	large := append([]byte("Subject: large\r\n\r\n"), bytes.Repeat([]byte(strings.Repeat("0123456789abcdef", 4)+"\r\n"), 5<<20/66)...)
	small := []byte("Subject: small\r\n\r\n.\r\n..\r\nsmall\r\n")
	is := func(a string) func(netip.Addr) bool {
		return func(x netip.Addr) bool { return x == netip.MustParseAddr(a) }
	}
	cases := []struct {
		host, to string
		from     func(netip.Addr) bool
	}{
		{"bob", "198.51.100.20:25", is("192.0.2.20")},
		{"bob", "[2001:db8:100::20]:25", is("2001:db8:2::20")},
		{"alice", "198.51.100.20:25", DeliveryV4.Contains},
		{"alice", "[2001:db8:100::20]:25", DeliveryV6.Contains},
	}
	for i, c := range cases {
		for j, body := range [][]byte{small, large} {
			rcpt := fmt.Sprintf("u%d%d@sink.example", i, j)
			s, err := l.Hello(ctx, c.host, "", c.to)
			if err != nil {
				t.Fatal(err)
			}
			if _, last, err := s.Send("a@"+c.host+".example", []string{rcpt}, body); err != nil || last.Code != 250 {
				t.Fatalf("%s to %s, %d bytes: %v %v", c.host, c.to, len(body), last, err)
			}
			if err := s.Quit(); err != nil {
				t.Error(err)
			}
			m := messageTo(ctx, t, l, rcpt)
			if !c.from(m.Peer.Addr().Unmap()) {
				t.Errorf("%s at %s is seen as %v", c.host, c.to, m.Peer)
			}
			if !bytes.HasSuffix(m.Data, body) {
				t.Errorf("%s at %s: a message of %d bytes arrived as %d", c.host, c.to, len(body), len(m.Data))
			}
		}
	}
	noHelper(ctx, t, l, g)
}

func messageTo(ctx context.Context, t *testing.T, l *Lab, rcpt string) *Message {
	t.Helper()
	return messageOf(ctx, t, l.Sink("sink"), rcpt)
}

// noHelper: connections from customers' addresses are the helper's work. While it is dead, who needs one hears a
// temporary error, who has one goes on, and who needs none notices nothing.
func noHelper(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	t.Helper()
	open, err := l.Hello(ctx, "bob", "", "198.51.100.20:25")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"MAIL FROM:<a@bob.example>", "RCPT TO:<open@sink.example>"} {
		if r, err := open.Cmd(line); err != nil || r.Code != 250 {
			t.Fatalf("%s: %v %v", line, r, err)
		}
	}
	if err := g.Intercept.Kill(); err != nil {
		t.Fatal(err)
	}
	if r, err := open.Data([]byte("Subject: open\r\n\r\nopen\r\n")); err != nil || r.Code != 250 {
		t.Errorf("a transaction that was open when the helper died: %v %v", r, err)
	}
	served(t, l, "alice", "", "198.51.100.20:25")
	// d01 leads to the same host; a scripted peer is one that nobody knows yet.
	for _, to := range []string{"198.51.100.20:25", "[2001:db8:100::101]:25"} {
		began := time.Now()
		if r := firstRefusal(ctx, t, l, "bob", to); r.Code != 421 && r.Code != 451 {
			t.Errorf("without a helper, own delivery to %s is answered %v", to, r)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("without a helper, the answer took %v", took)
		}
	}
	if err := g.StartIntercept(ctx); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for {
		c, err := l.Hello(ctx, "bob", "", "[2001:db8:100::101]:25")
		if err == nil {
			_, last, err := c.Send("a@bob.example", []string{"again@sink.example"}, []byte("Subject: again\r\n\r\nagain\r\n"))
			_ = c.Close()
			if err == nil && last.Code == 250 {
				break
			}
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("10 s after the helper's return own delivery still fails: %v", err)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil { // a client's pace
			t.Fatal(err)
		}
	}
	all, err := l.Sink("peer01").Wait(ctx, 1)
	if err != nil || all[0].Peer.Addr() != netip.MustParseAddr("2001:db8:2::20") {
		t.Errorf("after the helper's return own delivery comes from %v: %v", all, err)
	}
}

// firstRefusal is the first reply of a transaction that is no success.
func firstRefusal(ctx context.Context, t *testing.T, l *Lab, host, to string) Reply {
	t.Helper()
	c, err := l.SMTP(ctx, host, "", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, line := range []string{"EHLO x", "MAIL FROM:<a@" + host + ".example>", "RCPT TO:<u@sink.example>"} {
		r, err := c.Cmd(line)
		if err != nil {
			t.Fatal(err)
		}
		if r.Code >= 400 {
			return r
		}
	}
	return Reply{}
}
