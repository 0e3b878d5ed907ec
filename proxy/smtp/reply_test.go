package smtp

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestReadReply(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in   string
		code int
		enh  string
		raw  string // "": as in
	}{
		{"220 mx.example ESMTP\r\n", 220, "", ""},
		{"250\r\n", 250, "", ""},
		{"250 \r\n", 250, "", ""},
		{"250 OK\n", 250, "", "250 OK\r\n"},
		{"250-a\r\n250-b\r\n250 c\r\n", 250, "", ""},
		{"250-a\n250\n", 250, "", "250-a\r\n250\r\n"},
		{"550 5.1.1 no such user\r\n", 550, "5.1.1", ""},
		{"550-5.7.1 first\r\n550 5.7.1 second\r\n", 550, "5.7.1", ""},
		{"450 5.1.1 class differs\r\n", 450, "", ""},
		{"250 2.1.5\r\n", 250, "2.1.5", ""},
		{"250 2.1.5x\r\n", 250, "", ""},
		{"250 2.1\r\n", 250, "", ""},
		{"571 \xc3\xa9 and \t tab\r\n", 571, "", ""},
		{"354 go\r\n", 354, "", ""},
		{"250 " + strings.Repeat("x", 4000) + "\r\n", 250, "", ""},
	} {
		for _, size := range []int{1, 3, 1 << 20} {
			c, _ := script(cut(tc.in+"221 next\r\n", size)...)
			var r Reply
			if tc.raw == "" {
				tc.raw = tc.in
			}
			if err := c.ReadReply(&r); err != nil || r.Code != tc.code || r.Enh.String() != tc.enh || string(r.Raw) != tc.raw {
				t.Fatalf("%.40q: %d %v %.40q, %v", tc.in, r.Code, r.Enh, r.Raw, err)
			}
			keep := r.Clone()
			if err := c.ReadReply(&r); err != nil || r.Code != 221 || r.Text() != "next" || r.Class() != 2 {
				t.Fatalf("%.40q: then %q, %v", tc.in, r.Raw, err)
			}
			if string(keep.Raw) != tc.raw {
				t.Fatalf("clone changed to %q", keep.Raw)
			}
		}
	}
}

func TestReadReplyRefuses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]error{
		"\r\n":               ErrBadReply,
		"25\r\n":             ErrBadReply,
		"2x0 a\r\n":          ErrBadReply,
		"hello\r\n":          ErrBadReply,
		"150 a\r\n":          ErrBadReply,
		"600 a\r\n":          ErrBadReply,
		"000 a\r\n":          ErrBadReply,
		"250a\r\n":           ErrBadReply,
		"2500 a\r\n":         ErrBadReply,
		"250\tOK\r\n":        ErrBadReply,
		"250-a\r\n251 b\r\n": ErrBadReply,
		"250-a\r\nb\r\n":     ErrBadReply,
		"250 a\rb\r\n":       ErrBadReply,
		"250 a\x00b\r\n":     ErrBadReply,
		"250 a\r\r\n":        ErrBadReply,
		"250-a\r\n":          io.EOF,
		"250 " + strings.Repeat("x", 4096) + "\r\n":        ErrReplyTooLong,
		"250-" + strings.Repeat("x", 2<<20):                ErrReplyTooLong,
		strings.Repeat("250-"+xs(1000)+"\r\n", 70):         ErrReplyTooLong,
		strings.Repeat("250-\r\n", 11_000) + "250 end\r\n": ErrReplyTooLong,
	} {
		c, _ := script(cut(in, 3000)...)
		var r Reply
		if err := c.ReadReply(&r); !errors.Is(err, want) {
			t.Errorf("%.40q: %v, want %v", in, err, want)
		}
		if len(r.Raw) > MaxReply {
			t.Errorf("%.40q: %d bytes kept", in, len(r.Raw))
		}
	}
}

func xs(n int) string { return strings.Repeat("x", n) }

func TestAppendReply(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		code  int
		enh   Enhanced
		lines []string
		want  string
	}{
		{250, Enhanced{2, 0, 0}, []string{"OK"}, "250 2.0.0 OK\r\n"},
		{220, Enhanced{}, []string{"gw ESMTP"}, "220 gw ESMTP\r\n"},
		{250, Enhanced{}, nil, "250 \r\n"},
		{550, Enhanced{5, 7, 1}, []string{"a", "b"}, "550-5.7.1 a\r\n550 5.7.1 b\r\n"},
		{550, Enhanced{}, []string{"a\r\n250 injected\x00\x7f"}, "550 a  250 injected  \r\n"},
		{250, Enhanced{}, []string{"a", ""}, "250-a\r\n250 \r\n"},
	} {
		if got := string(AppendReply(nil, tc.code, tc.enh, tc.lines...)); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}

