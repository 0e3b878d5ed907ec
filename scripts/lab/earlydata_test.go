//go:build labtest

package lab

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
)

// TestEarlyData: where a client pipelines MAIL, RCPT and DATA they go onward in one segment, and the destination's own 354
// comes back. What is bad leaves it without a message, and so does what takes too long, which is asked for again.
func TestEarlyData(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGateway(t, l, "")
	open := func(last int, o SinkOptions) (*Sink, string) {
		mx := MX{Name: fmt.Sprintf("early%d", last), Last: last, Only: "6", Sink: o}
		if err := l.In(HostInternet, func() error { return l.startSink(mx) }); err != nil {
			t.Fatal(err)
		}
		return l.Sink(mx.Name), fmt.Sprintf("[%s]:25", mx.V6())
	}
	if err := l.ip6or4(ctx, "-6 route replace local 2001:db8:100::/64 dev lo"); err != nil {
		t.Fatal(err)
	}
	if err := l.Sysctl(HostInternet, "ipv6/ip_nonlocal_bind", "1"); err != nil {
		t.Fatal(err)
	}
	up, err := l.Capture(ctx, HostInternet, "gw0", "tcp dst port 25")
	if err != nil {
		t.Fatal(err)
	}
	good := []byte("Subject: a letter\r\n\r\nhow are you\r\n")

	sink, to := open(2001, SinkOptions{NoChunks: true})
	p := newEarly(ctx, t, l, "alice", to)
	p.send("354 ", good, 250)
	p.send("354 ", []byte("Subject: a test\r\n\r\n"+gtubeLine+"\r\n"), 550)
	p.send("354 ", good, 250)
	p.quit()
	p.sees(sink, 2, "EHLO MAIL RCPT DATA MAIL RCPT DATA", "EHLO MAIL RCPT DATA")

	sink, to = open(2003, SinkOptions{NoChunks: true})
	if err := sink.Script(`data#1: reply 451 4.3.0 not now, says the sink`); err != nil {
		t.Fatal(err)
	}
	p = newEarly(ctx, t, l, "mallory", to)
	p.group("451 4.3.0 not now, says the sink")
	p.send("354 ", good, 250)
	p.quit()
	p.sees(sink, 1, "EHLO MAIL RCPT DATA RSET MAIL RCPT DATA")

	sink, to = open(2004, SinkOptions{NoESMTP: true})
	p = newEarly(ctx, t, l, "mallory", to)
	p.send("354 gw.example", good, 250) // the gateway's own: the destination is not asked yet
	p.quit()
	p.sees(sink, 1, "EHLO HELO MAIL RCPT DATA")

	// A second is little to a busy machine: it counts only where it is to pass.
	if err := g.Configure(strings.Replace(GatewayConfig, "[smtp]", "[smtp]\nnoop_interval = \"1s\"", 1), ""); err != nil {
		t.Fatal(err)
	}
	reloads(t, ctx, g, 1)
	sink, to = open(2002, SinkOptions{NoChunks: true})
	p = newEarly(ctx, t, l, "bob", to)
	p.group("354 ")
	p.write(good)
	if err := sink.WaitSessions(ctx, func(all []Session) bool { return len(all) > 0 && all[0].End != "" }); err != nil {
		t.Error(err)
	}
	p.end([]byte("and that is all\r\n"), 250)
	p.quit()
	p.sees(sink, 1, "EHLO MAIL RCPT DATA", "EHLO MAIL RCPT DATA")

	ps, err := up.Stop()
	if err != nil {
		t.Fatal(err)
	}
	together := 0
	for _, packet := range ps {
		if bytes.HasPrefix(packet.Payload, []byte("MAIL FROM:")) && bytes.HasSuffix(packet.Payload, []byte("\r\nDATA\r\n")) {
			together++
		}
		if bytes.Contains(packet.Payload, []byte("GTUBE")) {
			t.Error("a byte of the message that was refused went onward")
		}
	}
	if together != 4 { // two of alice's, and the first one each of mallory and bob
		t.Errorf("%d groups left in one segment, want 4", together)
	}
}

// early is a client that pipelines DATA behind its recipients.
type early struct {
	*Client
	ctx  context.Context
	t    *testing.T
	host string
}

func newEarly(ctx context.Context, t *testing.T, l *Lab, host, to string) *early {
	t.Helper()
	c, err := l.Hello(ctx, host, "", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &early{c, ctx, t, host}
}

// group says MAIL, RCPT and DATA at once; the answer to DATA is to begin like this.
func (e *early) group(want string) {
	e.t.Helper()
	e.write([]byte("MAIL FROM:<a@" + e.host + ".example>\r\nRCPT TO:<u@far.example>\r\nDATA\r\n"))
	for _, want := range []string{"250 ", "250 ", want} {
		if r, err := e.Reply(); err != nil || !strings.HasPrefix(r.Raw, want) {
			e.t.Fatalf("%s heard %q, %v; want %s", e.host, r.Raw, err, want)
		}
	}
}

func (e *early) write(b []byte) {
	e.t.Helper()
	if _, err := e.Write(b); err != nil {
		e.t.Fatal(err)
	}
}

// end sends the end of a message.
func (e *early) end(body []byte, want int) {
	e.t.Helper()
	e.write(Stuff(body))
	if r, err := e.Reply(); err != nil || r.Code != want {
		e.t.Fatalf("the message of %s heard %v, %v; want %d", e.host, r, err, want)
	}
}

func (e *early) send(data string, body []byte, want int) {
	e.t.Helper()
	e.group(data)
	e.end(body, want)
}

func (e *early) quit() {
	e.t.Helper()
	if err := e.Quit(); err != nil {
		e.t.Error(err)
	}
}

// sees looks at what came to a sink: messages, and each session's commands, QUIT aside.
func (e *early) sees(sink *Sink, messages int, want ...string) {
	e.t.Helper()
	if _, err := sink.Wait(e.ctx, messages); err != nil {
		e.t.Error(err)
	}
	var got []string
	for _, s := range sink.Sessions() {
		var verbs []string
		for _, line := range s.Lines {
			if c, is := strings.CutPrefix(line, "C: "); is && c != "QUIT" {
				verb, _, _ := strings.Cut(c, " ")
				verbs = append(verbs, verb)
			}
		}
		got = append(got, strings.Join(verbs, " "))
	}
	if n := len(sink.Messages()); n != messages || strings.Join(got, "\n") != strings.Join(want, "\n") {
		e.t.Errorf("the destination of %s has %d messages of %q, want %d of %q", e.host, n, got, messages, want)
	}
}
