package feedback

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

const original = "Received: from web (web [192.0.2.7]) by gw.example with ESMTP id abc; Mon, 1 Jan 2024 10:00:00 +0000\r\n" +
	"From: shop@customer.example\r\nSubject: cheap pills\r\n\r\nbuy now\r\n"

// arf is a report as RFC 5965 B.1 has it.
func arf(kind, fields, attached string) string {
	return "From: Abuse Desk <feedback@Provider.Example>\r\nTo: abuse@gw.example\r\nSubject: FW: cheap pills\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/report; report-type=feedback-report; boundary=\"part\"\r\n\r\n--part\r\nContent-Type: text/plain\r\n\r\nThis is a report.\r\n" +
		"--part\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: " + kind + "\r\nUser-Agent: SomeGenerator/1.0\r\nVersion: 1\r\n" + fields + "\r\n--part\r\n" + attached + "\r\n--part--\r\n"
}

func TestRead(t *testing.T) {
	t.Parallel()
	message := "Content-Type: message/rfc822\r\nContent-Disposition: inline\r\n\r\n" + original
	for name, c := range map[string]struct {
		report, kind, reporter, source string
		whole                          bool
	}{
		"abuse":       {arf("abuse", "Source-IP: 192.0.2.7\r\n", message), "abuse", "provider.example", "192.0.2.7", true},
		"address v6":  {arf("fraud", "Source-IP: [2001:db8::7]\r\n", message), "fraud", "provider.example", "2001:db8::7", true},
		"not spam":    {arf("not-spam", "", message), "not-spam", "provider.example", "invalid IP", true},
		"unknown":     {arf("X-odd", "Source-IP: nonsense\r\n", message), "other", "provider.example", "invalid IP", true},
		"DKIM failed": {arf("auth-failure", "", message), "opt-out", "provider.example", "invalid IP", true},
		"header":      {arf("abuse", "", "Content-Type: text/rfc822-headers\r\n\r\n"+original[:strings.Index(original, "\r\n\r\n")+4]), "abuse", "provider.example", "invalid IP", false},
		"attached": {"From: x@loop.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + message + "\r\n--b--\r\n",
			"abuse", "loop.example", "invalid IP", true},
		"alone":  {"From: x@loop.example\r\nMIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n\r\n" + original, "abuse", "loop.example", "invalid IP", true},
		"bare":   {strings.ReplaceAll(arf("virus", "", message), "\r\n", "\n"), "virus", "provider.example", "invalid IP", true},
		"quoted": {arf("abuse", "", "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"+strings.ReplaceAll(original, "buy", "b=75y")), "abuse", "provider.example", "invalid IP", true},
		"cut":    {arf("abuse", "", message)[:len(arf("abuse", "", message))-12], "abuse", "provider.example", "invalid IP", true},
	} {
		r, err := Read([]byte(c.report))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if string(r.Kind) != c.kind || r.Reporter != c.reporter || r.Source.String() != c.source || r.Whole != c.whole {
			t.Errorf("%s was read as %s of %q, source %v, whole %v", name, r.Kind, r.Reporter, r.Source, r.Whole)
		}
		if !bytes.Contains(r.Original, []byte("id abc;")) || bytes.Contains(r.Original, []byte("buy now")) != c.whole {
			t.Errorf("%s has the message %q", name, r.Original)
		}
	}
}

// TestMalformedReports: what is no report is refused with a remedy, in bounded time and memory.
func TestMalformedReports(t *testing.T) {
	t.Parallel()
	var deep, wide strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
		wide.WriteString("--w\r\nContent-Type: text/plain\r\n\r\nx\r\n")
	}
	for name, report := range map[string]string{
		"nothing": "", "no mail": "\x00\xff", "text": "From: x@y.example\r\n\r\nplease stop this spam\r\n",
		"no end of header": strings.Repeat("x", 1<<20), "empty parts": arf("abuse", "", "Content-Type: message/rfc822\r\n\r\n"),
		"no boundary": "Content-Type: multipart/report\r\n\r\n--x\r\n", "deep": deep.String(),
		"wide": "Content-Type: multipart/mixed; boundary=w\r\n\r\n" + wide.String(), "too large": arf("abuse", "", strings.Repeat("x", MaxSize)),
	} {
		r, err := Read([]byte(report))
		if err == nil {
			t.Errorf("%s was read as %+v", name, r)
		} else if !strings.Contains(err.Error(), "; ") {
			t.Errorf("%s: the error names no remedy: %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(arf("abuse", "Source-IP: 192.0.2.7\r\n", "Content-Type: message/rfc822\r\n\r\n"+original)))
	f.Add([]byte("Content-Type: message/rfc822\r\n\r\n" + original))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Read(data)
		if err == nil && (len(r.Original) == 0 || len(r.Original) > MaxSize) {
			t.Errorf("a report without a message, or with %d bytes", len(r.Original))
		}
	})
}
