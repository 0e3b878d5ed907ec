package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/filter/policy"
	"sluice/proxy/relay"
)

// The other direction: a destination that writes its replies so that we would see one where the client sees two, or that
// answers what it was not asked yet.

// turns are the moments at which a destination speaks, with the code that is due.
var turns = []struct{ verb, code string }{{"greet", "220"}, {"EHLO", "250"}, {"MAIL", "250"}, {"RCPT", "250"}, {"DATA", "354"}, {".", "250"}}

// forms of a reply; C is its code and E a line end.
var forms = []string{
	"C okE", "C-oneEC twoE", "C-oneE", "C okEC againE", "C okE550 5.0.0 injectedE", "C-okE550 noE", "C-okE foldedEC endE", " C okE", "CE", "C-E", "CokE",
	"C ok\x00E", "C ok\rinjectedE", "C okEE", "E", "C okEC-halfE", "C-okEC okE250 injectedE221 byeE", "C ok\x1b[2JE", "C ok\x85E", "999 okE", "0C okE", "C\tokE", "C- E", "-C okE",
}

// TestNoReplyIsSmuggled tries all forms with all line ends at every turn, whole and byte by byte.
func TestNoReplyIsSmuggled(t *testing.T) {
	t.Parallel()
	for _, turn := range turns {
		t.Run(turn.verb, func(t *testing.T) {
			t.Parallel()
			for _, form := range forms {
				for _, end := range []string{"\r\n", "\n", "\r", "\r\r\n", "\n\r", "\r\n\x00"} {
					raw := strings.NewReplacer("C", turn.code, "E", end).Replace(form)
					for _, bytewise := range []bool{false, true} {
						heard := replyCase(t, turn.verb, raw, bytewise)
						if form == "C okE" && (end == "\r\n" || end == "\n") && heard != "250" {
							t.Errorf("%s answered %q: the message is answered %q", turn.verb, raw, heard)
						}
					}
				}
			}
		})
	}
}

// FuzzReplies has a destination say anything at any turn.
func FuzzReplies(f *testing.F) {
	for i, turn := range turns {
		for _, form := range forms {
			f.Add(byte(i), []byte(strings.NewReplacer("C", turn.code, "E", "\r\n").Replace(form)), false)
		}
	}
	f.Fuzz(func(t *testing.T, turn byte, raw []byte, bytewise bool) {
		if len(raw) < 4096 {
			replyCase(t, turns[int(turn)%len(turns)].verb, string(raw), bytewise)
		}
	})
}

// mouth is a destination that once says what it is told.
type mouth struct {
	at, raw  string
	bytewise bool
	took     bool // a message came to its end
}

// DialOwn connects to it in memory.
func (m *mouth) DialOwn(context.Context, netip.Addr, netip.AddrPort) (net.Conn, error) {
	a, b := net.Pipe()
	go m.serve(b)
	return a, nil
}

func (m *mouth) serve(nc net.Conn) {
	out := make(chan string, 1<<13) // as a socket does it takes what nobody reads yet
	defer close(out)
	go func() {
		defer nc.Close()
		for s := range out {
			if _, err := io.WriteString(nc, s); err != nil {
				return
			}
		}
	}()
	br := bufio.NewReader(nc)
	say := func(verb, usual string) bool {
		if verb != m.at {
			out <- usual + "\r\n"
			return true
		}
		m.at = "" // once
		raw := m.raw
		for len(raw) > 0 {
			n := len(raw)
			if m.bytewise {
				n = 1
			}
			out <- raw[:n]
			raw = raw[n:]
		}
		return ended(m.raw)
	}
	if !say("greet", "220 mx") {
		return
	}
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		usual := map[string]string{"EHLO": "250-mx\r\n250 DSN", "DATA": "354 go"}[verb]
		if usual == "" {
			usual = "250 ok"
		}
		if !say(verb, usual) {
			return
		}
		for verb == "DATA" && line != ".\r\n" {
			if line, err = br.ReadString('\n'); err != nil {
				return
			}
		}
		if verb == "DATA" {
			m.took = true
			if !say(".", "250 taken") {
				return
			}
		}
	}
}

// ended tells whether raw holds the last line of a reply: else nothing more comes and the destination closes.
func ended(raw string) bool {
	for line := range strings.Lines(raw) {
		line, whole := strings.CutSuffix(line, "\n")
		line = strings.TrimSuffix(line, "\r")
		if whole && (len(line) == 3 || len(line) > 3 && line[3] != '-') {
			return true
		}
	}
	return false
}

// replyCase leads one mail through a session and checks what the client hears: one reply to each command, each of whole
// lines with one code. It returns the code that answers the message, "" where it came to none.
func replyCase(t *testing.T, at, raw string, bytewise bool) (answer string) {
	t.Helper()
	m := &mouth{at: at, raw: raw, bytewise: bytewise}
	o := newOverWire(t, func(c *Config) {
		c.Dialer = relay.NewDialer(relay.Options{Own: m, Timeouts: relay.Timeouts{Greeting: wait, Command: wait, Final: wait}})
	})
	o.r.policy.Delivery = policy.Own
	client, server := net.Pipe()
	done := make(chan struct{})
	go o.srv.ServeConn(context.Background(), server, o.r.flow(addrPort("192.0.2.10:40000")), func() { close(done) })
	must(t, client.SetDeadline(time.Now().Add(2*wait)))
	br := bufio.NewReader(client)
	what := fmt.Sprintf("%s answered %q, bytewise %v", at, raw, bytewise)
	said := []string{"", "EHLO x\r\n", "MAIL FROM:<a@client.example>\r\n", "RCPT TO:<b@sink.example>\r\n", "DATA\r\n", goodMail + ".\r\n", "QUIT\r\n"}
	last := ""
	for i, s := range said {
		if s == goodMail+".\r\n" && last != "354" {
			continue
		}
		if s != "" { // a pipe waits for a reader even with nothing
			if _, err := io.WriteString(client, s); err != nil {
				break
			}
		}
		code, err := oneReply(br)
		if err == io.EOF && i > 0 {
			break // after a reply that ends the session
		}
		if err != nil || br.Buffered() > 0 {
			t.Errorf("%s: to %q the client hears %q, %v and %d bytes more", what, s, code, err, br.Buffered())
			break
		}
		if s == goodMail+".\r\n" {
			answer = code
		}
		if s == "QUIT\r\n" && code != "221" {
			t.Errorf("%s: QUIT is answered %q: the replies are out of step", what, code)
		}
		last = code
	}
	if rest, _ := io.ReadAll(br); len(bytes.TrimSpace(rest)) > 0 {
		t.Errorf("%s: after all the client hears %q", what, rest)
	}
	client.Close()
	select {
	case <-done:
	case <-time.After(2 * wait):
		t.Fatalf("%s: the session does not end", what)
	}
	if answer == "250" && !m.took {
		t.Errorf("%s: the client heard 250, and the message never came to its end", what)
	}
	return answer
}

// oneReply reads one reply as the strictest client does.
func oneReply(br *bufio.Reader) (code string, err error) {
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return code, err
		}
		text, ok := strings.CutSuffix(line, "\r\n")
		if !ok || strings.ContainsAny(text, "\r\n\x00") || len(text) < 3 || code != "" && text[:3] != code || len(text) > 3 && text[3] != ' ' && text[3] != '-' {
			return code, fmt.Errorf("%q is no line of a reply", line)
		}
		if code = text[:3]; len(text) == 3 || text[3] == ' ' {
			return code, nil
		}
	}
}
