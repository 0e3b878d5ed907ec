package relay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/proxy/cert"
	"sluice/proxy/smtp"
)

// script is a destination that does as f says on its one connection.
func script(t *testing.T, f func(nc net.Conn, br *bufio.Reader)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				f(nc, bufio.NewReader(nc))
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// say answers each of n lines with the next of replies.
func say(nc net.Conn, br *bufio.Reader, replies ...string) {
	for _, r := range replies {
		if _, err := br.ReadString('\n'); err != nil {
			return
		}
		_, _ = nc.Write([]byte(r + "\r\n")) // the test sees what is missing
	}
}

type present struct{}

func (present) Gone() bool { return false }

type ignore struct{}

func (ignore) Answer(int, *smtp.Reply) {}

func envelope(t *testing.T) (*smtp.Mail, []smtp.Rcpt) {
	t.Helper()
	m, err := smtp.ParseMail("FROM:<a@client.example>")
	must(t, err)
	r, err := smtp.ParseRcpt("TO:<b@sink.example>")
	must(t, err)
	return &m, []smtp.Rcpt{r}
}

// letter is a small message.
func letter(t *testing.T) *smtp.Body {
	t.Helper()
	body, err := smtp.BodyFromBytes([]byte("Subject: x\r\n\r\nx\r\n"))
	must(t, err)
	t.Cleanup(body.Release)
	return body
}

func TestRefusalInTheMidstOfTheBodyIsHeard(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		says string
		want int
	}{{"552 5.3.4 too large", 552}, {"421 4.3.2 full", 421}, {"250 lies", 451}, {"", 451}} {
		t.Run(c.says, func(t *testing.T) {
			t.Parallel()
			target := script(t, func(nc net.Conn, br *bufio.Reader) {
				_, _ = nc.Write([]byte("220 mx\r\n"))
				say(nc, br, "250 mx", "250 ok", "250 ok", "354 go")
				_, _ = br.Discard(100 << 10)
				if c.says != "" {
					_, _ = nc.Write([]byte(c.says + "\r\n"))
				}
			})
			s, err := NewDialer(Options{}).Open(context.Background(), Route{Target: target, Helo: "gw.example"})
			must(t, err)
			defer s.Close()
			mail, rcpts := envelope(t)
			must(t, s.Recipients(mail, rcpts, ignore{}))
			body, err := smtp.BodyFromBytes(bytes.Repeat([]byte("0123456789\r\n"), 2<<20))
			must(t, err)
			defer body.Release()
			_, err = s.Deliver(nil, body, time.Now().Add(wait), present{})
			var f *Failure
			if !errors.As(err, &f) || f.Code != c.want || f.Sent || f.Close != (c.want == 421) {
				t.Fatalf("got %+v, want %d", err, c.want)
			}
			if said := f.Raw != nil; said != (c.want == 552 || c.want == 421) || said && !strings.HasPrefix(string(f.Raw), c.says) {
				t.Errorf("passes on %q", f.Raw)
			}
		})
	}
}

// TestReplyNobodyAskedForIsSeenUnderTLS has it in a record of its own that arrives together with a proper reply.
func TestReplyNobodyAskedForIsSeenUnderTLS(t *testing.T) {
	t.Parallel()
	c, err := cert.New(cert.Options{Name: "mx.example"})
	must(t, err)
	target := script(t, func(nc net.Conn, br *bufio.Reader) {
		_, _ = nc.Write([]byte("220 mx\r\n"))
		say(nc, br, "250-mx\r\n250 STARTTLS", "220 go")
		glue := &together{Conn: nc}
		tc := tls.Server(glue, c.Config())
		if tc.Handshake() != nil {
			return
		}
		br = bufio.NewReader(tc)
		say(tc, br, "250 mx", "250 ok")
		_, _ = br.ReadString('\n')
		glue.hold = true
		_, _ = tc.Write([]byte("250 ok\r\n"))
		_, _ = tc.Write([]byte("250 and more\r\n"))
		glue.release()
		say(tc, br, "354 go", "250 taken")
	})
	s, err := NewDialer(Options{}).Open(context.Background(), Route{Target: target, Helo: "gw.example"})
	must(t, err)
	defer s.Close()
	mail, rcpts := envelope(t)
	must(t, s.Recipients(mail, rcpts, ignore{}))
	body := letter(t)
	_, err = s.Deliver(nil, body, time.Now().Add(wait), present{})
	if !errors.Is(err, smtp.ErrUnsolicited) {
		t.Errorf("got %v, want %v", err, smtp.ErrUnsolicited)
	}
}

