package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/proxy/relay"
)

// dribble writes a byte now and then until the other side has had enough.
func dribble(nc net.Conn, text string, pause time.Duration) {
	for i := 0; ; i++ {
		if _, err := nc.Write([]byte{text[i%len(text)]}); err != nil {
			return
		}
		time.Sleep(pause) // a hostile peer's pace: the subject of the test
	}
}

// short gives every wait for the client two seconds: progress of a byte now and then must not prolong it for ever.
func short(r *rig) {
	t := &r.cfg.Settings.Timeouts
	t.Command, t.Block, t.Message = 2*time.Second, 2*time.Second, 3*time.Second
}

// TestProgressOfABytePerMoment: whoever sends one byte after the other, each well within the time-out, is cut off all the same.
func TestProgressOfABytePerMoment(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before, text, want string
	}{
		"a command":      {"EHLO client.example\r\n", "N", "421 4.4.2 gw.example: "},
		"the first one":  {"", "E", "421 4.4.2 gw.example: "},
		"a message":      {"EHLO client.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@sink.example>\r\nDATA\r\n", "x\r\n", "421 4.4.2 gw.example: "},
		"a large chunk":  {"EHLO client.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@sink.example>\r\nBDAT 100000\r\n", "x\r\n", "421 4.4.2 gw.example: "},
		"a header field": {"EHLO client.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@sink.example>\r\nDATA\r\nSubject: ", "x", "421 4.4.2 gw.example: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, newRemote(t).addr(), short)
			p := r.dial()
			for line := range strings.Lines(c.before) {
				p.write(line)
				if !strings.HasPrefix(line, "BDAT") && !strings.HasPrefix(line, "Subject") {
					p.reply()
				}
			}
			go dribble(p.nc, c.text, 20*time.Millisecond)
			p.want(c.want)
			p.closed()
			eventually(t, "the session has ended", func() bool { return r.srv.Sessions() == 0 })
		})
	}
}

// TestDestinationOfABytePerMoment: a destination that answers one byte now and then, or one line of many, is given up.
func TestDestinationOfABytePerMoment(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"bytes": "250-and so on ", "lines": "220-x\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			t.Cleanup(func() { mx.Close() })
			go func() {
				for {
					nc, err := mx.Accept()
					if err != nil {
						return
					}
					go func() { defer nc.Close(); dribble(nc, text, 10*time.Millisecond) }()
				}
			}()
			r := newRig(t, mx.Addr().(*net.TCPAddr).AddrPort(), func(r *rig) {
				const d = 400 * time.Millisecond
				r.cfg.Dialer = relay.NewDialer(relay.Options{Timeouts: relay.Timeouts{Connect: wait, Greeting: d, Command: d, Final: d}})
			})
			p := r.dial()
			p.cmd("EHLO client.example", "4")
			p.closed()
		})
	}
}

// TestBombs: what is endless ends, or is answered and forgotten; the next session is served as ever.
func TestBombs(t *testing.T) {
	t.Parallel()
	const envelope = "EHLO client.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@sink.example>\r\nDATA\r\n"
	rcpts := "EHLO client.example\r\nMAIL FROM:<a@client.example>\r\n" + strings.Repeat("RCPT TO:<b@sink.example>\r\n", 100_000)
	for name, c := range map[string]struct{ text, want string }{
		"100,000 header fields":        {envelope + strings.Repeat("X-H: y\r\n", 100_000) + "\r\n.\r\n", "250 2.0.0 queued"},
		"a header field of 1 MiB":      {envelope + "X: " + strings.Repeat("y", 1<<20) + "\r\n\r\n.\r\n", "250 2.0.0 queued"},
		"100,000 recipients":           {rcpts, "421 4.5.3 gw.example: "},
		"100,000 RSET":                 {"EHLO client.example\r\n" + strings.Repeat("RSET\r\n", 100_000), "421 4.7.0 gw.example: "},
		"100,000 NOOP":                 {"EHLO client.example\r\n" + strings.Repeat("NOOP\r\n", 100_000), "421 4.7.0 gw.example: "},
		"a command of 8 MiB":           {strings.Repeat("x", 8<<20), "421 4.7.0 gw.example: "},
		"NUL bytes":                    {strings.Repeat("\x00\r\n", 100), "421 4.7.0 gw.example: "},
		"a message of NUL":             {envelope + "\x00\r\n.\r\n", "550 5.6.0 gw.example: "},
		"a command of bare CR":         {strings.Repeat("NOOP\rNOOP\r\n", 100), "421 4.7.0 gw.example: "},
		"another protocol's greeting":  {strings.Repeat("GET / HTTP/1.1\r\n", 100), "421 4.7.0 gw.example: "},
		"a TLS handshake in the clear": {"\x16\x03\x01\x02\x00" + strings.Repeat("\x00", 512) + strings.Repeat("\n", 50), "421 4.7.0 gw.example: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, func(r *remote) { r.event = make(chan string, 1<<18) })
			r := newRig(t, mx.addr(), func(r *rig) { r.quick = true })
			p := r.dial()
			go func() { _, _ = io.WriteString(p.nc, c.text) }() // the other side may hang up in the midst of it
			for {
				got := p.reply()
				if strings.HasPrefix(got, c.want) {
					break
				}
				if strings.HasPrefix(got, "421") {
					t.Fatalf("ended by %q, want %q", got, c.want)
				}
			}
			if used := r.srv.bodies.Load(); used > 4<<20 {
				t.Errorf("%d bytes of bodies in memory", used)
			}
			good := r.hello()
			good.envelope()
			good.send(goodMail, "250")
		})
	}
}

