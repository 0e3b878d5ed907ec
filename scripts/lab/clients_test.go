//go:build labtest

package lab

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// examplePassword stands in the examples of docs/clients.md.
const examplePassword = "Rk3vZp9XgTq4mWc7sYdB"

var exampleBlock = regexp.MustCompile("(?s)\n```\n(?:#|//) (\\S+)\n(.*?)```\n")

// examples are the files that docs/clients.md has customers write, by name.
func examples(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, m := range exampleBlock.FindAllStringSubmatch(string(text), -1) {
		files[m[1]] = m[2]
	}
	return files
}

// exampleLab is a gateway with a smarthost whose certificate its customers trust.
type exampleLab struct {
	*Lab
	t     *testing.T
	g     *Gateway
	files map[string]string
	roots string
	n     int
}

func startExamples(ctx context.Context, t *testing.T) *exampleLab {
	t.Helper()
	x := &exampleLab{Lab: ForTest(t, Options{}), t: t, files: examples(t)}
	ca := newIssuer(t)
	c := ca.server(t, "smtp.provider.example", time.Hour).Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	x.roots = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}))
	cert, secret := filepath.Join(x.Dir(), "smtp.pem"), filepath.Join(x.Dir(), "smtp.key")
	x.write(cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))+x.roots)
	x.write(secret, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	config := strings.NewReplacer("guesses = 6\ncallout = true\n", "").Replace(smarthostConfig)
	x.g = startGatewayWith(t, x.Lab, config+fmt.Sprintf("[[smarthost.listener]]\naddress = \"203.0.113.1:465\"\n[tls]\ncertificate = %q\nkey = %q\n", cert, secret))
	password := filepath.Join(x.Dir(), "password")
	x.write(password, examplePassword+"\n")
	sluice(t, x.g, "login", "add", "customer.example", "--user", "alice", "--password-file", password)
	return x
}

func (x *exampleLab) write(path, text string) {
	x.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		x.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		x.t.Fatal(err)
	}
}

// file is one of the page's.
func (x *exampleLab) file(name string) string {
	x.t.Helper()
	text, ok := x.files[name]
	if !ok {
		x.t.Fatalf("docs/clients.md has no %s", name)
	}
	return text
}

