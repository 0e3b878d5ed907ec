//go:build labtest

package lab

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// opinionStatus is what is looked at of the status.
type opinionStatus struct {
	Plugins []struct {
		Name      string
		Asked     uint64
		Failed    uint64
		Deferred  uint64
		Instances []struct{ State, Error string }
	}
	DNSLists []struct{ Name, State, Error string } `json:"dns_lists"`
}

// sendOne sends one message in a session of its own and returns the answer that ended it.
func sendOne(ctx context.Context, l *Lab, host, from, to, mail string) (string, error) {
	c, err := l.Hello(ctx, host, "", "198.51.100.20:25")
	if err != nil {
		return "", err
	}
	defer c.Close()
	_, last, err := c.Send(from, strings.Split(to, " "), []byte(mail))
	return last.String(), err
}

func plainMail(subject, body string) string {
	return "From: Alice <a@alice.example>\r\nTo: x@sink.example\r\nSubject: " + subject + "\r\n\r\nHi Tom,\r\n\r\n" + body + "\r\n\r\nBest, Alice\r\n"
}

// attached is a letter with a file.
func attached(name string, file []byte) string {
	var b strings.Builder
	b.WriteString("From: Alice <a@alice.example>\r\nTo: x@sink.example\r\nSubject: the file\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/plain\r\n\r\nHere it is.\r\n--b\r\nContent-Type: application/octet-stream; name=" + name +
		"\r\nContent-Disposition: attachment; filename=" + name + "\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	text := base64.StdEncoding.EncodeToString(file)
	for ; len(text) > 76; text = text[76:] {
		b.WriteString(text[:76] + "\r\n")
	}
	b.WriteString(text + "\r\n--b--\r\n")
	return b.String()
}

func zipped(t *testing.T, name string, file []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(name)
	if err == nil {
		_, err = w.Write(file)
	}
	if err = firstError(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func gzipped(file []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(file) // into memory
	_ = z.Close()
	return b.Bytes()
}

// wrapped is a file in whatever ClamAV opens.
func wrapped(t *testing.T, file []byte) map[string]string {
	t.Helper()
	var tarred bytes.Buffer
	w := tar.NewWriter(&tarred)
	if err := firstError(w.WriteHeader(&tar.Header{Name: "a.txt", Mode: 0o644, Size: int64(len(file))}), writeAll(w, file), w.Close()); err != nil {
		t.Fatal(err)
	}
	var quoted strings.Builder
	for _, c := range file {
		fmt.Fprintf(&quoted, "=%02X", c)
	}
	const head = "From: Alice <a@alice.example>\r\nSubject: the file\r\nMIME-Version: 1.0\r\n"
	return map[string]string{
		"as it is":           plainMail("the file", string(file)),
		"base64":             attached("a.com", file),
		"quoted-printable":   head + "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + quoted.String() + "\r\n",
		"in a mail":          head + "Content-Type: message/rfc822\r\n\r\n" + attached("a.com", file),
		"zip":                attached("a.zip", zipped(t, "a.com", file)),
		"zip in zip":         attached("a.zip", zipped(t, "b.zip", zipped(t, "a.com", file))),
		"gzip":               attached("a.gz", gzipped(file)),
		"tar":                attached("a.tar", tarred.Bytes()),
		"tar in gzip":        attached("a.tgz", gzipped(tarred.Bytes())),
		"zip in a mail":      head + "Content-Type: message/rfc822\r\n\r\n" + attached("a.zip", zipped(t, "a.com", file)),
		"under another name": attached("a.jpg", zipped(t, "a.com", file)),
	}
}

func writeAll(w io.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}

const scannersConfig = `
[content]
learned = "never"

[[plugin]]
name = "av"
kind = "clamd"
address = ["127.0.0.1:9", "` + ClamdAddress + `"]
timeout = "28s"
trusted = ["Lab.*"]

[[plugin]]
name = "rspamd"
kind = "rspamd"
address = ["` + RspamdAddress + `"]
timeout = "28s"

[[plugin]]
name = "sa"
kind = "spamd"
address = ["` + SpamdAddress + `"]
timeout = "28s"
max_size = "256KiB"
oversize = "pass"

[[plugin]]
name = "milter"
kind = "milter"
address = ["` + MilterAddress + `"]
timeout = "28s"
class = "spam"
marks = ["X-Spam-Flag: YES"]
`

// TestScannersOfDebian: ClamAV, Rspamd, SpamAssassin and a milter by Sendmail's library are asked about each message, and
// what they object to is refused; a virus locks at once, a foreign signature's does not; of a user's spam his setting says what becomes; one that is stopped puts mail off.
func TestScannersOfDebian(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	var clamd *Process
	for i, start := range []func(context.Context) (*Process, error){l.Clamd, l.Rspamd, l.Spamd, l.Milter} {
		p, err := start(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			clamd = p
		}
	}
	g := startGatewayWith(t, l, strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "dave"}}
lock = { automatic = false }{{end}}`, 1)+scannersConfig)
	untilOpinions(ctx, t, g, func(st *opinionStatus) bool {
		ready := 0
		for _, p := range st.Plugins {
			if in := p.Instances[len(p.Instances)-1]; in.State == "alive" {
				ready++
			}
		}
		return ready == 4
	})
	// In two pieces so that no virus scanner takes this program for a virus.
	eicar := []byte(`X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-` + `ANTIVIRUS-TEST-FILE!$H+H*`)
	for _, c := range []struct{ name, host, from, to, mail, want string }{
		{"clean", "alice", "a@alice.example", "clean@sink.example", plainMail("minutes", "attached are the minutes."), "250 "},
		{"a foreign signature", "alice", "a@alice.example", "x@sink.example", plainMail("minutes", ScannerGuess), "550 5.7.1 gw.example: [VIRUS] message contains a virus: Foreign.Guess.UNOFFICIAL"},
		{"and nobody is locked", "alice", "a@alice.example", "still@sink.example", plainMail("minutes", "once more"), "250 "},
		{"Rspamd", "alice", "a@alice.example", "x@sink.example", plainMail("offer", ScannerRspamd), "550 5.7.1 gw.example: [RSPAMD] "},
		{"SpamAssassin", "alice", "a@alice.example", "x@sink.example", plainMail("offer", ScannerSpamd), "550 5.7.1 gw.example: [SPAMASSASSIN] "},
		{"the milter's body", "alice", "a@alice.example", "x@sink.example", plainMail("offer", ScannerMilter), "554 5.7.1 gw.example: [MILTER] the milter says no"},
		{"the milter's RCPT", "bob", "a@bob.example", "y@sink.example refused@sink.example", plainMail("minutes", "for both"), "550 5.7.1 gw.example: [MILTER] "},
		{"the milter's MAIL", "bob", "later@bob.example", "y@sink.example", plainMail("minutes", "later"), "451 4.7.1 gw.example: [MILTER] "},
		{"the milter's mark", "bob", "a@bob.example", "y@sink.example", plainMail("mark me", "now"), "550 5.7.1 gw.example: [MILTER] "},
		{"a virus that is only forwarded", "bob", "a@bob.example", "y@sink.example", "Delivered-To: b@bob.example\r\n" + attached("a.gz", gzipped(eicar)), "550 5.7.1 gw.example: [VIRUS] message contains a virus: Lab.Eicar.UNOFFICIAL"},
		{"EICAR in gzip in zip", "mallory", "a@mallory.example", "y@sink.example", attached("a.zip", zipped(t, "a.gz", gzipped(eicar))), "550 5.7.1 gw.example: [VIRUS] message contains a virus: Lab.Eicar.UNOFFICIAL"},
	} {
		got, err := sendOne(ctx, l, c.host, c.from, c.to, c.mail)
		if err != nil || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	for name, mail := range wrapped(t, eicar) { // of a user whom nothing locks
		got, err := sendOne(ctx, l, "dave", "a@dave.example", "y@sink.example", mail)
		if err != nil || !strings.HasPrefix(got, "550 5.7.1 gw.example: [VIRUS] ") && !strings.HasPrefix(got, "550 5.7.1 gw.example: [EICAR] ") {
			t.Errorf("EICAR, %s: %q, %v", name, got, err)
		}
	}
	pad := strings.Repeat(strings.Repeat("a line of a long text ", 3)+"\r\n", 32<<10) // 2 MiB, of which memory holds one
	if got, err := sendOne(ctx, l, "bob", "a@bob.example", "y@sink.example", plainMail("long", pad+ScannerGuess)); err != nil || !strings.HasPrefix(got, "550 5.7.1 gw.example: [VIRUS] ") {
		t.Errorf("a virus at the end of a large message: %q, %v", got, err)
	}
	if got, err := sendOne(ctx, l, "bob", "a@bob.example", "large@sink.example", plainMail("longer", pad+pad+pad)); err != nil || !strings.HasPrefix(got, "250 ") {
		t.Errorf("a message that is larger than the scanner takes: %q, %v", got, err)
	}
	body := messageTo(ctx, t, l, "clean@sink.example")
	if strings.Contains(string(body.Data), "X-Lab-Milter") || !strings.Contains(string(body.Data), "attached are the minutes.") {
		t.Errorf("the milter changed the message: %s", body.Data)
	}
	var log []struct {
		User string
		Hits []struct{ Code, Evidence string }
	}
	if err := sluiceJSON(ctx, g, &log, "log"); err != nil {
		t.Fatal(err)
	}
	wanted := 0
	for _, m := range log {
		for _, h := range m.Hits {
			if h.Code == "MILTER-CHANGES" && strings.Contains(h.Evidence, "field X-Lab-Milter: seen") && strings.Contains(h.Evidence, "another body of 14 bytes") {
				wanted++
			}
		}
	}
	if wanted == 0 {
		t.Errorf("the log does not say what the milter wanted: %+v", log)
	}
	if !strings.Contains(fmt.Sprint(log), "UNSCANNED av: it takes no message of this size: raise StreamMaxLength") {
		t.Errorf("the log does not say what was not scanned: %+v", log)
	}
	var locks []struct{ User, Code string }
	if err := sluiceJSON(ctx, g, &locks, "locks"); err != nil {
		t.Fatal(err)
	}
	if len(locks) != 1 || locks[0].User != "mallory" || locks[0].Code != "VIRUS" {
		t.Errorf("locked are %+v, want mallory for her virus", locks)
	}

	sluice(t, g, "user", "set", "dave", "content_on_spam=tag") // what a program calls spam is treated as he says
	for program, text := range map[string]string{"spamassassin": ScannerSpamd, "milter": ScannerMilter} {
		to := program + "@sink.example"
		if got, err := sendOne(ctx, l, "dave", "a@dave.example", to, plainMail("offer", text)); err != nil || !strings.HasPrefix(got, "250 ") {
			t.Errorf("spam to the %s of a user whose spam is tagged: %q, %v", program, got, err)
		} else if m := messageTo(ctx, t, l, to); !bytes.Contains(m.Data, []byte("\r\nX-Spam-Flag: YES\r\n")) {
			t.Errorf("spam to the %s is not tagged: %q", program, m.Data)
		}
	}
	if err := clamd.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := sendOne(ctx, l, "alice", "a@alice.example", "x@sink.example", plainMail("minutes", "without the scanner"))
	if err != nil || !strings.HasPrefix(got, "451 4.3.0 gw.example: [UNCHECKED] ") {
		t.Errorf("without clamd: %q, %v", got, err)
	}
	if out, err := g.Sluice(ctx, "doctor"); err != nil || !strings.Contains(out.Stdout, "plug-in av") {
		t.Errorf("doctor says nothing of a dead scanner: %+v, %v", out, err)
	}
	if _, err := l.Clamd(ctx); err != nil {
		t.Fatal(err)
	}
	if !eventually(ctx, func() bool {
		got, err = sendOne(ctx, l, "dave", "a@dave.example", "back@sink.example", plainMail("minutes", "with the scanner again")) // much of what alice sent was bad
		return err == nil && strings.HasPrefix(got, "250 ")
	}) {
		t.Errorf("clamd is back, and mail hears %q, %v", got, err)
	}
}

// untilOpinions waits until the status is as wanted.
func untilOpinions(ctx context.Context, t *testing.T, g *Gateway, wanted func(*opinionStatus) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	var st opinionStatus
	var err error
	if !eventually(ctx, func() bool {
		st = opinionStatus{}
		err = sluiceJSON(ctx, g, &st, "status")
		return err == nil && wanted(&st)
	}) {
		t.Fatalf("the status stays %+v, %v", st, err)
	}
}

// TestDNSLists: sources and links are looked up, exempt networks and dead lists are not, and status says so.
func TestDNSLists(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	address := map[string]string{}
	for _, c := range l.Customers() {
		address[c.Name] = c.V4.String()
	}
	for _, a := range []string{address["alice"], address["bob"]} {
		if err := l.List(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.dns.write("links", "127.0.1.2 bad.example.links.example\n127.0.1.2 test.links.example\n"); err != nil {
		t.Fatal(err)
	}
	g := startGatewayWith(t, l, GatewayConfig+fmt.Sprintf(`
[content]
learned = "never"
[[dnslist]]
name = "hosts"
zone = %q
of = "source"
refuse = ["127.0.0.2"]
exempt = [%q]
[[dnslist]]
name = "links"
zone = "links.example"
of = "link"
refuse = ["127.0.1.0/24"]
[[dnslist]]
name = "gone"
zone = "gone.example"
of = "link"
refuse = ["127.0.0.2"]
`, DNSList, address["bob"]))
	untilOpinions(ctx, t, g, func(st *opinionStatus) bool {
		return len(st.DNSLists) == 3 && st.DNSLists[0].State == "good" && st.DNSLists[1].State == "good" && st.DNSLists[2].State == "out"
	})
	for _, c := range []struct{ name, host, body, want string }{
		{"listed", "alice", "hello", "550 5.7.1 gw.example: [LISTED] your address is on the list hosts"},
		{"exempt", "bob", "hello", "250 "},
		{"a link", "mallory", "see http://www.bad.example/offer", "550 5.7.1 gw.example: [LISTED] message links to bad.example, which is on the list links"},
		{"a good link", "mallory", "see http://www.good.example/offer", "250 "},
	} {
		got, err := sendOne(ctx, l, c.host, "a@"+c.host+".example", "x@sink.example", plainMail("minutes", c.body))
		if err != nil || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	if out := sluice(t, g, "status"); !strings.Contains(out, "list gone (gone.example, link): out: it does not have test.gone.example") {
		t.Errorf("the status says nothing of the dead list:\n%s", out)
	}
}
