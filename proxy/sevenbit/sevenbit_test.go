package sevenbit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
	"testing"
)

func convert(text string) (string, error) {
	var out bytes.Buffer
	err := Convert(&out, strings.NewReader(text), int64(len(text)))
	return out.String(), err
}

// crlf writes a message with its line ends.
func crlf(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

func TestConverts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"nothing to do":    {"A: b\n\nplain =3D text \n", "A: b\n\nplain =3D text \n"},
		"no MIME":          {"A: b\n\nGrüße = \n", "A: b\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nGr=C3=BC=C3=9Fe =3D=20\n"},
		"no known charset": {"A: b\n\n\xfc\n", "A: b\nMIME-Version: 1.0\nContent-Type: text/plain; charset=unknown-8bit\nContent-Transfer-Encoding: quoted-printable\n\n=FC\n"},
		"text": {"MIME-Version: 1.0\nContent-Type: text/html;\n charset=latin1\ncontent-transfer-encoding : 8BIT\nB: c\n\n\xe4\t\nx\n",
			"MIME-Version: 1.0\nContent-Type: text/html;\n charset=latin1\nB: c\nContent-Transfer-Encoding: quoted-printable\n\n=E4=09\nx\n"},
		"no line end at the end": {"MIME-Version: 1.0\nContent-Type: text/plain\n\nä", "MIME-Version: 1.0\nContent-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A4"},
		"long line":              {"MIME-Version: 1.0\nContent-Type: text/plain\n\n" + strings.Repeat("ä", 13) + "\n", "MIME-Version: 1.0\nContent-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\n" + strings.Repeat("=C3=A4", 12) + "=C3=\n=A4\n"},
		"binary part":            {"MIME-Version: 1.0\nContent-Type: application/x\n\n\xff\xfe\n", "MIME-Version: 1.0\nContent-Type: application/x\nContent-Transfer-Encoding: base64\n\n//4NCg==\n"},
		"parts": {"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b 1\"\nContent-Transfer-Encoding: 8bit\n\nfür alte\n--b 1\n\nkeep = \n--b 1\nContent-Type: application/x\n\n\xff\n--b 1\nContent-Type: text/plain\nContent-Transfer-Encoding: 8bit\n\nä\n\n--b 1--\nende ö\n",
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b 1\"\nContent-Transfer-Encoding: 7bit\n\nf??r alte\n--b 1\n\nkeep = \n--b 1\nContent-Type: application/x\nContent-Transfer-Encoding: base64\n\n/w==\n--b 1\nContent-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A4\n\n--b 1--\nende ??\n"},
		"parts in parts": {"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/alternative; boundary=ab\n\n--ab\n\nä\n--ab\n\nx\n--a\n\nö\n--a--\n",
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/alternative; boundary=ab\n\n--ab\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A4\n--ab\n\nx\n--a\nContent-Transfer-Encoding: quoted-printable\n\n=C3=B6\n--a--\n"},
		"a message in it": {"MIME-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nDKIM-Signature: v=1\nA: b\n\nä\n",
			"MIME-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\nDKIM-Signature: v=1\nA: b\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A4\n"},
		"a digest": {"MIME-Version: 1.0\nContent-Type: multipart/digest; boundary=a\n\n--a\n\nA: b\nMIME-Version: 1.0\nContent-Type: text/plain\n\nä\n--a--\n",
			"MIME-Version: 1.0\nContent-Type: multipart/digest; boundary=a\n\n--a\n\nA: b\nMIME-Version: 1.0\nContent-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A4\n--a--\n"},
		"signed, but not that part": {"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/signed; boundary=s\n\n--s\n\nx\n--s--\n--a\n\nä\n--a--\n",
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/signed; boundary=s\n\n--s\n\nx\n--s--\n--a\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A4\n--a--\n"},
	} {
		got, err := convert(crlf(c.in))
		if err != nil || got != crlf(c.want) {
			t.Errorf("%s: %v\n got %q\nwant %q", name, err, got, crlf(c.want))
		}
	}
}

func TestWhatCannotBeConverted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		in   string
		want error
	}{
		"DKIM":                 {"DKIM-Signature: v=1\nA: b\n\nä\n", ErrSigned},
		"ARC":                  {"arc-message-signature : i=1\nA: b\n\nä\n", ErrSigned},
		"signed part":          {"Content-Type: multipart/signed; boundary=s\n\n--s\n\nä\n--s--\n", ErrSigned},
		"around a signed part": {"Content-Type: multipart/signed; boundary=s\n\nä\n--s\n\nx\n--s--\n", ErrSigned},
		"header":               {"Subject: ä\n\nx\n", ErrUnfit},
		"header of a part":     {"Content-Type: multipart/mixed; boundary=s\n\n--s\nContent-Description: ä\n\nx\n--s--\n", ErrUnfit},
		"partial":              {"Content-Type: message/partial; id=x; number=1\n\nä\n", ErrUnfit},
		"already encoded":      {"Content-Transfer-Encoding: quoted-printable\n\nä\n", ErrUnfit},
		"two types":            {"Content-Type: text/plain\nContent-Type: text/html\n\nä\n", ErrUnfit},
		"no boundary":          {"Content-Type: multipart/mixed\n\nä\n", ErrUnfit},
		"too deep":             {strings.Repeat("Content-Type: message/rfc822\n\n", 40) + "A: b\n\nä\n", ErrUnfit},
	} {
		if got, err := convert(crlf(c.in)); !errors.Is(err, c.want) || got != "" {
			t.Errorf("%s: %q, %v, want %v", name, got, err, c.want)
		}
	}
}

