package content

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/filter"
	"sluice/filter/content/transfer"
	"sluice/filter/message"
)

const (
	gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
	eicar = `X5O!P%@AP[4\PZX54(P^)7CC)7}` + `$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`
)

func check(data string) []filter.Hit {
	return NewMarks().Check(context.Background(), filter.Data, &message.Message{Data: []byte(data)}, nil)
}

func codes(hits []filter.Hit) string {
	var s []string
	for _, h := range hits {
		s = append(s, h.Code)
	}
	return strings.Join(s, " ")
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// b64 encodes s as a mail program does, n characters a line.
func b64(s string, n int) string {
	var out strings.Builder
	e := base64.StdEncoding.EncodeToString([]byte(s))
	for len(e) > n {
		out.WriteString(e[:n] + "\n")
		e = e[n:]
	}
	return out.String() + e + "\n"
}

func qp(s string) string {
	var out bytes.Buffer
	w := quotedprintable.NewWriter(&out)
	if _, err := w.Write([]byte(s)); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return strings.ReplaceAll(out.String(), "\r\n", "\n")
}

// escaped encodes every byte.
func escaped(s string) string {
	var out strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&out, "=%02x", s[i])
		if i%20 == 19 {
			out.WriteString("=\n")
		}
	}
	return out.String()
}

func multipart(parts ...string) string {
	s := "From: a@example.org\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b 1\"\n\npreamble\n"
	for _, p := range parts {
		s += "--b 1\n" + p + "\n"
	}
	return s + "--b 1--\n"
}

func TestTheTextsAreTheAgreedOnes(t *testing.T) {
	t.Parallel()
	if len(gtube) != 68 || len(eicar) != 68 {
		t.Fatalf("the texts have %d and %d bytes, want 68", len(gtube), len(eicar))
	}
	for i, want := range []string{gtube, eicar} {
		k := NewMarks().marks[i]
		if string(k.text) != want || strings.IndexByte(want, rare) != k.offset {
			t.Errorf("mark %s is %q with its first %q at %d", k.code, k.text, rare, k.offset)
		}
	}
}

func TestMarksAreFound(t *testing.T) {
	t.Parallel()
	const html = "Content-Type: text/html\n"
	for name, c := range map[string]struct{ data, want string }{
		"clean":                     {"Subject: hello\n\nhow are you\n", ""},
		"empty":                     {"", ""},
		"no body":                   {"Subject: x\n", ""},
		"plain GTUBE":               {"Subject: x\n\nhello\n" + gtube + "\n", "GTUBE"},
		"plain EICAR":               {"Subject: x\n\n" + eicar + "\n", "EICAR"},
		"both":                      {"Subject: x\n\n" + eicar + "\n" + gtube, "GTUBE EICAR"},
		"almost GTUBE":              {"Subject: x\n\n" + gtube[1:] + "\n" + gtube[:67] + "\n" + strings.ToLower(gtube), ""},
		"almost, then true":         {"Subject: x\n\n" + gtube[:67] + gtube[20:] + gtube + "\n", "GTUBE"},
		"needle at the very start":  {gtube[27:], ""},
		"whole body in base64":      {"Content-Transfer-Encoding: base64\n\n" + b64("hello\n"+gtube+"\n", 76), "GTUBE"},
		"odd line length":           {"Content-Transfer-Encoding: base64\n\n" + b64("hello\n"+gtube+"\n", 61), "GTUBE"},
		"base64 in one line":        {"Content-Transfer-Encoding: base64\n\n" + b64("hello\n"+gtube+"\n", 10000), "GTUBE"},
		"name in any case, folded":  {"CONTENT-transfer-ENCODING:\n Base64\n\n" + b64(gtube, 76), "GTUBE"},
		"name with a comment":       {"Content-Transfer-Encoding: (odd) base64 (too)\n\n" + b64(gtube, 76), "GTUBE"},
		"quoted-printable":          {"Content-Transfer-Encoding: quoted-printable\n\n" + qp(strings.Repeat("é", 9)+gtube) + "\n", "GTUBE"},
		"every byte escaped":        {"Content-Transfer-Encoding: quoted-printable\n\n" + escaped(gtube) + "\n", "GTUBE"},
		"blank before a soft break": {"Content-Transfer-Encoding: quoted-printable\n\n" + gtube[:30] + "= \t\n" + gtube[30:], "GTUBE"},
		"HTML part, escaped":        {multipart(html + "Content-Transfer-Encoding: quoted-printable\n\n<p>" + escaped(gtube) + "</p>"), "GTUBE"},
		"HTML part, base64":         {multipart("\ntext", html+"Content-Transfer-Encoding: base64\n\n"+b64("<p>"+gtube+"</p>", 76)), "GTUBE"},
		"attachment in base64": {multipart("\ntext", "Content-Type: application/octet-stream; name=e.com\n"+
			"Content-Disposition: attachment\nContent-Transfer-Encoding: base64\n\n"+b64(eicar, 76)), "EICAR"},
		"spam text and virus":         {multipart("\n"+gtube, "Content-Transfer-Encoding: base64\n\n"+b64(eicar, 76)), "GTUBE EICAR"},
		"behind a broken part":        {multipart("Content-Transfer-Encoding: base64\n\n!!!=\n", "Content-Transfer-Encoding: base64\n\n"+b64(eicar, 76)), "EICAR"},
		"nested message":              {multipart("Content-Type: message/rfc822\n\nSubject: inner\nContent-Transfer-Encoding: base64\n\n" + b64(gtube, 76)), "GTUBE"},
		"no closing boundary":         {strings.TrimSuffix(multipart("Content-Transfer-Encoding: base64\n\n"+b64(gtube, 76)), "--b 1--\n"), "GTUBE"},
		"signature line in quoted":    {"Content-Transfer-Encoding: quoted-printable\n\ntext\n-- \n" + escaped(gtube), "GTUBE"},
		"7bit is not decoded":         {"Content-Transfer-Encoding: 7bit\n\n" + b64(gtube, 76), ""},
		"behind the boundary is none": {"Content-Transfer-Encoding: base64\n\n" + b64("hello", 76) + "--b\n\n" + b64(gtube, 76), ""},
	} {
		for _, data := range []string{crlf(c.data), c.data} {
			hits := check(data)
			if got := codes(hits); got != c.want {
				t.Errorf("%s: found %q, want %q", name, got, c.want)
			}
		}
	}
}

