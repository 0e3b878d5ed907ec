package content_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"math/rand/v2"
	"mime/quotedprintable"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/encoding/ianaindex"

	"sluice/filter"
	"sluice/filter/campaign"
	"sluice/filter/content"
	"sluice/filter/content/rules"
	"sluice/filter/content/shipped"
	"sluice/filter/content/view"
	"sluice/filter/message"
)

// What one judgement may take, whatever the message. A tenth of it is what the worst one takes on an idle machine.
const (
	mostTime   = 10 * time.Second
	mostMemory = 64 << 20
)

// TestAnythingIsJudged: messages of any structure, size, charset and brokenness, archives and HTML that are made to grow among
// them, are judged in bounded time and memory, and where not all of one was read the findings say so. A second of it in each run
// of the tests, of up to 1 MiB; with SLUICE_SOAK so many seconds, of up to 50 MB (`make soak-filter`).
func TestAnythingIsJudged(t *testing.T) { // alone: what others allocate counts, too
	m, err := shipped.Model()
	if err != nil {
		t.Fatal(err)
	}
	seconds, most := 1, 1<<20
	if s := os.Getenv("SLUICE_SOAK"); s != "" {
		if seconds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
		most = 50_000_000
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SLUICE_SEED"); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	w := &wild{Rand: rand.New(rand.NewPCG(seed, 1)), archives: archives(t)}
	j, marks := content.NewJudge(m), content.NewMarks()
	var longest time.Duration
	var largest uint64
	n, size := 0, 0
	for began := time.Now(); n < 20 || time.Since(began) < time.Duration(seconds)*time.Second; n++ {
		data := w.mail(int(math.Exp(w.Float64()*math.Log(float64(most)/100)) * 100))
		spent, taken := judgeOne(t, j, marks, data)
		if longest, largest = max(longest, spent), max(largest, taken); spent > mostTime || taken > mostMemory || t.Failed() {
			t.Fatalf("message %d of seed %d, %d bytes, took %v and %d bytes of memory", n, seed, len(data), spent, taken)
		}
		size += len(data)
	}
	t.Logf("seed %d: %d messages of %d MB together; the longest took %v, the largest %.1f MiB", seed, n, size/1_000_000, longest.Round(time.Millisecond), float64(largest)/(1<<20))
}

// judgeOne asks all that look into a message.
func judgeOne(t *testing.T, j *content.Judge, marks *content.Marks, data []byte) (spent time.Duration, taken uint64) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	o := j.Judge(data, content.DefaultThresholds, 0)
	marks.Check(context.Background(), filter.Data, &message.Message{Data: data}, nil)
	spent = time.Since(began)
	runtime.ReadMemStats(&after)
	if !(o.Probability >= 0 && o.Probability <= 1) {
		t.Errorf("the probability is %v", o.Probability)
	}
	v := new(view.Reader).Read(data)
	var p campaign.Print
	campaign.Take(v, &p)
	said := false
	for _, f := range o.Findings {
		said = said || f.Code == rules.CodeCut
	}
	if said != (v.Cut != 0) {
		t.Errorf("left out: %v; said: %t", v.Cut, said)
	}
	return spent, after.TotalAlloc - before.TotalAlloc
}

// wild makes messages of all that mail is made of.
type wild struct {
	*rand.Rand
	archives [][]byte
	names    int
}

func (w *wild) of(all ...string) string { return all[w.IntN(len(all))] }

func (w *wild) mail(size int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: %s <%s@paypa1.example>\r\nSubject: %s\r\n", w.word(), w.of("a", "=?x?q?y?=", strings.Repeat("b", 9000)), w.word())
	for range w.IntN(4) * w.IntN(400) {
		fmt.Fprintf(&b, "%s: %s\r\n", w.of("X-A", "Received", "Content-Type", "Reply-To", "List-Id"), w.word())
	}
	for i := range w.of2(0, 1000) {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=d%d\r\n\r\n--d%d\r\n", i, i)
	}
	w.part(&b, size, 0)
	out := b.Bytes()
	for range w.IntN(20) * w.IntN(2) {
		out[w.IntN(len(out))] = byte(w.IntN(256))
	}
	return out[:len(out)-w.IntN(2)*w.IntN(len(out))/2]
}

