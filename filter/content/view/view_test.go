package view

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func read(s string) *View { return new(Reader).Read([]byte(s)) }

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

const multi = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b 1\"\n\npreamble\n--b 1\n"

func TestText(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ data, text string }{
		"plain":              {"Subject: x\n\nhello  there\n\n\nyou\n", "hello there\nyou\n"},
		"no header":          {"\nhello\n", "hello\n"},
		"header that breaks": {"Subject: x\nthis is no field\n", "this is no field\n"},
		"empty":              {"", ""},
		"base64":             {"Content-Transfer-Encoding: base64\n\n" + b64("hello\n"), "hello\n"},
		"quoted":             {"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\ncaf=E9 =\nnoir\n", "café noir\n"},
		"utf-16":             {"Content-Type: text/plain; charset=utf-16le\nContent-Transfer-Encoding: base64\n\n" + b64("h\x00e\x00y\x00"), "hey"},
		"utf-7":              {"Content-Type: text/plain; charset=utf-7\n\nHi Mom +Jjo-! +-\n", "Hi Mom ☺! +\n"},
		"iso-2022-jp":        {"Content-Type: text/plain; charset=iso-2022-jp\n\n\x1b$B$\"\x1b(B\n", "あ\n"},
		"koi8-r":             {"Content-Type: text/plain; charset=koi8-r\n\n\xd0\xd2\xc9\n", "при\n"},
		"gb2312":             {"Content-Type: text/plain; charset=gb2312\n\n\xc4\xe3\n", "你\n"},
		"unknown charset":    {"Content-Type: text/plain; charset=x-nobody\n\ncaf\xe9\n", "café\n"},
		"no charset, 8 bit":  {"Subject: x\n\ncaf\xe9\n", "café\n"},
		"multipart":          {multi + "\none\n--b 1\nContent-Type: text/html\n\n<p>two</p>\n--b 1--\nepilogue\n", "one\ntwo\n"},
		"unclosed":           {multi + "\none\n", "one\n"},
		"no boundary in it":  {"Content-Type: multipart/mixed; boundary=x\n\nas it is\n", "as it is\n"},
		"no boundary at all": {"Content-Type: multipart/mixed\n\nas it is\n", "as it is\n"},
		"nested":             {multi + "Content-Type: multipart/alternative; boundary=c\n\n--c\n\none\n--c--\n--b 1\nContent-Type: message/rfc822\n\nSubject: inner\n\ntwo\n--b 1--\n", "one\ntwo\n"},
		"entities":           {"Content-Type: text/html\n\nTom &amp; Jerry&nbsp;&nbsp;say &#104;i &#x263a; &bogus; A&B", "Tom & Jerry say hi ☺ &bogus; A&B"},
		"invisible letters":  {"Content-Type: text/html\n\nv&#8203;i&shy;a&zwnj;g&#xfeff;ra", "viagra"},
		"tags inside words":  {"Content-Type: text/html\n\nvi<b></b>ag<!-- x -->ra", "viagra"},
		"blocks":             {"Content-Type: text/html\n\n<p>one<p>two<br>three<table><tr><td>a<td>b</table>", "one\ntwo\nthree\na b\n"},
		"scripts and styles": {"Content-Type: text/html\n\n<style>p{}</style>a<script>if (1<2) x</script>b<title>t</title>", "ab"},
		"unclosed comment":   {"Content-Type: text/html\n\na<!-- b", "a"},
		"lone brackets":      {"Content-Type: text/html\n\n1 < 2 > 1 <", "1 < 2 > 1 <"},
		"declarations":       {"Content-Type: text/html\n\n<!DOCTYPE html><?xml x?>a", "a"},
	} {
		for _, data := range []string{c.data, crlf(c.data)} {
			v := read(data)
			if got := strings.TrimSuffix(string(v.Text), "\n"); got != strings.TrimSuffix(c.text, "\n") {
				t.Errorf("%s: text is %q, want %q", name, got, c.text)
			}
		}
	}
}