// leaves decodes a message and lists its innermost parts.
func leaves(r io.Reader) (all []string, err error) {
	m, err := mail.ReadMessage(r)
	if err != nil {
		return nil, err
	}
	return leavesOf(textproto.MIMEHeader(m.Header), m.Body)
}

func leavesOf(h textproto.MIMEHeader, body io.Reader) (all []string, err error) {
	media, params, _ := mime.ParseMediaType(h.Get("Content-Type"))
	if strings.HasPrefix(media, "multipart/") {
		for mr := multipart.NewReader(body, params["boundary"]); ; {
			p, err := mr.NextRawPart()
			if err == io.EOF {
				return all, nil
			}
			if err != nil {
				return nil, err
			}
			more, err := leavesOf(p.Header, p)
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
		}
	}
	switch strings.ToLower(h.Get("Content-Transfer-Encoding")) {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	b, err := io.ReadAll(body)
	return []string{string(b)}, err
}

// TestReadersSeeTheSame compares what another implementation decodes before and after.
func TestReadersSeeTheSame(t *testing.T) {
	t.Parallel()
	bodies := []string{"", "x\r\n", "ä", "ä\r\n", "\xff\x00\x01 \r\n\r\n", strings.Repeat("ö \t", 40_000), strings.Repeat("=\xfe.\r\n", 700), "\r\n.\r\n--\r\nü", strings.Repeat("a", 100) + "ß" + strings.Repeat(" ", 100)}
	for i, one := range bodies {
		for j, two := range bodies {
			for _, kind := range []string{"text/plain", "application/octet-stream"} {
				text := fmt.Sprintf("A: b\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\nContent-Type: %s\r\n\r\n%s\r\n--i--\r\n--o\r\nContent-Type: %s\r\n\r\n%s\r\n--o--\r\n", kind, one, kind, two)
				got, err := convert(text)
				if err != nil || !seven([]byte(got)) {
					t.Fatalf("%d, %d: %v", i, j, err)
				}
				is, err := leaves(strings.NewReader(got))
				if err != nil || fmt.Sprintf("%q", is) != fmt.Sprintf("%q", []string{one, two}) {
					t.Errorf("%s %d, %d: %v, %.200q, want %.200q", kind, i, j, err, is, []string{one, two})
				}
				if seven([]byte(text)) && got != text {
					t.Errorf("%d, %d: changed without need", i, j)
				}
			}
		}
	}
}

func FuzzConvert(f *testing.F) {
	for _, s := range []string{
		"A: b\n\nä\n", "Content-Type: multipart/mixed; boundary=a\n\n--a\n\nä\n--a\nContent-Type: x/y\n\n\xff\n--a--\nx\n",
		"Content-Type: message/rfc822\n\nA: b\n\nä", "Content-Type: multipart/signed; boundary=s\n\n--s\n\nx\n--s--\n", "--a\n\n--\xff\n", "Content-Type: multipart/digest; boundary=\"\"",
	} {
		f.Add([]byte(crlf(s)))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		in = bytes.ReplaceAll(bytes.ReplaceAll(in, []byte("\r"), nil), []byte("\n"), []byte("\r\n"))
		var out bytes.Buffer
		if err := Convert(&out, bytes.NewReader(in), int64(len(in))); err != nil {
			if !errors.Is(err, ErrSigned) && !errors.Is(err, ErrUnfit) || out.Len() > 0 {
				t.Errorf("%v, %d bytes written", err, out.Len())
			}
			return
		}
		got := out.Bytes()
		if !seven(got) {
			t.Fatalf("%q became %q", in, got)
		}
		if seven(in) && !bytes.Equal(in, got) {
			t.Errorf("changed without need: %q became %q", in, got)
		}
		var again bytes.Buffer
		if err := Convert(&again, bytes.NewReader(got), int64(len(got))); err != nil || !bytes.Equal(again.Bytes(), got) {
			t.Errorf("a second time it becomes %q: %v", again.Bytes(), err)
		}
	})
}