// TestLongReply: texts of any length are split into lines of at most 512 bytes that are one reply again.
func TestLongReply(t *testing.T) {
	t.Parallel()
	for _, text := range []string{xs(480), xs(481), xs(5000), strings.Repeat("word ", 500), strings.Repeat("é", 700), xs(400) + " " + xs(400)} {
		c, s := script()
		c.WriteReply(554, Enhanced{5, 7, 1}, text, "end")
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		joined := ""
		for line := range strings.Lines(s.out.String()) {
			if len(line) > 512 || !strings.HasSuffix(line, "\r\n") {
				t.Errorf("line of %d bytes", len(line))
			}
			joined += strings.TrimSuffix(line[len("554-5.7.1 "):], "\r\n")
		}
		if joined != text+"end" {
			t.Errorf("%.20q: joined to %.60q…", text, joined)
		}
		if bound := replyBound([]string{text, "end"}); s.out.Len() > bound {
			t.Errorf("%d bytes, bound %d", s.out.Len(), bound)
		}
		back, _ := script(s.out.String())
		var r Reply
		if err := back.ReadReply(&r); err != nil || r.Code != 554 {
			t.Errorf("read back: %v", err)
		}
	}
}

func TestWriteCommand(t *testing.T) {
	t.Parallel()
	c, s := script("250 a\r\n250 b\r\n")
	for _, bad := range []string{"a\r\nb", "a\n", "a\r", "a\x00"} {
		if err := c.WriteCommand("RCPT TO:<", bad, ">"); err != ErrUnsafeCommand || c.Pending() != 0 {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := errors.Join(c.WriteCommand("MAIL FROM:<", "a@b", ">"), c.WriteCommand("RCPT TO:<c@d>")); err != nil {
		t.Fatal(err)
	}
	var r Reply
	for _, want := range []string{"250 a\r\n", "250 b\r\n"} {
		if err := c.ReadReply(&r); err != nil || string(r.Raw) != want {
			t.Errorf("%q, %v", r.Raw, err)
		}
	}
	if s.writes != 1 || s.out.String() != "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" {
		t.Errorf("%d writes: %q", s.writes, s.out.String())
	}
}

func TestEnhanced(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"5.1.1": "5.1.1", "4.7.650 text": "4.7.650", "2.0.0\tx": "2.0.0", "1.1.1": "", "5.1": "", "5..1": "",
		"5.1.1.1": "", "5.1234.1": "", "": "", "x": "", "5.1.": "", "3.1.1": ""} {
		if got := ParseEnhanced([]byte(in)).String(); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestExtensions(t *testing.T) {
	t.Parallel()
	c, _ := script("250-mx.example greets PIPELINING\r\n250-size 1000\r\n250-8BITMIME\r\n250-AUTH plain LOGIN\r\n250-CHUNKING\r\n250-BINARYMIME\r\n" +
		"250-LIMITS MAILMAX=5 RCPTMAX=x RCPTDOMAINMAX=1\r\n250-XFOO bar\r\n250-DSN \r\n250 STARTTLS\r\n")
	var r Reply
	if err := c.ReadReply(&r); err != nil {
		t.Fatal(err)
	}
	e := ParseExtensions(&r)
	want := Extensions{Set: ExtSize | Ext8BitMIME | ExtAuth | ExtChunking | ExtBinaryMIME | ExtLimits | ExtDSN | ExtStartTLS, Size: 1000,
		Auth: []string{"PLAIN", "LOGIN"}, Limits: Limits{MailMax: 5, RcptDomainMax: 1}, Other: []string{"XFOO"}}
	if !reflect.DeepEqual(e, want) {
		t.Errorf("%+v", e)
	}
	ours := Extensions{Set: ExtPipelining | ExtSize | Ext8BitMIME | ExtAuth | ExtBinaryMIME | ExtLimits, Size: 5000, Limits: Limits{MailMax: 9, RcptMax: 3}}
	both := e.Intersect(&ours)
	if got := string(both.AppendReply(nil, "gw greets you")); got != "250-gw greets you\r\n250-SIZE 1000\r\n250-AUTH PLAIN LOGIN\r\n"+
		"250-8BITMIME\r\n250 LIMITS MAILMAX=5 RCPTMAX=3 RCPTDOMAINMAX=1\r\n" {
		t.Errorf("rendered %q", got)
	}
	ours.Auth = []string{"XOAUTH2"}
	if both = e.Intersect(&ours); both.Has(ExtAuth) || both.Auth != nil {
		t.Error("AUTH without a common mechanism")
	}
	if e := ParseExtensions(&Reply{Code: 500, Raw: []byte("500-a\r\n500 SIZE\r\n")}); e.Set != 0 {
		t.Error("extensions of a refusal")
	}
}

func TestCheckParams(t *testing.T) {
	t.Parallel()
	all := Extensions{Set: ExtSize | Ext8BitMIME | ExtBinaryMIME | ExtSMTPUTF8 | ExtRequireTLS | ExtDSN | ExtAuth, Size: 100}
	none := Extensions{}
	for _, p := range []string{"SIZE=1", "BODY=BINARYMIME", "SMTPUTF8", "REQUIRETLS", "RET=FULL", "ENVID=x", "AUTH=<>"} {
		m, err := ParseMail("FROM:<a@x> " + p)
		if err != nil || all.CheckMail(&m) != nil || none.CheckMail(&m) != ErrUnknownParam {
			t.Errorf("%s: %v %v %v", p, err, all.CheckMail(&m), none.CheckMail(&m))
		}
	}
	for p, want := range map[string]error{"SIZE=101": ErrTooLarge, "FOO=1": ErrUnknownParam} {
		if m, err := ParseMail("FROM:<a@x> " + p); err != nil || all.CheckMail(&m) != want {
			t.Errorf("%s: %v", p, all.CheckMail(&m))
		}
	}
	for _, p := range []string{"NOTIFY=NEVER", "ORCPT=rfc822;a@x"} {
		r, err := ParseRcpt("TO:<a@x> " + p)
		if err != nil || all.CheckRcpt(&r) != nil || none.CheckRcpt(&r) != ErrUnknownParam {
			t.Errorf("%s: %v", p, err)
		}
	}
	for _, p := range []string{"BODY=7BIT", "BODY=8BITMIME"} {
		if m, err := ParseMail("FROM:<a@x> " + p); err != nil || none.CheckMail(&m) != nil {
			t.Errorf("%s: %v, though the message decides", p, none.CheckMail(&m))
		}
	}
	if m, err := ParseMail("FROM:<\u00e9@x> SMTPUTF8"); err != nil || all.CheckMail(&m) != nil || none.CheckMail(&m) != ErrNoUTF8 {
		t.Errorf("an address that is not ASCII: %v %v", err, none.CheckMail(&m))
	}
	if m, err := ParseMail("FROM:<a@x>"); err != nil || none.CheckMail(&m) != nil {
		t.Error("plain MAIL is refused")
	}
}

func ExampleConn_server() {
	c, s := script("EHLO client\r\nMAIL FROM:<a@example.org>\r\n")
	c.WriteReply(220, Enhanced{}, "gw.example ESMTP")
	for {
		cmd, err := c.ReadCommand()
		if err != nil {
			break
		}
		switch cmd.Verb {
		case EHLO:
			offer := Extensions{Set: ExtPipelining | ExtSize, Size: 1 << 20}
			c.WriteRaw(offer.AppendReply(nil, "gw.example greets "+string(cmd.Arg)))
		case MAIL:
			m, err := ParseMail(string(cmd.Arg))
			if code, enh, text, bad := ReplyFor(err); bad {
				c.WriteReply(code, enh, text)
				continue
			}
			c.WriteReply(250, Enhanced{2, 1, 0}, "Sender "+m.Address+" OK")
		}
	}
	fmt.Print(strings.ReplaceAll(s.out.String(), "\r\n", "\n"))
	// Output:
	// 220 gw.example ESMTP
	// 250-gw.example greets client
	// 250-PIPELINING
	// 250 SIZE 1048576
	// 250 2.1.0 Sender a@example.org OK
}

func TestWhatIsKeptOfAnExtensionListIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("X", 4000)
	raw := "250-mx\r\n"
	for range 10 {
		raw += "250-" + long + "\r\n250-AUTH PLAIN " + long + "\r\n"
	}
	e := ParseExtensions(&Reply{Code: 250, Raw: []byte(raw + "250 SIZE 7\r\n")})
	if e.Size != 7 || len(e.Auth) == 0 || e.Auth[0] != "PLAIN" {
		t.Errorf("%+v", e)
	}
	for _, o := range e.Other {
		if len(o) > 64 {
			t.Errorf("%d bytes of an unknown keyword are kept", len(o))
		}
	}
}

func TestRoomOfALongReplyIsGivenBack(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("250-"+strings.Repeat("x", 900)+"\r\n", 60) + "250 end\r\n"
	c := NewConn(&scriptConn{chunks: [][]byte{[]byte(long), []byte("250 ok\r\n")}}, Options{})
	var r Reply
	for _, most := range []int{MaxReply, MaxReplyLine} {
		if err := c.ReadReply(&r); err != nil || cap(r.Raw) > 2*most {
			t.Fatalf("%v, room for %d bytes", err, cap(r.Raw))
		}
	}
}