// into writes a file of the page, and whom to trust, into a root.
func (x *exampleLab) into(root string, names ...string) {
	x.t.Helper()
	x.write(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"), x.roots)
	for _, n := range names {
		x.write(filepath.Join(root, n), x.file(n))
	}
}

// arrives waits until one more message came by the smarthost, from whoever logged in.
func (x *exampleLab) arrives(ctx context.Context, what string) {
	x.t.Helper()
	x.n++
	soon, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	all, err := x.Sink("sink").Wait(soon, x.n)
	if err != nil {
		x.t.Fatalf("%s: %v; the queue is %+v", what, err, queue(ctx, x.t, x.g))
	}
	if text := string(all[x.n-1].Data); !strings.Contains(text, "with ESMTPSA") && !strings.Contains(text, "with UTF8SMTPSA") || !strings.Contains(text, what) {
		x.t.Errorf("%s: it came without a login:\n%.600s", what, text)
	}
}

// exampleLetter is a message that says what sent it.
func exampleLetter(what string) []byte {
	return []byte("From: web@customer.example\nTo: b@sink.example\nSubject: by " + what + "\n\nhello\n")
}

// TestClientExamples: mail servers and programs send by the smarthost with what docs/clients.md has customers enter.
func TestClientExamples(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	x := startExamples(ctx, t)
	mail := func(what string) Mail {
		return Mail{From: "web@customer.example", To: []string{"b@sink.example"}, Data: exampleLetter(what)}
	}
	postfix, err := x.Postfix(ctx, "alice", strings.Split(strings.TrimSpace(x.file("/etc/postfix/main.cf")), "\n")...)
	if err != nil {
		t.Fatal(err)
	}
	x.into(postfix.Root(), "/etc/postfix/sasl_passwd")
	if err := postfix.Send(ctx, mail("Postfix")); err != nil {
		t.Fatal(err)
	}
	x.arrives(ctx, "by Postfix")

	exim, err := x.Exim(ctx, "bob")
	if err != nil {
		t.Fatal(err)
	}
	x.into(exim.Root(), "/etc/exim4/passwd.client", "/etc/exim4/conf.d/main/000_smarthost")
	settings := filepath.Join(exim.Root(), "etc/exim4/update-exim4.conf.conf")
	old, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	text := string(old)
	for line := range strings.Lines(x.file("/etc/exim4/update-exim4.conf.conf")) {
		key, _, _ := strings.Cut(line, "=")
		text = regexp.MustCompile("(?m)^"+key+"=.*\n").ReplaceAllLiteralString(text, line)
	}
	x.write(settings, text)
	if out, err := exim.Exec(ctx, "/bin/sh", "-c", "chgrp Debian-exim /etc/exim4/passwd.client && update-exim4.conf"); err != nil || out.Code != 0 {
		t.Fatal(err, out)
	}
	if err := exim.Send(ctx, mail("Exim")); err != nil {
		t.Fatal(err)
	}
	x.arrives(ctx, "by Exim")

	x.sendmail(ctx)
	x.tools(ctx)
	x.outlook(ctx)
	untilQueue(ctx, t, x.g, "the queue does not empty", func(q map[string]queued) bool { return len(q) == 0 })
}

// sendmail has Debian's Sendmail deliver to the smarthost.
func (x *exampleLab) sendmail(ctx context.Context) {
	x.t.Helper()
	box, err := x.toolbox(ctx, "mallory", sendmailRoot{})
	if err != nil {
		x.t.Fatal(err)
	}
	root := box.root.root
	x.into(root, "/etc/mail/authinfo")
	mc := filepath.Join(root, "etc/mail/sendmail.mc")
	before, after, ok := strings.Cut(sendmailMC, "MAILER(")
	if !ok {
		x.t.Fatal("sendmail.mc has no mailers")
	}
	x.write(mc, before+x.file("/etc/mail/sendmail.mc")+"MAILER("+after)
	out, err := box.Run(ctx, nil, "/bin/sh", "-c", "cd /etc/mail && m4 sendmail.mc > sendmail.cf && chmod 600 authinfo && /usr/libexec/sendmail/makemap hash authinfo < authinfo || /usr/sbin/makemap hash authinfo < authinfo")
	if err != nil || out.Code != 0 {
		x.t.Fatal(err, out)
	}
	out, err = box.Run(ctx, exampleLetter("Sendmail"), "/usr/libexec/sendmail/sendmail", "-Am", "-v", "-odi", "-OErrorMode=p", "-i", "-f", "web@customer.example", "--", "b@sink.example")
	if err != nil || out.Code != 0 || !strings.Contains(out.Stdout, "kept as ") {
		x.t.Fatal(err, out)
	}
	x.arrives(ctx, "by Sendmail")
}

// tools has programs without a queue send.
func (x *exampleLab) tools(ctx context.Context) {
	x.t.Helper()
	box, err := x.Toolbox(ctx, HostInternet)
	if err != nil {
		x.t.Fatal(err)
	}
	root := box.root.root
	x.into(root)
	x.write(filepath.Join(root, "root/.msmtprc"), x.file(".msmtprc"))
	if err := os.Chmod(filepath.Join(root, "root/.msmtprc"), 0o600); err != nil {
		x.t.Fatal(err)
	}
	if out, err := box.Run(ctx, exampleLetter("msmtp"), "/usr/bin/msmtp", "--", "b@sink.example"); err != nil || out.Code != 0 {
		x.t.Fatal(err, out)
	}
	x.arrives(ctx, "by msmtp")
	x.write(filepath.Join(root, "srv/send.js"), x.file("send.js"))
	out, err := box.Run(ctx, nil, "/usr/bin/env", "NODE_PATH=/usr/share/sluice-lab/node_modules", "NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt", "node", "/srv/send.js")
	if err != nil || out.Code != 0 {
		x.t.Fatal(err, out)
	}
	x.arrives(ctx, "by nodemailer")
}

// outlook speaks as Outlook does: AUTH LOGIN, name and password each when asked for, at both ports.
func (x *exampleLab) outlook(ctx context.Context) {
	x.t.Helper()
	for _, at := range []string{"203.0.113.1:587", "203.0.113.1:465"} {
		var c *Client
		var err error
		if strings.HasSuffix(at, ":465") {
			conn, derr := x.Dial(ctx, HostInternet, "", at)
			if derr != nil {
				x.t.Fatal(derr)
			}
			c = NewClient(conn)
			c.Timeout(30 * time.Second)
			if err = c.Handshake(); err == nil {
				_, err = c.Reply()
			}
		} else if c, err = x.SMTP(ctx, HostInternet, "", at); err == nil {
			x.says(c, "EHLO DESKTOP-7Q2", 250)
			_, err = c.StartTLS()
		}
		if err != nil {
			x.t.Fatal(at, err)
		}
		b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
		x.says(c, "EHLO DESKTOP-7Q2", 250)
		x.says(c, "AUTH LOGIN", 334)
		x.says(c, b64("customer.example"), 334)
		x.says(c, b64(examplePassword), 235)
		x.says(c, "MAIL FROM: <web@customer.example>", 250) // with the space
		x.says(c, "RCPT TO: <b@sink.example>", 250)
		if r, err := c.Data([]byte("From: \"Web\" <web@customer.example>\r\nTo: <b@sink.example>\r\nSubject: by Outlook\r\nX-Mailer: Microsoft Outlook 16.0\r\n\r\nhello\r\n")); err != nil || r.Code != 250 {
			x.t.Fatal(at, r, err)
		}
		if err := c.Quit(); err != nil {
			x.t.Error(err)
		}
		x.arrives(ctx, "by Outlook")
	}
}

func (x *exampleLab) says(c *Client, line string, want int) {
	x.t.Helper()
	if r, err := c.Cmd(line); err != nil || r.Code != want {
		x.t.Fatalf("%s: %v, %v, want %d", line, r, err, want)
	}
}
