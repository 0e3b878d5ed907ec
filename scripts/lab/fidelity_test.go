//go:build labtest

package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// A carriage is one long session of a script client with one MX: how letters get in, and how they are read there.
type carriage struct {
	name  string
	to    string // address of the MX
	rcpt  string
	tls   bool
	chunk bool
	taken func(ctx context.Context, n int) ([][]byte, error) // the next n that were stored
}

// TestMessagesKeepTheirBytes carries letters through sessions of every kind to servers that store what they get byte by
// byte, and compares: below the gateway's one trace field stands what was sent, line ends CRLF. With SLUICE_FIDELITY=all
// it is the whole corpus through each of them.
func TestMessagesKeepTheirBytes(t *testing.T) {
	t.Parallel()
	letters, all := fidelityLetters(t)
	ctx := testContext(t)
	l := ForTest(t, Options{})
	startGatewayWith(t, l, unjudged)
	carriages, err := carriagesOf(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range carriages {
		mine := letters
		if !all { // each letter by two of them
			mine = nil
			for j, m := range letters {
				if (j+i)%len(carriages) < 2 {
					mine = append(mine, m)
				}
			}
		}
		t.Run(c.name, func(t *testing.T) { carry(ctx, t, l, c, mine) })
	}
}

// unjudged is the lab's configuration without limits and locks, in which as many copies of a message go as one likes.
var unjudged = strings.Replace(GatewayConfig, "automatic = true", "automatic = false", 1) + `
[limits]
messages_per_hour = 0
recipients_per_hour = 0
invalid_recipients_percent = 0

[campaign]
act = "say"
`

// fidelityLetters are the torture set and a sample of the corpus, or all of it.
func fidelityLetters(t *testing.T) ([]original, bool) {
	all := os.Getenv("SLUICE_FIDELITY") == "all"
	nth := map[string]int{"mail": 64, "mime": 3, "dsn": 5}
	if all {
		nth = map[string]int{"mail": 1, "mime": 1, "dsn": 1}
	}
	return append(torture(), corpus(t, nth)...), all
}

func carriagesOf(ctx context.Context, l *Lab) ([]carriage, error) {
	if _, err := l.MX(ctx, "aiosmtpd"); err != nil {
		return nil, err
	}
	sink := func(name, rcpt string) func(context.Context, int) ([][]byte, error) {
		return func(ctx context.Context, n int) ([][]byte, error) { return fromSink(ctx, l.Sink(name), rcpt, n) }
	}
	return []carriage{
		{"DATA", "198.51.100.20:25", "data@sink.example", false, false, sink("sink", "data@sink.example")},
		{"BDAT", "[2001:db8:100::20]:25", "bdat@sink.example", false, true, sink("sink", "bdat@sink.example")},
		{"DATA by TLS", "198.51.100.21:25", "data@selfsigned.example", true, false, sink("selfsigned", "data@selfsigned.example")},
		{"BDAT by TLS", "[2001:db8:100::21]:25", "bdat@selfsigned.example", true, true, sink("selfsigned", "bdat@selfsigned.example")},
		{"DATA to go-smtp by TLS", "[2001:db8:100::24]:25", "data@gosmtp.example", true, false, sink("gosmtp", "data@gosmtp.example")},
		{"BDAT to go-smtp", "198.51.100.74:25", "bdat@gosmtp.example", false, true, sink("gosmtp", "bdat@gosmtp.example")},
		{"DATA to aiosmtpd by TLS", "198.51.100.14:25", "data@aiosmtpd.example", true, false, fromAiosmtpd(l)},
		{"BDAT to aiosmtpd", "[2001:db8:100::64]:25", "bdat@aiosmtpd.example", false, true, fromAiosmtpd(l)},
	}, nil
}

// fromSink waits for n messages to a recipient and forgets them.
func fromSink(ctx context.Context, s *Sink, rcpt string, n int) ([][]byte, error) {
	var all [][]byte
	_, err := s.WaitMatch(ctx, func(messages []*Message) bool {
		all = nil
		for _, m := range messages {
			if slices.Contains(m.Recipients(), rcpt) {
				all = append(all, m.Data)
			}
		}
		return len(all) >= n
	})
	s.Reset()
	return all, err
}

// fromAiosmtpd takes the messages out of the server's mailbox, without the trace field of its program.
func fromAiosmtpd(l *Lab) func(context.Context, int) ([][]byte, error) {
	return func(ctx context.Context, n int) ([][]byte, error) {
		m, err := l.MX(ctx, "aiosmtpd")
		if err != nil {
			return nil, err
		}
		all, err := m.WaitMailbox(ctx, n)
		for i := range all {
			_, all[i], _ = bytes.Cut(all[i], []byte("\r\n"))
		}
		if err != nil {
			return all, err
		}
		return all, m.EmptyMailbox()
	}
}

// batch is how many messages are on their way before they are compared, which bounds memory.
const batch = 500

func carry(ctx context.Context, t *testing.T, l *Lab, c carriage, letters []original) {
	x, err := l.SMTP(ctx, "mallory", "", c.to)
	if err != nil {
		t.Fatal(err)
	}
	x.Timeout(time.Minute)
	if err := hello(x, c.tls); err != nil {
		t.Fatal(err)
	}
	identical, refused, stopped := 0, 0, 0
	for part := range slices.Chunk(letters, batch) {
		var sent []original
		for i, m := range part {
			r, err := submit(x, c, m.data, i)
			if err != nil {
				t.Fatalf("%s: %v", m.name, err)
			}
			_, bad := canonical(m.data)
			switch {
			case bad && r.Code == 550 && strings.Contains(r.String(), "5.6.0"):
				refused++
			case bad || r.Code != 250 && !isVerdict(r):
				t.Errorf("%s: %s", m.name, r)
			case r.Code == 250:
				sent = append(sent, m)
			default:
				stopped++
			}
		}
		got, err := c.taken(ctx, len(sent))
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(sent) {
			t.Fatalf("%d messages arrived, %d were taken", len(got), len(sent))
		}
		for i, m := range sent {
			if err := sameBelowTrace(got[i], m.data); err != nil {
				t.Errorf("%s: %v", m.name, err)
			} else {
				identical++
			}
		}
	}
	if err := x.Quit(); err != nil {
		t.Error(err)
	}
	t.Logf("%d letters: %d identical, %d refused for NUL or bare CR, %d by the content filter", len(letters), identical, refused, stopped)
	if identical < len(letters)/2 {
		t.Error("most letters were not compared")
	}
}

// isVerdict tells the content filter's refusal from a fault: in the corpus are test patterns and worse.
func isVerdict(r Reply) bool {
	return r.Code == 550 && strings.HasPrefix(r.Lines[0], "5.7.1 ") && strings.Contains(r.String(), "https://gw.example/mail/")
}

func hello(x *Client, tls bool) error {
	if _, err := x.Cmd("EHLO mail.mallory.example"); err != nil {
		return err
	}
	if !tls {
		return nil
	}
	if _, err := x.StartTLS(); err != nil {
		return err
	}
	_, err := x.Cmd("EHLO mail.mallory.example")
	return err
}

// submit is one transaction. Of the letter only the last line end is made CRLF, if it has one.
func submit(x *Client, c carriage, data []byte, nth int) (Reply, error) {
	for _, line := range []string{"MAIL FROM:<a@mallory.example> BODY=8BITMIME", "RCPT TO:<" + c.rcpt + ">"} {
		if r, err := x.Cmd(line); err != nil || r.Code != 250 {
			return r, fmt.Errorf("%s: %v, %v", line, r, err)
		}
	}
	if !c.chunk {
		if body, ok := bytes.CutSuffix(data, []byte("\n")); ok {
			data = append(bytes.Clone(bytes.TrimSuffix(body, []byte("\r"))), "\r\n"...)
		}
		return dataAsIs(x, data)
	}
	// Chunks of many sizes, the last one empty now and then.
	size := []int{1 << 30, 1 << 16, 4096, 1000, 333}[nth%5]
	for len(data) > size {
		if r, err := chunk(x, data[:size], false); err != nil || r.Code != 250 {
			return r, err
		}
		data = data[size:]
	}
	if nth%2 == 1 && len(data) > 0 {
		if r, err := chunk(x, data, false); err != nil || r.Code != 250 {
			return r, err
		}
		data = nil
	}
	return chunk(x, data, true)
}

// sameBelowTrace compares what arrived with what was sent.
func sameBelowTrace(got, sent []byte) error {
	below, err := belowTrace(got)
	if err != nil {
		return err
	}
	want, _ := canonical(sent)
	if bytes.Equal(below, want) {
		return nil
	}
	n := 0
	for n < len(below) && n < len(want) && below[n] == want[n] {
		n++
	}
	around := func(data []byte) []byte { return data[max(0, n-40):min(len(data), n+40)] }
	return fmt.Errorf("%d bytes arrived, %d were sent; they differ at byte %d: %q instead of %q", len(below), len(want), n, around(below), around(want))
}

// belowTrace cuts the gateway's trace field off, which has three lines.
func belowTrace(data []byte) ([]byte, error) {
	lines := bytes.SplitAfterN(data, []byte("\r\n"), 4)
	if len(lines) < 4 || !bytes.HasPrefix(lines[0], []byte("Received: from mail.mallory.example (")) ||
		!bytes.HasPrefix(lines[1], []byte("\tby gw.example with ")) || !bytes.HasPrefix(lines[2], []byte("\t")) {
		return nil, fmt.Errorf("no trace field of the gateway's on top: %.200q", data)
	}
	return lines[3], nil
}

// dataAsIs is Client.Data for a body in which a bare LF ends a line as well: dots behind it are doubled, too.
func dataAsIs(x *Client, body []byte) (Reply, error) {
	if r, err := x.Cmd("DATA"); err != nil || r.Code != 354 {
		return r, err
	}
	out := bytes.ReplaceAll(body, []byte("\n."), []byte("\n.."))
	if bytes.HasPrefix(out, []byte(".")) {
		out = append([]byte("."), out...)
	}
	if len(out) > 0 && !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(bytes.Clone(out), "\r\n"...)
	}
	if _, err := x.Write(append(bytes.Clone(out), ".\r\n"...)); err != nil {
		return Reply{}, err
	}
	return x.Reply()
}

// chunk is one BDAT (RFC 3030).
func chunk(x *Client, data []byte, last bool) (Reply, error) {
	command := fmt.Sprintf("BDAT %d\r\n", len(data))
	if last {
		command = fmt.Sprintf("BDAT %d LAST\r\n", len(data))
	}
	if _, err := x.Write(append([]byte(command), data...)); err != nil {
		return Reply{}, err
	}
	return x.Reply()
}