// TestMarksInTheBeginning of a message are found like those in the whole.
func TestMarksInTheBeginning(t *testing.T) {
	t.Parallel()
	m := &message.Message{Data: []byte("Subject: x\r\n\r\n" + gtube + "\r\nand so")}
	if h := NewMarks().Check(context.Background(), filter.Part, m, nil); codes(h) != "GTUBE" || h[0].Action != filter.Reject {
		t.Errorf("%+v", h)
	}
}

func TestHitIsExplained(t *testing.T) {
	t.Parallel()
	head := "Subject: x\r\nContent-Transfer-Encoding: base64\r\n\r\n"
	hits := check(head + b64("12345"+eicar, 76))
	if len(hits) != 1 {
		t.Fatalf("hits are %+v", hits)
	}
	h := hits[0]
	if h.Class != filter.Virus || h.Action != filter.Reject || h.SMTP != 550 || h.Enhanced != "5.7.1" || h.Points != 1 {
		t.Errorf("hit is %+v", h)
	}
	if want := fmt.Sprintf("EICAR, byte 5 of the part at byte %d (base64)", len(head)); h.Evidence != want {
		t.Errorf("evidence is %q, want %q", h.Evidence, want)
	}
	if hits := check("a\r\n\r\n" + gtube); len(hits) != 1 || hits[0].Class != filter.Spam || !strings.Contains(hits[0].Evidence, "byte 5 of the part at byte 0 (as sent)") {
		t.Errorf("hits are %+v", hits)
	}
	m := &message.Message{Data: []byte(gtube)}
	if hits := NewMarks().Check(context.Background(), filter.Rcpt, m, nil); hits != nil {
		t.Errorf("asked in phase rcpt it said %v", hits)
	}
}

