package smtp

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadCommand(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in        string
		verb      Verb
		name, arg string
		err       error
	}{
		{"EHLO host\r\n", EHLO, "EHLO", "host", nil},
		{"ehlo host\n", EHLO, "ehlo", "host", nil},
		{"helo\thost \t\r\n", HELO, "helo", "host", nil},
		{"MAIL FROM:<a@b>  SIZE=1\r\n", MAIL, "MAIL", "FROM:<a@b>  SIZE=1", nil},
		{"Rcpt To:<a@b>\r\n", RCPT, "Rcpt", "To:<a@b>", nil},
		{"DATA\r\n", DATA, "DATA", "", nil},
		{"BDAT 5 LAST\r\n", BDAT, "BDAT", "5 LAST", nil},
		{"RSET\r\n", RSET, "RSET", "", nil},
		{"NOOP \r\n", NOOP, "NOOP", "", nil},
		{"QUIT\r\n", QUIT, "QUIT", "", nil},
		{"VRFY x\r\n", VRFY, "VRFY", "x", nil},
		{"EXPN x\r\n", EXPN, "EXPN", "x", nil},
		{"HELP\r\n", HELP, "HELP", "", nil},
		{"starttls\r\n", STARTTLS, "starttls", "", nil},
		{"AUTH PLAIN =\r\n", AUTH, "AUTH", "PLAIN =", nil},
		{"ETRN x\r\n", ETRN, "ETRN", "x", nil},
		{"TURN\r\n", TURN, "TURN", "", nil},
		{"XCLIENT A=b\r\n", XCLIENT, "XCLIENT", "A=b", nil},
		{"XFORWARD A=b\r\n", XFORWARD, "XFORWARD", "A=b", nil},
		{"LHLO h\r\n", LHLO, "LHLO", "h", nil},
		{"MAILFROM:<a@b>\r\n", Unknown, "MAILFROM:<a@b>", "", nil},
		{"GET / HTTP/1.1\r\n", Unknown, "GET", "/ HTTP/1.1", nil},
		{" QUIT\r\n", Unknown, "", "QUIT", nil},
		{"\r\n", Unknown, "", "", nil},
		{"\n", Unknown, "", "", nil},
		{"MAIL FROM:<\xc3\xa9@b>\r\n", MAIL, "MAIL", "FROM:<\xc3\xa9@b>", nil},
		{"NO\x00OP\r\n", Unknown, "", "", ErrCommandBytes},
		{"NO\rOP\r\n", Unknown, "", "", ErrCommandBytes},
		{"NOOP\r\r\n", Unknown, "", "", ErrCommandBytes},
		{"NOOP " + strings.Repeat("x", 505) + "\r\n", NOOP, "NOOP", strings.Repeat("x", 505), nil},
		{"NOOP " + strings.Repeat("x", 506) + "\r\n", Unknown, "", "", ErrLineTooLong},
		{"MAIL " + strings.Repeat("x", 2041) + "\r\n", MAIL, "MAIL", strings.Repeat("x", 2041), nil},
		{"MAIL " + strings.Repeat("x", 2042) + "\r\n", Unknown, "", "", ErrLineTooLong},
		{"AUTH " + strings.Repeat("x", 12281) + "\r\n", AUTH, "AUTH", strings.Repeat("x", 12281), nil},
		{"AUTH " + strings.Repeat("x", 12282) + "\r\n", Unknown, "", "", ErrLineTooLong},
		{strings.Repeat("x", 100_000) + "\r\n", Unknown, "", "", ErrLineTooLong},
	} {
		for _, size := range []int{1, 2, 3, 7, 1000, 1 << 20} {
			c, _ := script(cut(tc.in+"QUIT\r\n", size)...)
			cmd, err := c.ReadCommand()
			if !errors.Is(err, tc.err) || cmd.Verb != tc.verb || string(cmd.Name) != tc.name || string(cmd.Arg) != tc.arg {
				t.Fatalf("%.40q in pieces of %d: %v %q %q, %v", tc.in, size, cmd.Verb, cmd.Name, cmd.Arg, err)
			}
			if err == nil && cmd.BareLF != !strings.HasSuffix(tc.in, "\r\n") {
				t.Errorf("%.40q: BareLF %v", tc.in, cmd.BareLF)
			}
			if cmd, err = c.ReadCommand(); err != nil || cmd.Verb != QUIT {
				t.Fatalf("%.40q in pieces of %d: then %q, %v", tc.in, size, cmd.Line, err)
			}
			if _, err = c.ReadCommand(); err != io.EOF || !gone(err) {
				t.Fatalf("at the end: %v", err)
			}
		}
	}
}

