package smtp

import (
	"errors"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63)
	for _, tc := range []struct {
		in, addr string
		lax      bool
	}{
		{"<a@b.example>", "a@b.example", false},
		{"<a.b+c=d@b-c.example>", "a.b+c=d@b-c.example", false},
		{"<!#$%&'*+-/=?^_`{|}~@x>", "!#$%&'*+-/=?^_`{|}~@x", false},
		{`<"a b"@x>`, `"a b"@x`, false},
		{`<"a>b"@x>`, `"a>b"@x`, false},
		{`<"a\"b\\"@x>`, `"a\"b\\"@x`, false},
		{`<""@x>`, `""@x`, false},
		{"<a@[192.0.2.1]>", "a@[192.0.2.1]", false},
		{"<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", false},
		{"<a@[x400:foo]>", "a@[x400:foo]", false},
		{"<@r1.example,@r2.example:a@x>", "a@x", false},
		{"<@r1.example:a@x>", "a@x", false},
		{"<postmaster>", "postmaster", false},
		{"<PostMaster>", "PostMaster", false},
		{"<é@ü.example>", "é@ü.example", false},
		{"a@x", "a@x", true},
		{"<a..b@x>", "a..b@x", true},
		{"<.a@x>", ".a@x", true},
		{"<a.@x>", "a.@x", true},
		{"<a@under_score.example>", "a@under_score.example", true},
		{"<" + long + "ab@x>", long + "ab@x", true},
		{"<a@" + long + "." + long + "." + long + ".x>", "a@" + long + "." + long + "." + long + ".x", false},
		{"<a@123.example>", "a@123.example", false},
	} {
		p, rest, ok := parsePath(tc.in + " X=y")
		if !ok || p.Address != tc.addr || p.Lax != tc.lax || p.Raw != tc.in || rest != " X=y" {
			t.Errorf("%q: %+v, rest %q, %v", tc.in, p, rest, ok)
		}
		if ok && p.Domain != "" && p.Local+"@"+p.Domain != p.Address {
			t.Errorf("%q: local %q domain %q", tc.in, p.Local, p.Domain)
		}
	}
	for _, in := range []string{
		"", "<", ">", "a", "<a>", "<a@>", "<@x>", "<@>", "<a@x", "a@x>", "<a b@x>", "<a@x>y", "<a@x><b@x>", "<a@x y>",
		"<a@.x>", "<a@x.>", "<a@x..y>", "<a@-x>", "<a@x->", "<a@x-.y>", "<a@[]>", "<a@[192.0.2]>", "<a@[192.0.2.1>",
		"<a@[IPv6:192.0.2.1]>", "<a@[IPv6:fe80::1%eth0]>", "<a@[2001:db8::1]>", `<"a@x>`, `<"a"b@x>`, `<"a\"@x>`, "<a@x@y>",
		"<@r1.example a@x>", "<@r1.example,a@x>", "<@r1.example,:a@x>", "<\x80@x>", "<a@\xff>", "<a\x01@x>", "<a,b@x>", "<a@x,b@x>",
		"<a@" + long + "a>", "<a@" + strings.Repeat(long+".", 4) + "x>", "<" + strings.Repeat("a", 513) + "@x>",
		"<" + strings.Repeat("@r.example,", 200) + "@r:a@x>", `<"` + strings.Repeat("a", 600) + `"@x>`, "<a:b@x>", "<<a@x>>", "<a@x\x00>",
	} {
		if p, rest, ok := parsePath(in); ok {
			t.Errorf("%q is taken as %+v, rest %q", in, p, rest)
		}
	}
}

func TestLocalPart(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{`a`: "a", `"a b"`: "a b", `"a\"\\b"`: `a"\b`, `""`: ""} {
		if p := (Path{Local: in}); p.LocalPart() != want {
			t.Errorf("%s: %q", in, p.LocalPart())
		}
	}
}