func TestHiddenText(t *testing.T) {
	t.Parallel()
	for name, html := range map[string]string{
		"display":         `a<div style="color: red; DISPLAY : none">x<div>x</div>x</div>b`,
		"visibility":      `a<span style="visibility:hidden">xxx</span>b`,
		"font":            `a<font style="font-size:0px">xxx</font>b`,
		"font of nought":  `a<p style='font-size: 0.0em;x:y'>xxx</p>b`,
		"height":          `a<div style="max-height:0;overflow:hidden">xxx</div>b`,
		"transparent":     `a<span style="opacity:0">xxx</span>b`,
		"attribute":       `a<p hidden>xxx</p>b`,
		"the last counts": `a<p style="font-size:12px; font-size:0">xxx</p>b`,
		"one pixel":       `a<p style=";color:red;font-size:1px">xxx</p>b`,
	} {
		v := read("Content-Type: text/html\n\n" + html)
		got := strings.Map(func(c rune) rune {
			if c <= ' ' {
				return -1
			}
			return c
		}, string(v.Text))
		if got != "ab" || strings.Join(strings.Fields(string(v.Hidden)), "") != "xxx" || v.Shape.Hidden != 1 {
			t.Errorf("%s: text %q, hidden %q, %d elements", name, v.Text, v.Hidden, v.Shape.Hidden)
		}
	}
	if v := read("Content-Type: text/html\n\n<p style=\"font-size:10px;opacity:1;line-height:0;max-height:1px;opacity:0.5;x-display:none;font\">seen"); !strings.Contains(string(v.Text), "seen") {
		t.Errorf("what is shown was taken for hidden: %q", v.Text)
	}
}

func TestHeader(t *testing.T) {
	t.Parallel()
	v := read(crlf("From: =?utf-8?q?J=C3=B6rg?= <Joerg@Example.ORG>\nReply-To: x@example.net (The X)\nTo: a@example.org,\n b@example.org\nCc: c@example.org\n" +
		"Subject: =?iso-8859-1?B?" + b64("caf\xe9") + "?=\n =?utf-8?q?_noir?=\nX-Odd : 1\n\nhi"))
	if v.From != (Mailbox{"Jörg", "joerg@example.org"}) || v.ReplyTo != (Mailbox{"The X", "x@example.net"}) {
		t.Errorf("from %+v, reply to %+v", v.From, v.ReplyTo)
	}
	if string(v.Subject) != "café noir" || string(v.Field("x-odd")) != "1" || v.Field("absent") != nil {
		t.Errorf("subject %q, fields %v", v.Subject, v.Fields)
	}
	for in, want := range map[string]Mailbox{
		`"Bank, Inc." <a@b>`:          {"Bank, Inc.", "a@b"},
		`"a\"<x@y>" <a@b>`:            {`a\"<x@y>`, "a@b"},
		`a@b, c@d`:                    {"", "a@b"},
		`<a@b>`:                       {"", "a@b"},
		`nobody`:                      {"", "nobody"},
		`=?utf-8?q?=3Cx@y=3E?= <a@b>`: {"<x@y>", "a@b"},
	} {
		if got := read("From: " + in + "\n\n").From; got != want {
			t.Errorf("%s is %+v, want %+v", in, got, want)
		}
	}
}

func TestLinks(t *testing.T) {
	t.Parallel()
	v := read(multi + "\nSee https://a.example/x?y=1. Or (http://b.example), or www.c.example/.\n--b 1\nContent-Type: text/html\n\n" +
		`<a href="https://d.example/&amp;x">http://bank.example/</a><img src=http://e.example/p.gif><form action='http://f.example/login'>` +
		"<input TYPE=password><a href='http://u@g.\nexample'>click</a><meta http-equiv=refresh content='0; url=http://h.example/'><a href=#top>up</a>")
	var got []string
	for i := range v.Links {
		l := &v.Links[i]
		got = append(got, fmt.Sprintf("%d %s %s", l.Kind, l.Host(), l.Text))
	}
	want := "0 a.example |0 b.example |0 www.c.example |1 d.example http://bank.example/|2 e.example |3 f.example |1 g.example click|4 h.example "
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("links are\n%s\nwant\n%s", s, want)
	}
	if v.Shape.Forms != 1 || v.Shape.Passwords != 1 || v.Shape.Images != 1 {
		t.Errorf("shape is %+v", v.Shape)
	}
	if !(&Link{URL: "http://bank.example@evil.example/"}).User() || (&Link{URL: "http://x.example/a@b"}).User() {
		t.Error("the part before the @ was misread")
	}
	for url, want := range map[string]string{"http://[2001:db8::1]:80/": "2001:db8::1", "HTTP://A.Example.:8080\\x": "a.example", "mailto:a@b": "", "http://[": ""} {
		if got := (&Link{URL: url}).Host(); got != want {
			t.Errorf("host of %s is %q, want %q", url, got, want)
		}
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	v := read(multi + "\ntext\n--b 1\nContent-Type: application/zip; name=\"a.zip\"\nContent-Transfer-Encoding: base64\n\n" + b64("PK\x03\x04rest") +
		"\n--b 1\nContent-Type: application/octet-stream\nContent-Disposition: attachment; filename*0*=utf-8''r%C3%A9; filename*1*=sum%C3%A9.; filename*2=pdf\n\n%PDF" +
		"\n--b 1\nContent-Type: text/html; name=\"..\\\\x\\\\Invoice.HTML\"\nContent-Disposition: attachment\n\n<form>" +
		"\n--b 1\nContent-Type: image/png; name=\"=?utf-8?q?=C3=A9?=.png\"\nContent-Transfer-Encoding: base64\n\n" + b64(strings.Repeat("p", 1000)) + "\n--b 1--\n")
	want := []struct{ name, typ, head string }{
		{"a.zip", "application/zip", "PK\x03\x04rest"}, {"résumé.pdf", "application/octet-stream", "%PDF"},
		{"Invoice.HTML", "text/html", "<form>"}, {"é.png", "image/png", strings.Repeat("p", 48)},
	}
	if len(v.Files) != len(want) {
		t.Fatalf("%d files: %+v", len(v.Files), v.Files)
	}
	for i, w := range want {
		if f := v.Files[i]; f.Name != w.name || f.Type != w.typ || string(f.Head) != w.head {
			t.Errorf("file %d is %q %q %q, want %+v", i, f.Name, f.Type, f.Head, w)
		}
	}
	if string(v.Text) != "text\n" {
		t.Errorf("text is %q", v.Text)
	}
}

