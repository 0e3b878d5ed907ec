//go:build labtest

package lab

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

// A leg is one way for a large message that leaves while it comes.
type leg struct {
	name string
	to   string // address of the server
	rcpt string
	mail string // parameters of MAIL
	tls  bool   // of the client; the onward leg is encrypted always
	data bool   // DATA, else chunks
}

// legSize is of the messages of the test.
const legSize = 2 << 20

// TestLargeMessagesGoAheadByEveryLeg: with delivery.stream, what a client sends in chunks or by DATA, in plain text or under TLS,
// is at Postfix, at Exim and, as chunks of a binary message, at go-smtp, under TLS, before the client has sent its end; and
// whole once it has. What turns out to be bad in its last part leaves nothing at any of them.
func TestLargeMessagesGoAheadByEveryLeg(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGatewayWith(t, l, strings.NewReplacer("[delivery]", "[delivery]\nstream = \"1MiB\"", "[smtp]", "[smtp]\nbody_memory = \"8MiB\"").Replace(GatewayConfig))
	postfix, err := l.MXWith(ctx, "postfix", "smtpd_tls_received_header = yes")
	if err != nil {
		t.Fatal(err)
	}
	exim, err := l.MX(ctx, "exim")
	if err != nil {
		t.Fatal(err)
	}
	binary := binaryGoSMTP(t, l, "peer10")
	legs := []struct {
		leg
		taken func(context.Context, int) ([][]byte, error)
		held  func(context.Context) ([]QueueEntry, error)
		how   string // the server's trace field says
	}{
		{leg{"chunks by TLS to Postfix", "198.51.100.10:25", "u@postfix.example", "", true, false}, postfix.WaitMailbox, postfix.Queue, "with ESMTPS id"},
		{leg{"chunks to Exim", "[2001:db8:100::11]:25", "u@exim.example", "", false, false}, exim.WaitMailbox, exim.Queue, "with esmtps"},
		{leg{"DATA by TLS to Exim", "198.51.100.11:25", "u@exim.example", "", true, true}, exim.WaitMailbox, exim.Queue, "with esmtps"},
		{leg{"binary chunks by TLS to go-smtp", "[2001:db8:100::110]:25", "u@peer10.example", " BODY=BINARYMIME", true, false}, binary.wait, nil, ""},
	}
	want := map[string][]string{} // by recipient
	for _, c := range legs {
		letter := aheadLetter("good", legSize, "the end of "+c.name)
		if r, err := c.send(ctx, l, "alice", letter); err != nil || r.Code != 250 {
			t.Fatalf("%s: %v, %v", c.name, r, err)
		}
		want[c.rcpt] = append(want[c.rcpt], "the end of "+c.name)
	}
	for i, host := range []string{"bob", "mallory", "dave", "alice"} { // who sent a bad one has none go ahead for a while
		c, word, code := legs[i], gtubeLine, "[GTUBE]"
		if i%2 == 1 {
			word, code = eicar, "[EICAR]"
		}
		if r, err := c.send(ctx, l, host, aheadLetter("bad", legSize, word)); err != nil || r.Code != 550 || !strings.Contains(r.Raw, code) {
			t.Errorf("%s, bad: %v, %v", c.name, r, err)
		}
	}
	for _, c := range legs {
		all, err := c.taken(ctx, len(want[c.rcpt]))
		if err != nil {
			t.Fatal(err)
		}
		if c.held != nil {
			if q, err := c.held(ctx); err != nil || len(q) != 0 {
				t.Errorf("%s: %d more messages are on their way there, %v", c.name, len(q), err)
			}
		}
		if len(all) != len(want[c.rcpt]) {
			t.Errorf("%s: %d messages are there, %d were taken", c.name, len(all), len(want[c.rcpt]))
		}
		for i, mail := range all {
			letter := aheadLetter("good", legSize, want[c.rcpt][i])
			_, letter, _ = bytes.Cut(letter, []byte("\r\n\r\n"))
			if !bytes.HasSuffix(unixLines(mail), unixLines(letter)) || !bytes.Contains(mail, []byte(c.how)) {
				t.Errorf("%s: %d bytes are not the message, or came otherwise: %.400q", c.name, len(mail), mail)
			}
		}
	}
	if n := binary.plain; n != 0 {
		t.Errorf("%d of go-smtp's messages came in plain text", n)
	}
}