func TestParseMail(t *testing.T) {
	t.Parallel()
	m, err := ParseMail("from: <a@x>  SIZE=123\tBODY=8bitmime SMTPUTF8 RET=hdrs ENVID=q+2B1 AUTH=<> REQUIRETLS MT-PRIORITY=3 ")
	if err != nil {
		t.Fatal(err)
	}
	if m.Address != "a@x" || m.Size != 123 || m.Body != Body8BitMIME || !m.UTF8 || m.Ret != "HDRS" || m.EnvID != "q+2B1" ||
		m.Auth != "<>" || !m.RequireTLS || m.Unknown != "MT-PRIORITY" || m.Null() {
		t.Errorf("%+v", m)
	}
	if want := " SIZE=123 BODY=8bitmime SMTPUTF8 RET=hdrs ENVID=q+2B1 AUTH=<> REQUIRETLS MT-PRIORITY=3"; m.Params.Wire() != want {
		t.Errorf("parameters %q", m.Params)
	}
	if got := m.Params.Without("size", "AUTH", "mt-priority").Wire(); got != " BODY=8bitmime SMTPUTF8 RET=hdrs ENVID=q+2B1 REQUIRETLS" {
		t.Errorf("without: %q", got)
	}
	if v, ok := m.Params.Get("mt-priority"); !ok || v != "3" {
		t.Errorf("get: %q %v", v, ok)
	}
	if _, ok := m.Params.Get("none"); ok {
		t.Error("got a parameter that is not there")
	}
	m, err = ParseMail("FROM:<>")
	if err != nil || !m.Null() || m.Size != -1 || m.Params.Wire() != "" || m.Params.Without("X") != "" {
		t.Errorf("null sender: %+v, %v", m, err)
	}
	m, err = ParseMail("FROM:<a@x> SIZE=99999999999999999999 BODY=BINARYMIME")
	if err != nil || m.Size != 1<<63-1 || m.Body != BodyBinaryMIME {
		t.Errorf("huge size: %+v, %v", m, err)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]error{
		"":                                   errMailSyntax,
		"TO:<a@x>":                           errMailSyntax,
		"FROM":                               errMailSyntax,
		"FROM:":                              ErrSender,
		"FROM:<a>":                           ErrSender,
		"FROM:<a@x>SIZE=1":                   ErrSender,
		"FROM:<a@x> SIZE":                    ErrParam,
		"FROM:<a@x> SIZE=":                   ErrParam,
		"FROM:<a@x> SIZE=1x":                 ErrParam,
		"FROM:<a@x> SIZE=-1":                 ErrParam,
		"FROM:<a@x> SIZE=1 SIZE=1":           ErrParam,
		"FROM:<a@x> SIZE=" + digits(21):      ErrParam,
		"FROM:<a@x> BODY=9BIT":               ErrParam,
		"FROM:<a@x> BODY=7BIT body=8BITMIME": ErrParam,
		"FROM:<a@x> SMTPUTF8=1":              ErrParam,
		"FROM:<a@x> SMTPUTF8 SMTPUTF8":       ErrParam,
		"FROM:<a@x> RET=NONE":                ErrParam,
		"FROM:<a@x> RET=FULL RET=FULL":       ErrParam,
		"FROM:<a@x> ENVID=":                  ErrParam,
		"FROM:<a@x> ENVID=" + digits(101):    ErrParam,
		"FROM:<a@x> =1":                      ErrParam,
		"FROM:<a@x> -A=1":                    ErrParam,
		"FROM:<a@x> A_B=1":                   ErrParam,
		"FROM:<a@x> A=\x01":                  ErrParam,
		"FROM:<é@x>":                         ErrNeedsUTF8,
		"FROM:<a@x> REQUIRETLS=1":            ErrParam,
	} {
		if _, err := ParseMail(in); !errors.Is(err, want) {
			t.Errorf("MAIL %s: %v, want %v", in, err, want)
		}
	}
	for in, want := range map[string]error{
		"FROM:<a@x>":                            errRcptSyntax,
		"TO:<>":                                 ErrRecipient,
		"TO:<a>":                                ErrRecipient,
		"TO:<a@x> NOTIFY=":                      ErrParam,
		"TO:<a@x> NOTIFY=NEVER,DELAY":           ErrParam,
		"TO:<a@x> NOTIFY=DELAY,":                ErrParam,
		"TO:<a@x> NOTIFY=SOON":                  ErrParam,
		"TO:<a@x> NOTIFY=DELAY NOTIFY=DELAY":    ErrParam,
		"TO:<a@x> ORCPT=a@x":                    ErrParam,
		"TO:<a@x> ORCPT=rfc822;":                ErrParam,
		"TO:<a@x> ORCPT=rfc822;a ORCPT=rfc82;a": ErrParam,
	} {
		if _, err := ParseRcpt(in); !errors.Is(err, want) {
			t.Errorf("RCPT %s: %v, want %v", in, err, want)
		}
	}
}

func digits(n int) string { return strings.Repeat("1", n) }

func TestParseRcpt(t *testing.T) {
	t.Parallel()
	r, err := ParseRcpt("to:<@relay:A@x> notify=success,Delay ORCPT=rfc822;a+2Bb@x FOO")
	if err != nil || r.Address != "A@x" || r.Raw != "<@relay:A@x>" || r.Notify != NotifySuccess|NotifyDelay || r.ORcpt != "rfc822;a+2Bb@x" || r.Unknown != "FOO" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = ParseRcpt("TO:<Postmaster>"); err != nil || !r.Postmaster() {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = ParseRcpt("TO:<é@x>"); err != nil || !r.NonASCII {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestParseBDAT(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct {
		n    int64
		last bool
	}{"0": {0, false}, "12": {12, false}, "5 LAST": {5, true}, "5  last ": {5, true}} {
		if n, last, err := ParseBDAT(in); err != nil || n != want.n || last != want.last {
			t.Errorf("%q: %d %v %v", in, n, last, err)
		}
	}
	for _, in := range []string{"", "x", "-1", "5 LAST x", "5 FIRST", "LAST"} {
		if _, _, err := ParseBDAT(in); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}

func TestParseHello(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"host", " host.example ", "[192.0.2.1]", "[IPv6:2001:db8::1]", "localhost", "WIN_PC", "ü.example"} {
		if name, err := ParseHello(in); err != nil || name != strings.TrimSpace(in) {
			t.Errorf("%q: %q, %v", in, name, err)
		}
	}
	for _, in := range []string{"", " ", "a b", "a\x01", "\xff", strings.Repeat("a", 256)} {
		if _, err := ParseHello(in); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}