// word is an encoded word in any charset.
func (w *wild) word() string {
	return fmt.Sprintf("=?%s?%s?%s?=", w.charset(), w.of("q", "b", "Q", "z"), w.of("=E4=FC", "gsDg", "+AGEA-", strings.Repeat("a_", 60)))
}

var charsets = func() (all []string) {
	for _, name := range strings.Fields("us-ascii utf-8 utf-7 utf-16 utf-16le utf-32 utf-32be iso-2022-jp iso-2022-kr hz-gb-2312 gb2312 gb18030 gbk big5 euc-kr euc-jp shift_jis koi8-r koi8-u " +
		"windows-1250 windows-1251 windows-1252 windows-1253 windows-1254 windows-1255 windows-1256 windows-1257 windows-1258 windows-874 macintosh x-mac-cyrillic ibm037 ibm437 ibm850 ibm866 ibm1047 iso-8859-1 iso-8859-2 " +
		"iso-8859-5 iso-8859-6 iso-8859-7 iso-8859-8 iso-8859-8-i iso-8859-15 tis-620 x-user-defined no-such-charset") {
		all = append(all, name, strings.ToUpper(name))
	}
	return append(all, "", strings.Repeat("x", 5000))
}()

func (w *wild) charset() string { return charsets[w.IntN(len(charsets))] }

// part writes header and body of a part of about so many bytes.
func (w *wild) part(b *bytes.Buffer, size, depth int) {
	switch k := w.IntN(10); {
	case k < 4:
		w.names++
		sep := fmt.Sprint(w.of("b", "--", "b"+strings.Repeat("c", 60)), w.names/w.of2(1, 1000))
		fmt.Fprintf(b, "Content-Type: multipart/%s; %s=\"%s\"\r\n\r\n", w.of("mixed", "alternative", "signed", "related"), w.of("boundary", "boundary", "boundary", "bound", "boundary*0"), sep)
		n := 1 + w.IntN(3)
		if depth < 2 {
			n = w.of2(n, 300)
		}
		for ; n > 0; n-- {
			fmt.Fprintf(b, "--%s%s\r\n", sep, w.of("", "", "", " ", "--"))
			w.part(b, size/(n+1), depth+1)
			size -= size / (n + 1)
		}
	case k == 5:
		b.WriteString("Content-Type: message/rfc822\r\n\r\nSubject: " + w.word() + "\r\n")
		w.part(b, size, depth+1)
	default:
		w.leaf(b, size)
	}
	b.WriteString(w.of("\r\n", "\n", "\r", ""))
}

func (w *wild) of2(a, b int) int {
	if w.IntN(8) == 0 {
		return b
	}
	return a
}

// leaf writes a part without parts.
func (w *wild) leaf(b *bytes.Buffer, size int) {
	cs := w.charset()
	typ := w.of("text/plain", "text/html", "text/html", "application/octet-stream", "application/zip", "image/svg+xml", "text/calendar", "")
	fmt.Fprintf(b, "Content-Type: %s; charset=\"%s\"; name=\"%s\"\r\n", typ, cs, w.of("", "", "", "a.zip", "a.gz", "a.html", "a.svg", "a.doc", "=?utf-8?b?4oCu?=a.exe"))
	text := w.text(typ, cs)
	if len(text) > 0 { // to the size, as those do who fill the scanner's window
		text = bytes.Repeat(text, max(1, min(size/len(text), 60_000_000/len(text))))
	}
	switch enc := w.of("base64", "quoted-printable", "8bit", "x-uuencode", "BASE64 ", ""); {
	case w.IntN(4) == 0: // not what it says
		fmt.Fprintf(b, "Content-Transfer-Encoding: %s\r\n\r\n%s", enc, text)
	case strings.HasPrefix(strings.ToLower(enc), "base64"):
		fmt.Fprintf(b, "Content-Transfer-Encoding: %s\r\n\r\n", enc)
		e := base64.NewEncoder(base64.StdEncoding, b)
		_, _ = e.Write(text) // into memory
		_ = e.Close()
	case enc == "quoted-printable":
		fmt.Fprintf(b, "Content-Transfer-Encoding: %s\r\n\r\n", enc)
		e := quotedprintable.NewWriter(b)
		_, _ = e.Write(text) // into memory
		_ = e.Close()
	default:
		fmt.Fprintf(b, "Content-Transfer-Encoding: %s\r\n\r\n%s", enc, text)
	}
}