// TestBombs reads what is made to cost time or memory. The times are generous: what is not bounded takes minutes.
func TestBombs(t *testing.T) {
	t.Parallel()
	deep := "Content-Type: multipart/mixed; boundary=b0\n\n"
	for i := range 5000 {
		deep += fmt.Sprintf("--b%d\nContent-Type: multipart/mixed; boundary=b%d\n\n", i, i+1)
	}
	same := "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\nContent-Type: multipart/mixed; boundary=b\n\n", 100000)
	html := "Content-Type: text/html\n\n"
	for name, c := range map[string]struct {
		data string
		cut  Limits
	}{
		"deep parts":        {deep, CutDepth},
		"many parts":        {multi + strings.Repeat("\nx\n--b 1\n", 200000), CutParts},
		"parts like parts":  {same, CutParts},
		"many files":        {multi + strings.Repeat("Content-Type: image/gif\n\nx\n--b 1\n", 100), CutFiles},
		"long body":         {"Subject: x\n\n" + strings.Repeat("word ", 10<<20), CutBytes},
		"long lines of sep": {multi + strings.Repeat("--b\n", 12<<20), CutBytes},
		"deep HTML":         {html + strings.Repeat("<div style='display:none'>", 1<<20) + "x", CutBytes},
		"open tags":         {html + strings.Repeat("<a href=\"x", 1<<20), CutBytes},
		"open comments":     {html + strings.Repeat("<!--", 1<<20), CutBytes},
		"open styles":       {html + strings.Repeat("<style><", 1<<20), CutBytes},
		"entities":          {html + strings.Repeat("&#x263a;", 1<<20), CutBytes},
		"many links":        {html + strings.Repeat("<a href=http://x.example/>x</a>", 5000), CutLinks},
		"long field":        {"Subject: " + strings.Repeat("=?utf-8?q?x?= ", 1<<20) + "\n\nx", 0},
		"many fields":       {strings.Repeat("X: y\n", 1<<20) + "\nx", 0},
		"only a field":      {strings.Repeat("X", 8<<20), CutBytes},
		"a long name":       {multi + "Content" + strings.Repeat("-", 8<<20) + ": x\n\nx", 0},
	} {
		began := time.Now()
		v := read(c.data)
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("%s took %v", name, d)
		}
		if v.Cut&c.cut != c.cut {
			t.Errorf("%s: cut %q, want %q", name, v.Cut, c.cut)
		}
		within(t, v)
	}
}

func within(t *testing.T, v *View) {
	t.Helper()
	if len(v.Text) > MaxText+MaxParts+16 || len(v.Hidden) > MaxHidden+16 || len(v.Links) > MaxLinks || len(v.Files) > MaxFiles || len(v.Fields) > maxFields {
		t.Errorf("text %d, hidden %d, links %d, files %d, fields %d: beyond the bounds", len(v.Text), len(v.Hidden), len(v.Links), len(v.Files), len(v.Fields))
	}
	last := 0
	for _, r := range v.Runs {
		if r.Start < last || r.End < r.Start || r.End > len(v.Text) {
			t.Errorf("runs %v of %d bytes", v.Runs, len(v.Text))
		}
		last = r.End
	}
	if !utf8.Valid(v.Subject) {
		t.Errorf("subject %q", v.Subject)
	}
}