func TestEndlessLine(t *testing.T) {
	t.Parallel()
	c, _ := script(cut(strings.Repeat("x", 3<<20), 8000)...)
	if _, err := c.ReadCommand(); err != ErrFlood || Recoverable(err) {
		t.Errorf("endless line: %v", err)
	}
	if c.BytesIn() > 2<<20 {
		t.Errorf("read %d bytes before giving up", c.BytesIn())
	}
	if code, enh, text, ok := ReplyFor(ErrFlood); !ok || code != 421 || enh.String() != "4.7.0" || text == "" {
		t.Error(code, enh, text, ok)
	}
}

// TestPipelining: replies to what came in one packet leave in one write, and nothing is sent
// before all of it is answered.
func TestPipelining(t *testing.T) {
	t.Parallel()
	c, s := script("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "QUIT\r\n")
	for i, want := range []struct {
		verb     Verb
		writes   int
		buffered bool
	}{{MAIL, 0, true}, {RCPT, 0, true}, {DATA, 0, false}, {QUIT, 1, false}} {
		cmd, err := c.ReadCommand()
		if err != nil || cmd.Verb != want.verb || s.writes != want.writes || c.LineBuffered() != want.buffered {
			t.Fatalf("step %d: %v %v, %d writes, buffered %v", i, cmd.Verb, err, s.writes, c.LineBuffered())
		}
		c.WriteReply(250, Enhanced{2, 0, 0}, "OK")
	}
	if got := s.out.String(); got != strings.Repeat("250 2.0.0 OK\r\n", 3) || c.Pending() != 14 {
		t.Errorf("sent %q, pending %d", got, c.Pending())
	}
}

// TestBurst: many pipelined commands take few reads, and the buffer is small again afterwards.
func TestBurst(t *testing.T) {
	t.Parallel()
	in := strings.Repeat("RCPT TO:<someone@example.org>\r\n", 1000)
	c, s := script(in, "QUIT\r\n")
	for n := 0; ; n++ {
		cmd, err := c.ReadCommand()
		if err != nil {
			t.Fatal(err)
		}
		if cmd.Verb == QUIT {
			if n != 1000 {
				t.Errorf("%d commands", n)
			}
			break
		}
		c.WriteReply(250, Enhanced{2, 1, 5}, "OK")
	}
	if s.writes > 6 || len(c.buf) != size1K {
		t.Errorf("%d writes, buffer of %d", s.writes, len(c.buf))
	}
}

func TestReadLine(t *testing.T) {
	t.Parallel()
	c, _ := script("AGZvbwBiYXI=\r\n*\r\n12345\r\n123456\r\n")
	for _, want := range []string{"AGZvbwBiYXI=", "*"} {
		if line, err := c.ReadLine(MaxAuthLine); err != nil || string(line) != want {
			t.Errorf("%q, %v", line, err)
		}
	}
	if line, err := c.ReadLine(7); err != nil || string(line) != "12345" {
		t.Errorf("%q, %v", line, err)
	}
	if _, err := c.ReadLine(7); err != ErrLineTooLong {
		t.Error(err)
	}
}

func TestVerbString(t *testing.T) {
	t.Parallel()
	for v := HELO; v <= LHLO; v++ {
		if verbOf([]byte(strings.ToLower(v.String()))) != v {
			t.Errorf("%v is not read back", v)
		}
	}
	if Verb(200).String() != "unknown" {
		t.Error(Verb(200).String())
	}
}