// text is what a part consists of, once.
func (w *wild) text(typ, charset string) []byte {
	var b bytes.Buffer
	switch k := w.IntN(6); {
	case k == 0:
		for range 64 {
			b.WriteByte(byte(w.IntN(256)))
		}
	case k == 1 || typ == "application/zip":
		b.Write(w.archives[w.IntN(len(w.archives))])
	case k == 2:
		b.WriteString(w.of("aaaaaaaaaaaaaaaa", " ", "\r\n", "word ", "http://a.example/ ", "<", "&#x263a;", "<a href=\"x", "<!--", "--b", "=", "+AGE", "\x1b$B", "~{", "http://"+strings.Repeat("x.", 200)))
	default:
		for range 1 + w.IntN(200) {
			b.WriteString(w.of("<p>", "<div style='display:none'>", "</div>", "<a href='http://192.0.2.1/x'>", "</a>", "<form action=http://a.example>", "<input type=password>", "<style>", "</style>", "<script>", "<table>", "<td", "&nbsp;", "&#8203;",
				"Grüße ", "verify your account ", "Здравствуйте ", "日本語の文章 ", "한국어 ", "<base href=//b.example>", "<meta http-equiv=refresh content='0;url=http://c.example'>", "\u202e", "=", "\r\n"))
		}
	}
	if e, err := ianaindex.MIME.Encoding(charset); err == nil && e != nil && w.IntN(4) > 0 {
		if out, err := e.NewEncoder().Bytes(b.Bytes()); err == nil {
			return out
		}
	}
	return b.Bytes()
}

// archives are good, nested, broken and growing ones.
func archives(t *testing.T) (all [][]byte) {
	t.Helper()
	zipped := func(name string, data []byte) []byte {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		f, err := z.Create(name)
		if err == nil {
			_, err = f.Write(data)
		}
		if err != nil || z.Close() != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	gzipped := func(data []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(data); err != nil || z.Close() != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	bomb := zipped("a.txt", make([]byte, 20<<20))
	deep := bomb
	for i := range 8 {
		deep = zipped(fmt.Sprint(i, ".zip"), deep)
	}
	all = [][]byte{zipped("a.exe", []byte("MZ")), bomb, deep, gzipped(make([]byte, 20<<20)), zipped("a.gz", gzipped(bomb)), []byte("MZ" + strings.Repeat("\x00", 60)),
		[]byte("Rar!\x1a\x07\x01\x00\x00\x00\x00\x00\x10\x02\x03\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05"), []byte("Rar!\x1a\x07\x00\x00\x00\x74\x04\x00\x30\x00" + strings.Repeat("\x01", 60)),
		[]byte("7z\xbc\xaf\x27\x1c" + strings.Repeat("\x06\xf1\x07\x01", 20)), []byte("\xd0\xcf\x11\xe0" + strings.Repeat("V\x00B\x00A\x00\x00\x00", 9))}
	for _, a := range slices.Clone(all) {
		all = append(all, a[:len(a)/2], append(bytes.Clone(a[:len(a)/2]), a...))
	}
	return all
}
