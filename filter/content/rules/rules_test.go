package rules

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/filter/content/view"
)

func check(mail string) []Finding { return Check(new(view.Reader).Read([]byte(mail)), nil) }

func codes(fs []Finding) string {
	var all []string
	for _, f := range fs {
		all = append(all, f.Code)
	}
	return strings.Join(all, " ")
}

func html(body string) string {
	return "From: Ann <ann@example.org>\nSubject: hello\nContent-Type: text/html\n\n" + body
}

func text(body string) string { return "From: Ann <ann@example.org>\nSubject: hello\n\n" + body }

func TestLinks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ mail, want string }{
		"nothing":              {text("see https://www.example.org/x and mail me"), ""},
		"numeric":              {text("see http://198.51.100.7/x"), "URL-NUMERIC"},
		"one number":           {text("see http://3325256711/x"), "URL-NUMERIC"},
		"hexadecimal":          {text("see http://0xc6336407/x"), "URL-NUMERIC"},
		"own network":          {text("the printer is at http://192.168.1.9/"), ""},
		"IPv6":                 {html("<a href='http://[2001:db8::1]/'>x</a>"), "URL-NUMERIC"},
		"user part":            {text("http://www.paypal.com@evil.example/"), "URL-USER"},
		"shortener":            {text("https://bit.ly/abc"), "URL-SHORT"},
		"picture at shortener": {html("<img src='https://bit.ly/abc'>"), ""},
		"digit for letter":     {text("https://paypa1.com/login"), "URL-LOOKALIKE"},
		"letter missing":       {text("https://facebok.com/"), "URL-LOOKALIKE"},
		"letter more":          {text("https://netfliix.com/"), "URL-LOOKALIKE"},
		"other letter":         {text("https://miorosoft.com/"), "URL-LOOKALIKE"},
		"name in a host":       {text("https://paypal.com.login.example/"), "URL-BRAND"},
		"name with a word":     {text("https://netflix-billing.example/"), "URL-BRAND"},
		"the owner":            {text("https://www.paypal.com/x https://signin.amazon.co.uk/y https://paypal.me/z"), ""},
		"Cyrillic":             {html("<a href='https://pаypal.com/'>x</a>"), "URL-IDN URL-LOOKALIKE"},
		"punycode":             {text("https://xn--pypal-4ve.com/"), "URL-IDN URL-LOOKALIKE"},
		"umlaut":               {text("https://müller.example/"), ""},
		"shows another":        {html("<a href='https://evil.example/'>https://www.bank.example/</a>"), "URL-MISMATCH"},
		"shows its own":        {html("<a href='https://login.bank.example/x'>www.bank.example</a>"), ""},
		"counted clicks":       {html("<a href='https://click.news.example/x'>www.shop.example</a>"), ""},
		"free page":            {text("https://account-check.web.app/"), "URL-FREEHOST"},
		"page inside a link":   {html("<a href='data:text/html;base64,AAAA'>x</a>"), "URL-CODE"},
	} {
		if got := codes(check(c.mail)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	from := func(f string) string { return "From: " + f + "\nSubject: hello\n\nhi\n" }
	for name, c := range map[string]struct{ mail, want string }{
		"borrowed":            {from("PayPal Support <x@mail.example>"), "PHISH-NAME"},
		"with a digit":        {from("Office 365 <x@mail.example>"), "PHISH-NAME"},
		"with odd letters":    {from("=?utf-8?q?N=D0=B5tflix?= <x@mail.example>"), "PHISH-NAME"},
		"the owner":           {from("PayPal <service@intl.paypal.com>"), ""},
		"the owner elsewhere": {from("Amazon.de <x@marketplace.amazon.de>"), ""},
		"part of a word":      {from("Norton Smith-Amazonas <x@mail.example>"), "PHISH-NAME"}, // Norton by itself is a name, and a brand
		"a person":            {from("Chase Miller <chase@mail.example>"), ""},
		"another address":     {from("\"ceo@bank.example\" <x@mail.example>"), "PHISH-ADDRESS"},
		"its own address":     {from("\"x@mail.example\" <x@mail.example>"), ""},
		"form":                {html("<form action='http://a.example/'><input type=password></form>"), "PHISH-FORM"},
		"answers elsewhere":   {"From: a@firm.example\nReply-To: b@gmail.com\n\nhi", "OUT-REPLY"},
		"web form":            {"From: \"http://casino.example/ win\" <www@shop.example>\n\nhi", "OUT-WEBFORM"},
		"wants it at once":    {html("Your account was suspended. Verify your password immediately <a href='https://x.example/'>here</a>"), "PHISH-TEXT"},
		"in German":           {html("Ihr Konto wurde gesperrt. Bestätigen Sie es umgehend, sonst <a href='https://x.example/'>hier</a>"), "PHISH-TEXT"},
		"nothing to follow":   {text("Your account was suspended. Verify your password immediately."), ""},
	} {
		if got := codes(check(c.mail)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func attached(name, typ string, content []byte) string {
	return "From: a@example.org\nSubject: hello\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nhi\n--b\nContent-Type: " + typ +
		"\nContent-Disposition: attachment; filename=\"" + name + "\"\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString(content) + "\n--b--\n"
}

// zipped makes an archive of one member.
func zipped(t *testing.T, name string, content []byte, streamed bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	var err error
	if streamed {
		f, e := w.Create(name)
		if err = e; err == nil {
			_, err = f.Write(content)
		}
	} else {
		f, e := w.CreateRaw(&zip.FileHeader{Name: name, UncompressedSize64: uint64(len(content)), CompressedSize64: uint64(len(content))})
		if err = e; err == nil {
			_, err = f.Write(content)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFiles(t *testing.T) {
	t.Parallel()
	exe := append([]byte("MZ"), bytes.Repeat([]byte{0}, 200)...)
	locked := zipped(t, "secret.doc", []byte("x"), false)
	locked[6] |= 1
	bomb := zipped(t, "zeros.txt", bytes.Repeat([]byte{0}, 100), false)
	copy(bomb[22:], []byte{0, 0, 0, 0x40}) // says it grows to 1 GiB
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Name = "invoice.exe"
	if _, err := w.Write(exe); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	three := zipped(t, "c.zip", zipped(t, "b.zip", zipped(t, "a.exe", exe, true), true), true)
	rar4 := append([]byte("Rar!\x1a\x07\x00"), 0, 0, 0x73, 0x80, 0, 13, 0, 0, 0, 0, 0, 0, 0)
	rar5 := append([]byte("Rar!\x1a\x07\x01\x00"), 0, 0, 0, 0, 3, 4, 0, 0)
	for name, c := range map[string]struct{ mail, want string }{
		"a document":         {attached("minutes.pdf", "application/pdf", []byte("%PDF-1.4")), ""},
		"a program":          {attached("tool.EXE", "application/octet-stream", exe), "FILE-EXEC"},
		"a disguised one":    {attached("invoice.pdf.exe", "application/octet-stream", exe), "FILE-DOUBLE"},
		"blanks before it":   {attached("invoice        .scr", "application/octet-stream", exe), "FILE-DOUBLE"},
		"under another type": {attached("photo.jpg", "application/octet-stream", exe), "FILE-TYPE"},
		"in an archive":      {attached("a.zip", "application/zip", zipped(t, "x/run.js", []byte("1"), false)), "FILE-INSIDE"},
		"in a streamed one":  {attached("a.zip", "application/zip", zipped(t, "x/run.js", []byte("1"), true)), "FILE-INSIDE"},
		"clean archive":      {attached("a.zip", "application/zip", zipped(t, "a.txt", []byte("1"), true)), ""},
		"archives in it":     {attached("a.zip", "application/zip", three), "FILE-NESTED FILE-INSIDE"},
		"encrypted":          {attached("a.zip", "application/zip", locked), "FILE-ENCRYPTED"},
		"bomb":               {attached("a.zip", "application/zip", bomb), "FILE-BOMB"},
		"gzip":               {attached("a.gz", "application/gzip", gz.Bytes()), "FILE-INSIDE"},
		"rar, locked":        {attached("a.rar", "application/x-rar", rar4), "FILE-ENCRYPTED"},
		"rar 5, locked":      {attached("a.rar", "application/x-rar", rar5), "FILE-ENCRYPTED"},
		"macros":             {attached("a.docm", "application/msword", zipped(t, "word/vbaProject.bin", []byte("x"), true)), "FILE-MACRO"},
		"old macros":         {attached("a.doc", "application/msword", []byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1....V\x00B\x00A\x00\x00\x00")), "FILE-MACRO"},
		"web page":           {attached("a.html", "text/html", []byte("<p>hello")), "FILE-HTML"},
		"page with a form":   {attached("a.htm", "application/octet-stream", []byte("<form action=x>")), "FILE-FORM"},
		"drawing":            {attached("a.svg", "image/svg+xml", []byte("<svg>")), ""},
		"drawing that runs":  {attached("a.svg", "image/svg+xml", []byte("<svg><script>")), "FILE-FORM"},
	} {
		got := check(c.mail)
		if codes(got) != c.want {
			t.Errorf("%s: %q, want %q", name, codes(got), c.want)
		}
		for _, f := range got {
			if f.Points <= 0 || f.Text == "" || f.Evidence == "" {
				t.Errorf("%s: %+v explains nothing", name, f)
			}
		}
	}
}

// TestBombs looks into archives that are made to cost time: what is not bounded takes minutes.
func TestBombs(t *testing.T) {
	t.Parallel()
	layer := zipped(t, "a.txt", bytes.Repeat([]byte{0}, 64<<20), true)
	for i := range 10 {
		layer = zipped(t, fmt.Sprintf("%d.zip", i), layer, true)
	}
	var many bytes.Buffer
	w := zip.NewWriter(&many)
	for i := range 20000 {
		if _, err := w.Create(fmt.Sprintf("%d.zip", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var gz bytes.Buffer
	g := gzip.NewWriter(&gz)
	if _, err := g.Write(bytes.Repeat([]byte{0}, 256<<20)); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	for name, mail := range map[string]string{
		"deep": attached("a.zip", "application/zip", layer), "wide": attached("a.zip", "application/zip", many.Bytes()), "gzip": attached("a.gz", "application/gzip", gz.Bytes()),
		"local headers": attached("a.zip", "application/zip", bytes.Repeat([]byte("PK\x03\x04\x00\x00\x08\x00\x08\x00"), 50000)),
	} {
		began := time.Now()
		fs := check(mail)
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("%s took %v", name, d)
		}
		if name == "gzip" && codes(fs) != "FILE-BOMB" {
			t.Errorf("%s: %q", name, codes(fs))
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(html("<a href='https://xn--pypal-4ve.com/'>www.x.example</a>")))
	f.Add([]byte(attached("a.zip", "application/zip", []byte("PK\x03\x04\x14\x00\x08\x00\x08\x00"+strings.Repeat("\x00", 40)))))
	f.Add([]byte(attached("a.rar", "x/y", []byte("Rar!\x1a\x07\x01\x00\x00\x00\x00\x00\x10\x02\x03\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05"))))
	f.Add([]byte(attached("a.rar", "x/y", []byte("Rar!\x1a\x07\x00\x00\x00\x74\x04\x00\x30\x00"+strings.Repeat("\x01", 60)))))
	f.Add([]byte(attached("a.gz", "x/y", []byte("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03a\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"))))
	var r view.Reader
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, x := range Check(r.Read(data), nil) {
			if len(x.Evidence) > 220 {
				t.Errorf("%s has evidence of %d bytes", x.Code, len(x.Evidence))
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	v := new(view.Reader).Read([]byte("From: Ann Smith <ann@example.org>\nSubject: your account\nContent-Type: text/html\n\n" +
		strings.Repeat("<p>The committee met on Tuesday and will confirm <a href='https://www.example.com/minutes'>the minutes</a> for every account.</p>\n", 80)))
	var fs []Finding
	b.ReportAllocs()
	for range b.N {
		fs = Check(v, fs[:0])
	}
}

// TestOneLetterLeavesAnEnd: what tells that a word cannot be a name with one letter changed never misses one.
func TestOneLetterLeavesAnEnd(t *testing.T) {
	t.Parallel()
	n := 0
	for name := range known.byLabel {
		if len(name) < 6 {
			continue
		}
		for i := 0; i <= len(name); i++ {
			edits := []string{name[:i] + "k" + name[i:]}
			if i < len(name) {
				edits = append(edits, name[:i]+name[i+1:], name[:i]+"k"+name[i+1:])
			}
			for _, e := range edits {
				if n++; !known.ends[[3]byte([]byte(e))] && !known.ends[[3]byte([]byte(e[len(e)-3:]))] {
					t.Errorf("%s, one letter from %s, is passed over", e, name)
				}
			}
		}
	}
	if n < 1000 {
		t.Errorf("%d words tried", n)
	}
}

// TestReplacedLookalikes: what is looked over is what would be replaced.
func TestReplacedLookalikes(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "paypal", "paypa1", "micr0soft", "rnicrosoft", "arn", "rn", "vv", "vvells", "nr", "vn", "rv", "аpple", "é", "g00g1e", "ama2on", "4m4zon", "5parkasse", "n3tflix", "67890"} {
		if got, want := replaced(s), lookalikes.Replace(s); got != want {
			t.Errorf("%q became %q, want %q", s, got, want)
		}
	}
}
