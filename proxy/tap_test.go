package proxy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// said is one side's bytes of a dialogue.
type said struct {
	server bool
	text   string
}

func c(text string) said { return said{false, text} }
func s(text string) said { return said{true, text} }

// hear gives a dialogue to a tap, each side's bytes in pieces of at most n, and tells what was overheard.
func hear(n int, dialogue []said) (got []string, t *tap) {
	held := 0
	t = &tap{most: 1000, room: func(delta int) bool { held += delta; return true }}
	t.done = func(o *overheard) {
		var to []string
		for _, r := range o.To {
			to = append(to, fmt.Sprintf("%s %d", r.Address, r.Code))
		}
		got = append(got, fmt.Sprintf("%s|%s|%s|%q|%d|%d|%v", o.Helo, o.Mail.Address, strings.Join(to, ","), o.Body, o.Size, o.code, o.Whole))
	}
	for _, d := range dialogue {
		for p := []byte(d.text); len(p) > 0; {
			k := min(len(p), 1+rand.IntN(n))
			if d.server {
				t.fromServer(p[:k])
			} else {
				t.fromClient(p[:k])
			}
			p = p[k:]
		}
	}
	return got, t
}

func TestTapFindsMessages(t *testing.T) {
	t.Parallel()
	begin := []said{s("220-mx\r\n220 hello\r\n"), c("EHLO c.example\r\n"), s("250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n")}
	envelope := []said{c("MAIL FROM:<a@c.example>\r\n"), s("250 ok\r\n"), c("RCPT TO:<b@s.example>\r\n"), s("250 ok\r\n")}
	for name, tc := range map[string]struct {
		talk  []said
		want  []string
		blind string
		open  bool
	}{
		"plain": {talk: append(envelope, c("DATA\r\n"), s("354 go\r\n"), c("S: x\r\n\r\n..y\r\n.\r\n"), s("250 queued\r\n"), c("QUIT\r\n"), s("221 bye\r\n")),
			want: []string{`c.example|a@c.example|b@s.example 250|"S: x\r\n\r\n.y\r\n"|12|250|true`}},
		"pipelined": {talk: []said{c("MAIL FROM:<a@c.example>\r\nRCPT TO:<b@s.example>\r\nRCPT TO:<no@s.example>\r\nDATA\r\n"), s("250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n"),
			c("x\r\n.\r\nMAIL FROM:<>\r\nRSET\r\n"), s("451 later\r\n250 ok\r\n250 ok\r\n")},
			want: []string{`c.example|a@c.example|b@s.example 250,no@s.example 550|"x\r\n"|3|451|true`, `c.example|||""|0|0|false`}},
		"did not wait for 354": {talk: append(envelope, c("DATA\r\nx\r\n.\r\nQUIT\r\n"), s("354 go\r\n250 queued\r\n221 bye\r\n")),
			want: []string{`c.example|a@c.example|b@s.example 250|"x\r\n"|3|250|true`}},
		"DATA refused": {talk: append(envelope, c("DATA\r\nRSET\r\n"), s("554 no\r\n250 ok\r\n")),
			want: []string{`c.example|a@c.example|b@s.example 250|""|0|0|false`}},
		"chunks": {talk: append(envelope, c("BDAT 4\r\n.\r\n\r"), s("250 ok\r\n"), c("BDAT 3 LAST\r\n\n.\r"), s("250 queued\r\n")),
			want: []string{`c.example|a@c.example|b@s.example 250|".\r\n\r\n.\r"|7|250|true`}},
		"dots that end nothing": {talk: append(envelope, c("DATA\r\n"), s("354 go\r\n"), c(".\rx\r\n\n.\n.\r\r\n.\n\r\n.\r\n"), s("250 queued\r\n")),
			want: []string{`c.example|a@c.example|b@s.example 250|"\rx\r\n\n.\n.\r\r\n\n\r\n"|14|250|true`}},
		"a long body": {talk: append(envelope, c("DATA\r\n"), s("354 go\r\n"), c(strings.Repeat("0123456789", 200)+"\r\n.\r\n"), s("250 queued\r\n")),
			want: []string{fmt.Sprintf(`c.example|a@c.example|b@s.example 250|%q|2002|250|true`, strings.Repeat("0123456789", 100))}},
		"MAIL refused":    {talk: []said{c("MAIL FROM:<a@c.example>\r\n"), s("550 no\r\n")}, want: []string{`c.example|a@c.example||""|0|550|false`}},
		"STARTTLS":        {talk: []said{c("STARTTLS\r\n"), s("220 go\r\n"), c("\x16\x03\x01"), s("\x16\x03")}, blind: "encrypted"},
		"STARTTLS denied": {talk: append([]said{c("STARTTLS\r\n"), s("454 no\r\n")}, envelope...), open: true},
		"no SMTP":         {talk: []said{s("SSH-2.0-x\r\n")}, blind: "does not speak SMTP"},
		"AUTH":            {talk: append([]said{c("AUTH LOGIN\r\n"), s("334 x\r\n"), c("eA==\r\n"), s("235 ok\r\n")}, envelope...), open: true},
	} {
		for range 20 {
			got, tap := hear(7, append(begin[:len(begin):len(begin)], tc.talk...))
			if fmt.Sprint(got) != fmt.Sprint(tc.want) || tap.blind != tc.blind && !strings.Contains(tap.blind, tc.blind) || (tap.blind == "") != (tc.blind == "") || tap.open() != tc.open {
				t.Errorf("%s: %v, blind %q, open %v; want %v, blind %q", name, got, tap.blind, tap.open(), tc.want, tc.blind)
				break
			}
		}
	}
}

// FuzzTap holds that no bytes of either side harm the tap, and that its memory is bounded.
func FuzzTap(f *testing.F) {
	f.Add([]byte("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nx\r\n.\r\n"), []byte("220 x\r\n250 x\r\n250 x\r\n250 x\r\n354 x\r\n250 x\r\n"))
	f.Add([]byte("BDAT 99999999999999999999 LAST\r\n"), []byte("2"))
	f.Fuzz(func(t *testing.T, client, server []byte) {
		tap := &tap{most: 10, room: func(int) bool { return true }, done: func(o *overheard) {
			if len(o.Body) > 10 || int64(len(o.Body)) > o.Size {
				t.Errorf("%d bytes of %d kept", len(o.Body), o.Size)
			}
		}}
		for len(client)+len(server) > 0 {
			n, m := min(len(client), 16), min(len(server), 16)
			tap.fromClient(client[:n])
			tap.fromServer(server[:m])
			client, server = client[n:], server[m:]
		}
		if len(tap.held) > tapHeld || len(tap.line.b) > tapLine || len(tap.asked) > tapAsked {
			t.Error("more is kept than allowed")
		}
	})
}