// TestTLSBrokenOffAtEveryByte: a handshake that ends anywhere ends its session and no other.
func TestTLSBrokenOffAtEveryByte(t *testing.T) {
	t.Parallel()
	r := newRig(t, newRemote(t, remoteTLS(t)).addr(), withTLS)
	r.hello().cmd("QUIT", "221") // from here on EHLO is answered from memory
	hello := clientHello(t)
	for n := range len(hello) + 1 {
		p := r.hello()
		p.cmd("STARTTLS", "220")
		p.write(string(hello[:n]))
		p.nc.Close()
	}
	eventually(t, "all sessions have ended", func() bool { return r.srv.Sessions() == 0 })
	p := r.hello()
	p.startTLS()
	p.cmd("EHLO client.example", "250")
}

// clientHello is the first thing that a TLS client sends.
func clientHello(t *testing.T) []byte {
	a, b := net.Pipe()
	defer b.Close()
	go func() { _ = tls.Client(a, &tls.Config{ServerName: "gw.example"}).Handshake(); a.Close() }()
	must(t, b.SetDeadline(time.Now().Add(wait)))
	buf := make([]byte, 4096)
	n, err := b.Read(buf)
	must(t, err)
	return buf[:n]
}

// TestAClientThatReadsNothing: replies that nobody takes are not gathered, and the session ends.
func TestAClientThatReadsNothing(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("550-"+strings.Repeat("x", 500)+"\r\n", 100) + "550 no"
	mx := newRemote(t, reply("RCPT", long), func(r *remote) { r.event = make(chan string, 1<<18) })
	r := newRig(t, mx.addr(), short)
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	go func() { _, _ = io.WriteString(p.nc, strings.Repeat("RCPT TO:<b@sink.example>\r\n", 9000)) }() // until it is cut off
	eventually(t, "the session has ended", func() bool { return r.srv.Sessions() == 0 })
}

// TestHalfClosedClient: a client that ends its side right behind the final dot, with or without QUIT, hears the answer all the
// same, whenever its FIN comes. What is not sure is that it does.
func TestHalfClosedClient(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]bool{"before the message leaves": false, "while the destination thinks": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p *peer
			half := func() { _ = p.nc.(*net.TCPConn).CloseWrite() } // where it fails, the record says so
			mx := newRemote(t, func(r *remote) {
				r.hold = make(chan struct{})
				r.before = func(verb string) {
					if verb == "DATA" && !late {
						half()
					}
				}
			})
			j := sentOnly{make(chan struct{})}
			r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Inflight = j })
			want := Delivered
			if late {
				want, r.srv.longWait = Ambiguous, 0
				go func() { <-j.sent; half(); <-time.After(2 * longWait); close(mx.hold) }()
			} else {
				close(mx.hold)
			}
			p = r.hello()
			p.envelope()
			p.cmd("DATA", "354")
			p.write(goodMail + ".\r\n")
			p.want("250 2.0.0 queued as X1")
			p.closed()
			if rec, n := r.log.wait(t, 1)[0], len(mx.messages()); rec.Status != want || n != 1 {
				t.Errorf("status %v (%s), %d messages; want %v", rec.Status, rec.Note, n, want)
			}
			eventually(t, "the session has ended", func() bool { return r.srv.Sessions() == 0 })
		})
	}
}

// TestHalfClosedBehindQUIT: all that a client has to say may come at once, its end as well.
func TestHalfClosedBehindQUIT(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	p := r.hello()
	p.envelope()
	p.cmd("DATA", "354")
	p.write(goodMail + ".\r\nQUIT\r\n")
	must(t, p.nc.(*net.TCPConn).CloseWrite())
	p.want("250 2.0.0 queued as X1")
	p.want("221 ")
	p.closed()
	if rec := r.log.wait(t, 1)[0]; rec.Status != Delivered || len(mx.messages()) != 1 {
		t.Errorf("status %v (%s), %d messages", rec.Status, rec.Note, len(mx.messages()))
	}
}

// TestWhoIsGone: one that resets is, and one that ends its side only after it has waited.
func TestWhoIsGone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		before time.Duration
		half   bool
	}{
		{io.EOF, 0, true},
		{io.EOF, 2 * hasEnded, false},
		{syscall.ECONNRESET, 0, false},
		{io.ErrUnexpectedEOF, 0, false},
	} {
		s := &session{work: &work{tx: transaction{ended: time.Now().Add(-c.before)}}}
		if got := s.halfClosed(c.err); got != c.half {
			t.Errorf("%v, %v behind the dot: %v", c.err, c.before, got)
		}
	}
}

// TestDestinationThatReadsNoBody: one that takes DATA and leaves its window shut is given up in time. The dot has not left,
// so the client may send again.
func TestDestinationThatReadsNoBody(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, func(r *remote) { r.hold = make(chan struct{}) })
	t.Cleanup(func() { close(mx.hold) })
	r := newRig(t, mx.addr(), impatient)
	p := r.hello()
	p.envelope()
	p.cmd("DATA", "354")
	line := strings.Repeat("x", 998) + "\r\n"
	p.write(strings.Repeat(line, 24000) + ".\r\n") // more than the kernel's buffers hold
	p.want("451 4.4.2 gw.example: ")
	p.cmd("QUIT", "221")
	rec := r.log.wait(t, 1)[0]
	if rec.Status != Deferred || rec.Source.IsValid() || len(mx.messages()) != 0 {
		t.Errorf("status %v, source %v, %d messages; want deferred and no dot", rec.Status, rec.Source, len(mx.messages()))
	}
}