func TestLimitsHaveNames(t *testing.T) {
	t.Parallel()
	if s := (CutDepth | CutFiles).String(); s != "depth files" {
		t.Errorf("limits are called %q", s)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(crlf(multi + "Content-Type: text/html; charset=utf-7\nContent-Transfer-Encoding: base64\n\n" + b64("<a href='x'>y</a>&amp;") + "\n--b 1--")))
	f.Add([]byte("Content-Type: text/html\n\n<p style=\"font-size:0\"hidden><a\n=&#x;&;<!--<!"))
	f.Add([]byte("Content-Disposition: attachment; filename*0*=x'y'%zz; filename*1=\"\\"))
	f.Add([]byte("Content-Type: text/plain; charset=iso-2022-jp\n\n\x1b$B\x1b(B\x1b"))
	f.Add([]byte("From: \"=?gb18030?q?=ff?=\\\" <,>;(\n\n+AGE\n ://www.://"))
	var r Reader
	f.Fuzz(func(t *testing.T, data []byte) {
		v := r.Read(data)
		within(t, v)
		for i := range v.Links {
			v.Links[i].Host()
			v.Links[i].User()
		}
	})
}

func BenchmarkPlain10K(b *testing.B) {
	bench(b, "Subject: minutes\n\n"+strings.Repeat("The committee met on Tuesday; costs were as said before, see https://example.com/\n", 120))
}

func BenchmarkHTML10K(b *testing.B) {
	bench(b, "Content-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n"+
		strings.Repeat("<tr><td style=3D\"color:#333;padding:4px\"><a href=3D\"https://example.com/x\">The committee</a> met on Tuesday.</td></tr>\n", 88))
}

func bench(b *testing.B, s string) {
	data := []byte(crlf(s))
	var r Reader
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for range b.N {
		r.Read(data)
	}
}

// foldedPlainly is the rule of appendFolded, byte by byte.
func foldedPlainly(dst, text []byte) ([]byte, bool) {
	for i, c := range text {
		if len(dst) >= MaxText {
			return dst, i < len(text)
		}
		last := byte('\n')
		if n := len(dst); n > 0 {
			last = dst[n-1]
		}
		switch end := c == '\n' || c == '\r'; {
		case c > ' ':
			dst = append(dst, c)
		case end && last == ' ':
			dst[len(dst)-1] = '\n'
		case end && last != '\n':
			dst = append(dst, '\n')
		case !end && last != ' ' && last != '\n':
			dst = append(dst, ' ')
		}
	}
	return dst, false
}

func TestFoldedBlanks(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	const letters = "abcdefgh!!!   \t\r\n\x00\x1f\x80\xa0\xff"
	for range 20_000 {
		text := make([]byte, r.IntN(60))
		for i := range text {
			text[i] = letters[r.IntN(len(letters))]
		}
		before := []byte("x ab \n"[:r.IntN(7)])
		got, cut := appendFolded(bytes.Clone(before), text)
		want, wantCut := foldedPlainly(bytes.Clone(before), text)
		if !bytes.Equal(got, want) || cut != wantCut {
			t.Fatalf("%q behind %q is folded to %q, %v; want %q, %v", text, before, got, cut, want, wantCut)
		}
	}
	for _, text := range []string{strings.Repeat("word ", MaxText/4), strings.Repeat("a", MaxText), strings.Repeat("a", MaxText+1), strings.Repeat("a", MaxText) + "  ", strings.Repeat("  a", MaxText/2)} {
		got, cut := appendFolded([]byte("ab"), []byte(text))
		if want, wantCut := foldedPlainly([]byte("ab"), []byte(text)); !bytes.Equal(got, want) || cut != wantCut {
			t.Errorf("%q… of %d bytes is cut %v at %d, want %v at %d", text[:5], len(text), cut, len(got), wantCut, len(want))
		}
	}
}

// unreferencedPlainly is the rule of appendEntities, byte by byte.
func unreferencedPlainly(dst, src []byte, most int) []byte {
	for i := 0; i < len(src) && len(dst) < most; i++ {
		c, last := src[i], byte('\n')
		if len(dst) > 0 {
			last = dst[len(dst)-1]
		}
		if c == '&' {
			if to, n := appendEntity(dst, src[i:]); n > 0 {
				dst, i = to, i+n-1
				continue
			}
		}
		if c <= ' ' {
			if last == ' ' || last == '\n' {
				continue
			}
			c = ' '
		}
		dst = append(dst, c)
	}
	return dst
}

func TestEntitiesAmongBlanks(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	pieces := []string{"a", "bcdefghi", "!", "&", "&amp;", "&#x263a;", "&nbsp;", "&zwnj;", "&x;", "  ", "\r\n", "\t", "\x00", "\x80\xa0", "%", "'"}
	for range 20_000 {
		var src []byte
		for range r.IntN(12) {
			src = append(src, pieces[r.IntN(len(pieces))]...)
		}
		before, most := []byte("x ab \n"[:r.IntN(7)]), 4+r.IntN(60)
		if got, want := appendEntities(bytes.Clone(before), src, most), unreferencedPlainly(bytes.Clone(before), src, most); !bytes.Equal(got, want) {
			t.Fatalf("%q behind %q, %d bytes at most: %q, want %q", src, before, most, got, want)
		}
	}
}