func unixLines(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")) }

// send sends a letter but for its last part, waits until that has crossed the gateway, sends the rest and returns the answer.
func (c leg) send(ctx context.Context, l *Lab, host string, letter []byte) (Reply, error) {
	x, err := l.Hello(ctx, host, "", c.to)
	if err != nil {
		return Reply{}, err
	}
	defer x.Close()
	if c.tls {
		if _, err := x.StartTLS(); err != nil {
			return Reply{}, err
		}
		if r, err := x.Cmd("EHLO mail." + host + ".example"); err != nil || r.Code != 250 {
			return r, fmt.Errorf("EHLO under TLS: %v, %v", r, err)
		}
	}
	for _, cmd := range []string{"MAIL FROM:<a@" + host + ".example>" + c.mail, "RCPT TO:<" + c.rcpt + ">"} {
		if r, err := x.Cmd(cmd); err != nil || r.Code != 250 {
			return r, fmt.Errorf("%s: %v, %v", cmd, r, err)
		}
	}
	before, err := l.fromGateway()
	if err != nil {
		return Reply{}, err
	}
	cut := bytes.LastIndex(letter, []byte("--b\r\n"))
	if c.data {
		if r, err := x.Cmd("DATA"); err != nil || r.Code != 354 {
			return r, fmt.Errorf("DATA: %v, %v", r, err)
		}
		_, err = x.Write(letter[:cut])
	} else {
		err = c.chunks(x, letter[:cut])
	}
	if err != nil {
		return Reply{}, err
	}
	if err := poll(ctx, func() (bool, error) {
		n, err := l.fromGateway()
		return n-before > int64(cut)-128<<10, err // what does not fill a buffer waits
	}); err != nil {
		return Reply{}, fmt.Errorf("%d bytes do not go ahead: %w", cut, err)
	}
	if c.data {
		_, err = x.Write(append(letter[cut:], ".\r\n"...))
	} else {
		_, err = x.Write(append(fmt.Appendf(nil, "BDAT %d LAST\r\n", len(letter)-cut), letter[cut:]...))
	}
	if err != nil {
		return Reply{}, err
	}
	r, err := x.Reply()
	if err != nil {
		return r, err
	}
	return r, x.Quit()
}

// chunks sends the beginning of a message.
func (leg) chunks(x *Client, text []byte) error {
	for len(text) > 0 {
		n := min(len(text), 200<<10)
		if r, err := chunk(x, text[:n], false); err != nil || r.Code != 250 {
			return fmt.Errorf("a chunk: %v, %v", r, err)
		}
		text = text[n:]
	}
	return nil
}

// binaryServer is go-smtp's server with BINARYMIME, and what it took.
type binaryServer struct {
	sink  *Sink
	plain int // messages that came in plain text, once they were waited for
}

// binaryGoSMTP puts it into the place of a scripted MX.
func binaryGoSMTP(t *testing.T, l *Lab, name string) *binaryServer {
	t.Helper()
	s := l.Sink(name)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, a := range s.mx.Addrs() {
		ln, err := l.Listen(HostInternet, "["+a.String()+"]:25")
		if err != nil {
			t.Fatal(err)
		}
		server := smtp.NewServer(goSMTP{s})
		server.Domain, server.EnableBINARYMIME, server.MaxLineLength = s.mx.Hostname(), true, 1<<20
		server.TLSConfig, server.ErrorLog = l.certs.config(s.mx.Hostname()), discardLog{}
		go func() { _ = server.Serve(ln) }() // ends with Close
		t.Cleanup(func() { _ = server.Close() })
	}
	return &binaryServer{sink: s}
}

func (b *binaryServer) wait(ctx context.Context, n int) (all [][]byte, err error) {
	messages, err := b.sink.Wait(ctx, n)
	b.plain = 0
	for _, m := range messages {
		all = append(all, m.Data)
		if !m.TLS {
			b.plain++
		}
	}
	return all, err
}