// TestWhatIsSaidBeforeTheMessageIsNoAnswerToIt: a reply too many, or in front of its time, that has come before the message
// leaves. A destination that waits for the message may refuse it before it has it.
func TestWhatIsSaidBeforeTheMessageIsNoAnswerToIt(t *testing.T) {
	t.Parallel()
	type sending func(s *Session, mail *smtp.Mail, rcpts []smtp.Rcpt, body *smtp.Body, spoken func()) error
	whole := func(begin func(*Session, *smtp.Mail, []smtp.Rcpt, Listener) error) sending {
		return func(s *Session, mail *smtp.Mail, rcpts []smtp.Rcpt, body *smtp.Body, spoken func()) error {
			if err := begin(s, mail, rcpts, ignore{}); err != nil {
				return err
			}
			spoken()
			_, err := s.Deliver([]byte("Received: x\r\n"), body, time.Now().Add(wait), present{})
			return err
		}
	}
	stream := func(s *Session, mail *smtp.Mail, rcpts []smtp.Rcpt, _ *smtp.Body, spoken func()) error {
		mail.Body = smtp.BodyBinaryMIME
		if err := s.Recipients(mail, rcpts, ignore{}); err != nil {
			return err
		}
		spoken()
		_, err := s.Stream([]byte("Received: x\r\n"), time.Now().Add(wait))
		return err
	}
	for name, c := range map[string]struct {
		ehlo    string
		answers []string
		send    sending
	}{
		"one chunk":   {"250-mx\r\n250 CHUNKING", []string{"250 ok", "250 ok"}, whole((*Session).Recipients)},
		"many chunks": {"250-mx\r\n250-BINARYMIME\r\n250-PIPELINING\r\n250 CHUNKING", []string{"250 ok", "250 ok"}, stream},
		"DATA ahead":  {"250-mx\r\n250 PIPELINING", []string{"250 ok", "250 ok", "354 go"}, whole((*Session).Group)},
	} {
		for says, want := range map[string]int{"250 2.0.0 taken": 451, "552 5.3.4 too large": 451, "421 4.3.2 leaving": 421} {
			if name == "DATA ahead" && says[0] == '5' {
				want = 552
			}
			t.Run(name+"/"+says, func(t *testing.T) {
				t.Parallel()
				answered := make(chan struct{})
				target := script(t, func(nc net.Conn, br *bufio.Reader) {
					_, _ = nc.Write([]byte("220 mx\r\n"))
					say(nc, br, append([]string{c.ehlo}, c.answers...)...)
					<-answered
					_, _ = nc.Write([]byte(says + "\r\n"))
					_, _ = br.ReadString(0)
				})
				s, err := NewDialer(Options{Chunks: name == "one chunk"}).Open(context.Background(), Route{Target: target, Helo: "gw.example"})
				must(t, err)
				defer s.Close()
				mail, rcpts := envelope(t)
				body := letter(t)
				var f *Failure
				if err := c.send(s, mail, rcpts, body, func() { close(answered); untilSpoken(t, s) }); !errors.As(err, &f) || f.Code != want || f.Sent || (f.Raw != nil) != (want != 451) {
					t.Errorf("got %+v, want %d", err, want)
				}
			})
		}
	}
}

// untilSpoken waits until the destination has said more than it was asked.
func untilSpoken(t *testing.T, s *Session) {
	t.Helper()
	for end := time.Now().Add(wait); s.Alive(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the destination says nothing")
		}
	}
}

// together is a connection that can send several writes in one segment.
type together struct {
	net.Conn
	hold bool
	b    []byte
}

func (g *together) Write(p []byte) (int, error) {
	if g.hold {
		g.b = append(g.b, p...)
		return len(p), nil
	}
	return g.Conn.Write(p)
}

func (g *together) release() {
	g.hold = false
	_, _ = g.Conn.Write(g.b) // the test sees what is missing
}
