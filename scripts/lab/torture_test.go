//go:build labtest

package lab

import (
	"bytes"
	"fmt"
	"strings"
)

// An original is a message to be carried byte by byte. Line ends may be anything.
type original struct {
	name string
	data []byte
}

// gtube is refused by the content filter.
const gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

const tortureHead = "From: <a@customer.example>\r\nTo: <b@example.net>\r\nSubject: torture\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <torture@customer.example>\r\n"

// torture are messages with what relays, filters and MIME parsers are known to spoil.
func torture() []original {
	var all []original
	add := func(name, data string) { all = append(all, original{name, []byte(data)}) }
	body := func(name, text string) { add(name, tortureHead+"\r\n"+text) }
	head := func(name, fields string) { add(name, tortureHead+fields+"\r\nbody\r\n") }
	mime := func(name, fields, text string) { add(name, tortureHead+"MIME-Version: 1.0\r\n"+fields+"\r\n"+text) }

	body("dots", ".\r\n..\r\n...\r\n.a\r\n. \r\n.\t\r\n a.\r\n.\r\n")
	body("dots at the ends of reads", strings.Repeat(strings.Repeat("x", 4093)+"\r\n.\r\n", 8))
	body("no body", "")
	body("empty lines at the end", "text\r\n\r\n\r\n\r\n\r\n")
	body("empty lines only", "\r\n\r\n\r\n")
	body("blanks at line ends", "a \r\nb\t\r\nc \t \r\n \r\n\t\r\n")
	body("signature separator", "text\r\n-- \r\nname\r\n")
	body("mbox lines", "From a@example.net Sat Nov 21 10:00:00 2026\r\n>From b\r\n>>From c\r\n")
	body("smtp in the text", "QUIT\r\nRSET\r\nMAIL FROM:<a@example.net>\r\nDATA\r\n354 go\r\n250 ok\r\nBDAT 5 LAST\r\n")
	body("8-bit", "Grüße, 日本語, \xff\xfe\x80, \xe9t\xe9\r\n")
	body("every byte but NUL, CR and LF", everyByte()+"\r\n")
	body("line of 998", strings.Repeat("x", 998)+"\r\n")
	body("line of 999", strings.Repeat("y", 999)+"\r\n")
	body("line of 2048", strings.Repeat("z", 2048)+"\r\n")
	body("line of 70,000", strings.Repeat("0123456789", 7000)+"\r\n")
	body("long lines with dots where they may be cut", strings.Repeat(strings.Repeat("x", 997)+".", 20)+"\r\n")
	body("many short lines", strings.Repeat("a\r\n", 20000))
	body("control characters", "\x01\x02\x07\b\v\f\x1a\x1b[31m\x7f\r\n")
	body("300 KiB", strings.Repeat(strings.Repeat("base64+/", 9)+"\r\n", 300<<10/74))
	body("ends within a line", "no line end at the end")
	body("bare LF", "a\nb\n\nc\n.\n..\nd\r\n")
	add("bare LF throughout", strings.ReplaceAll(tortureHead, "\r\n", "\n")+"\ntext\n.\n")
	body("test pattern", gtube+"\r\n")
	body("bare CR", "a\rb\r\n")
	body("CR CR LF", "a\r\r\nb\r\n")
	body("NUL", "a\x00b\r\n")

	head("folded", "X-A: a\r\n b\r\n\tc\r\n  \t d\r\n")
	head("folded to blanks", "X-A: a\r\n \r\n b\r\n")
	head("field of 998", "X-A: "+strings.Repeat("x", 993)+"\r\n")
	head("field of 5,000", "X-A: "+strings.Repeat("word ", 1000)+"\r\n")
	head("empty field", "X-Empty:\r\nX-Blank: \r\n")
	head("blank before the colon", "X-A : a\r\n")
	head("no blank behind the colon", "X-A:a\r\nX-B:\ta\r\n")
	head("case and doubles", "x-lower: 1\r\nX-UPPER: 2\r\nsubject: again\r\nSUBJECT: and again\r\n")
	head("8-bit header", "X-A: Grüße \xe9\r\n")
	head("encoded words", "X-A: =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?iso-8859-1?b?4eI=?=\r\n =?utf-8?q?_more?=\r\n")
	head("trace and resent", "Received: from a by b; Sat, 21 Nov 2026 09:00:00 +0000\r\nResent-From: <c@example.net>\r\nReturn-Path: <d@example.net>\r\nBcc: e@example.net\r\n")
	head("a line that is no field", "this is no field\r\n")
	head("300 fields", strings.Repeat("X-Many: 1\r\n", 300))
	add("header only", "Subject: x\r\n")
	add("no header", "\r\nbody alone\r\n")
	add("text without header", "just text\r\nand more\r\n")
	add("empty", "")
	add("begins with a dot", ".Subject: x\r\n\r\n.\r\n")
	add("begins with a blank", " Subject: x\r\n\r\nx\r\n")

	mime("nested", "Content-Type: multipart/mixed; boundary=a\r\n", nested(20))
	mime("boundary never closed", "Content-Type: multipart/mixed; boundary=\"q\"\r\n", "--q\r\n\r\ntext\r\n--q\r\nContent-Type: text/html\r\n\r\n<p>\r\n")
	mime("boundary with odd characters", "Content-Type: multipart/mixed; boundary=\"=_(')+_,-./:=?\"\r\n", "--=_(')+_,-./:=?\r\n\r\n.\r\n--=_(')+_,-./:=?--\r\n")
	mime("boundary missing", "Content-Type: multipart/mixed\r\n", "--\r\n\r\ntext\r\n----\r\n")
	mime("two types", "Content-Type: text/plain\r\nContent-Type: text/html\r\n", "x\r\n")
	mime("quoted-printable", "Content-Transfer-Encoding: quoted-printable\r\n", "=\r\n=3D=2E\r\n=20\r\n.=\r\n.=\r\n=zz\r\n")
	mime("base64 with rubbish", "Content-Transfer-Encoding: base64\r\n", "aGVs\r\nbG8=\r\n!!!!\r\n====\r\nYQ\r\n")
	mime("unknown encoding", "Content-Transfer-Encoding: x-uuencode\r\n", "begin 644 x\r\n#0V%T\r\n`\r\nend\r\n")
	mime("preamble and epilogue", "Content-Type: multipart/alternative; boundary=b\r\n", "preamble\r\n.\r\n--b\r\n\r\nx\r\n--b--  \r\nepilogue\r\n.\r\n")
	mime("message within", "Content-Type: message/rfc822\r\n", tortureHead+"\r\n.inner\r\n")
	return all
}

func everyByte() string {
	var b strings.Builder
	for c := 1; c < 256; c++ {
		if c != '\r' && c != '\n' {
			b.WriteByte(byte(c))
		}
	}
	return b.String()
}

// nested is a tree of parts within parts.
func nested(depth int) string {
	var b strings.Builder
	for i := range depth {
		fmt.Fprintf(&b, "--%s\r\nContent-Type: multipart/mixed; boundary=%s\r\n\r\n", strings.Repeat("a", i+1), strings.Repeat("a", i+2))
	}
	b.WriteString("--" + strings.Repeat("a", depth+1) + "\r\n\r\nleaf\r\n")
	return b.String()
}

// canonical is an original as it has to arrive: every LF is a line end and becomes CRLF, and the last line has one. It is
// refused instead with 550 5.6.0 where it holds NUL, or CR that is not before LF.
func canonical(data []byte) (want []byte, refused bool) {
	want = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	refused = bytes.ContainsAny(want, "\r\x00")
	want = bytes.ReplaceAll(want, []byte("\n"), []byte("\r\n"))
	if len(want) > 0 && !bytes.HasSuffix(want, []byte("\r\n")) {
		want = append(want, "\r\n"...)
	}
	return want, refused
}