func TestDecodingIsBounded(t *testing.T) {
	t.Parallel()
	filler := "Content-Transfer-Encoding: base64\r\n\r\n" + b64(strings.Repeat("x", most), 76)
	if got := codes(check(filler + "\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64(gtube, 76))); got != "" {
		t.Errorf("found %q behind the first 256 KiB", got)
	}
	if got := codes(check(filler + gtube)); got != "GTUBE" {
		t.Errorf("found %q, want the plain text to be found at any place", got)
	}
}

func TestDecodersAgreeWithTheStandardLibrary(t *testing.T) {
	t.Parallel()
	for n := range 300 {
		text := make([]byte, n)
		for i := range text {
			text[i] = byte(i*7 + n)
		}
		if got := transfer.AppendBase64(nil, []byte(b64(string(text), 76))); !bytes.Equal(got, text) {
			t.Fatalf("base64 of %d bytes came back as %x, want %x", n, got, text)
		}
		enc := qp(string(text))
		want, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(enc)))
		if err != nil {
			t.Fatal(err)
		}
		if got := transfer.AppendQuoted(nil, []byte(enc)); !bytes.Equal(got, want) {
			t.Fatalf("quoted-printable of %d bytes came back as %q, want %q", n, got, want)
		}
	}
}

func TestCleanMailCostsNoAllocation(t *testing.T) {
	m := &message.Message{Data: cleanMail()}
	c, ctx := NewMarks(), context.Background()
	if n := testing.AllocsPerRun(100, func() { c.Check(ctx, filter.Data, m, nil) }); n != 0 {
		t.Errorf("%v allocations for a clean mail", n)
	}
}

// TestCorpus runs the check over odd and broken MIME messages where the development corpus is at hand.
func TestCorpus(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("SLUICE_CORPUS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "corpus")
	}
	path := filepath.Join(dir, "mime.tar.zst")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("NOT RUN: the corpus is absent (%v); set SLUICE_CORPUS to its folder", err)
	}
	out, err := exec.Command("zstd", "-dc", "--", path).Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("NOT RUN: zstd is not installed, so the corpus cannot be read")
	}
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	j := shippedJudge(t)
	var hit []string
	for r := tar.NewReader(bytes.NewReader(out)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		n++
		j.Judge(data, DefaultThresholds, 0)
		if got := codes(check(string(data))); got != "" {
			hit = append(hit, filepath.Base(h.Name)+" "+got)
		}
	}
	t.Logf("%d messages; found %q", n, hit)
	if n < 100 || len(hit) == 0 {
		t.Errorf("%d messages, found %q; want at least 100 with the GTUBE samples found", n, hit)
	}
}

func FuzzMarks(f *testing.F) {
	f.Add([]byte(crlf(multipart("\n"+gtube, "Content-Transfer-Encoding: base64\n\n"+b64(eicar, 76)))))
	f.Add([]byte("Content-Transfer-Encoding: quoted-printable\r\n\r\n=\r\n=4=41=\r"))
	f.Add([]byte("content-transfer-encoding:"))
	f.Add([]byte("content-transfer-encoding:base64\n\n=-=\n-"))
	c := NewMarks()
	f.Fuzz(func(t *testing.T, data []byte) {
		hits := c.Check(context.Background(), filter.Data, &message.Message{Data: data}, nil)
		if len(hits) > 2 {
			t.Errorf("%d hits", len(hits))
		}
		if bytes.Contains(data, []byte(gtube)) && !strings.Contains(codes(hits), "GTUBE") {
			t.Error("plain GTUBE was missed")
		}
		for all := encoded(data); ; {
			part, ok := all.next()
			if !ok {
				break
			}
			if len(part.text) > most || part.start > len(data) {
				t.Errorf("part at %d of %d bytes", part.start, len(part.text))
			}
			part.done()
		}
	})
}

func cleanMail() []byte {
	s := "From: Alice <alice@example.org>\r\nTo: Bob <bob@example.net>\r\nSubject: minutes\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
	for len(s) < 10<<10 {
		s += "The committee met on Tuesday; costs were $4,000 * 3, as said before, see https://example.com/\r\n"
	}
	return []byte(s)
}

func BenchmarkClean10K(b *testing.B) { bench(b, cleanMail()) }

func BenchmarkBase64Clean10K(b *testing.B) {
	bench(b, []byte("Content-Transfer-Encoding: base64\r\n\r\n"+crlf(b64(strings.Repeat("clean text ", 680), 76))))
}

func BenchmarkQuotedClean10K(b *testing.B) {
	bench(b, []byte("Content-Transfer-Encoding: quoted-printable\r\n\r\n"+crlf(qp(strings.Repeat("clean text, très bon. ", 420)))))
}

func bench(b *testing.B, data []byte) {
	m := &message.Message{Data: data}
	c, ctx := NewMarks(), context.Background()
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for range b.N {
		if hits := c.Check(ctx, filter.Data, m, nil); len(hits) != 0 {
			b.Fatal(hits)
		}
	}
}
