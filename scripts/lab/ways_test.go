//go:build labtest

package lab

import (
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// waysConfig has one delivery address for mail and one for bounces, so that two mails differ in nothing that a test does not
// say; connections stand idle for longer than any of its steps takes. Its arguments are the authorities and the name in EHLO.
var waysConfig = func() string {
	before, rest, _ := strings.Cut(smarthostConfig, "{{range .Addresses}}")
	_, after, _ := strings.Cut(rest, "{{end}}\n[lock]")
	return strings.Replace(before, "[delivery]\n", "[delivery]\nreuse = \"4m\"\ntls_roots = %q\n", 1) + `
[[delivery.address]]
address = "203.0.113.17"
helo = %q
[[delivery.address]]
address = "203.0.113.18"
helo = "out18.gw.example"
[[delivery.pool]]
name = "bounces"
class = "bounce"
addresses = ["203.0.113.18"]
[[delivery.protect]]
domain = "one.example"
level = "verified"
names = ["mx.one.example"]
reason = "contract"
[[delivery.protect]]
domain = "two.example"
level = "verified"
names = ["mx.two.example"]
reason = "contract"
[[delivery.protect]]
domain = "encrypted.example"
level = "required"
reason = "contract"
[lock]` + after
}()

// onward are the sessions by which an MX got mail: the name in EHLO, "TLS" where it began anew under TLS, and the senders.
func onward(s *Sink) (all []string) {
	for _, x := range s.Sessions() {
		helo, tls, from := "", "", ""
		for _, line := range x.Lines {
			if name, ok := strings.CutPrefix(line, "C: EHLO "); ok {
				helo = name
			} else if line == "C: STARTTLS" {
				tls = " TLS"
			} else if mail, ok := strings.CutPrefix(line, "C: MAIL FROM:"); ok {
				from += " " + strings.Fields(mail)[0]
			}
		}
		if from != "" {
			all = append(all, helo+tls+from)
		}
	}
	return all
}

// TestKeptSessionsByTheirWay: a session to a destination stands for the next mail of the same user from the same address under
// the same name, and for that alone; what needs encryption, or a certificate of another name, does not go by one without.
func TestKeptSessionsByTheirWay(t *testing.T) {
	t.Parallel()
	ctx, l, ca := testContext(t), ForTest(t, Options{}), newIssuer(t)
	roots := filepath.Join(l.Dir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	g := startGatewayWith(t, l, fmt.Sprintf(waysConfig, roots, "out17.gw.example"))
	sends := func(host, from string, peer int, to, want string) {
		t.Helper()
		c, err := l.Hello(ctx, host, "", fmt.Sprintf("198.51.100.%d:25", 100+peer))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, r, err := c.Send(from, []string{to}, letter(host, "ways")); err != nil || !strings.HasPrefix(r.Raw, want) {
			t.Errorf("<%s> to %s hears %s, %v; want %s", from, to, r, err, want)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	}
	sees := func(s *Sink, want ...string) {
		t.Helper()
		if got := onward(s); !slices.Equal(got, want) {
			t.Errorf("%s has had\n%s\nnot\n%s", s.mx.Name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	const a, m = "a@alice.example", "m@mallory.example"

	s := l.Sink("peer01") // the user, and the address
	for range 2 {
		sends("alice", a, 1, "u@peer01.example", "250 ")
	}
	sends("mallory", m, 1, "u@peer01.example", "250 ")
	sends("alice", a, 1, "u@peer01.example", "250 ")
	sends("alice", "", 1, "u@peer01.example", "250 ")
	sees(s, "out17.gw.example <"+a+"> <"+a+"> <"+a+">", "out17.gw.example <"+m+">", "out18.gw.example <>")

	s = l.Sink("peer02") // encryption
	sends("alice", a, 2, "u@peer02.example", "250 ")
	s.Encrypt(nil)
	sends("alice", a, 2, "u@encrypted.example", "250 ")
	sends("alice", a, 2, "v@encrypted.example", "250 ")
	sees(s, "out17.gw.example <"+a+">", "out17.gw.example TLS <"+a+"> <"+a+">")

	s = l.Sink("peer03") // the name that is verified
	s.Encrypt(ca.server(t, "mx.one.example", time.Hour))
	sends("alice", a, 3, "u@one.example", "250 ")
	sends("alice", a, 3, "v@one.example", "250 ")
	sends("alice", a, 3, "u@two.example", "451 4.7.5 gw.example: the destination's certificate is not what is required")
	s.Encrypt(ca.server(t, "mx.two.example", time.Hour))
	sends("alice", a, 3, "u@two.example", "250 ")
	sees(s, "out17.gw.example TLS <"+a+"> <"+a+">", "out17.gw.example TLS <"+a+">")

	s = l.Sink("peer04") // the name in EHLO
	sends("alice", a, 4, "u@peer04.example", "250 ")
	if err := g.Configure(fmt.Sprintf(waysConfig, roots, "new.gw.example"), ""); err != nil {
		t.Fatal(err)
	}
	mark := logSize(t, g.Sluiced)
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := waitLogAfter(ctx, g.Sluiced, mark, "configuration reloaded"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		sends("alice", a, 4, "u@peer04.example", "250 ")
	}
	sees(s, "out17.gw.example <"+a+">", "new.gw.example <"+a+"> <"+a+">")
	queueKeepsApart(ctx, t, l)
}

// queueKeepsApart: the queue's sessions are one user's each, too.
func queueKeepsApart(ctx context.Context, t *testing.T, l *Lab) {
	t.Helper()
	for n, host := range []string{"alice", "mallory", "alice"} {
		out, err := l.Swaks(ctx, host, "--server", "203.0.113.1:587", "--from", "q@"+host+".example", "--to", fmt.Sprintf("queued%d@v4only.example", n))
		if err != nil || out.Code != 0 {
			t.Fatalf("%s hands in: %v, %s", host, err, out.Stdout)
		}
		if _, err := l.Sink("v4only").Wait(ctx, n+1); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range onward(l.Sink("v4only")) {
		if strings.Contains(s, "alice") && strings.Contains(s, "mallory") {
			t.Errorf("the queue has sent mail of two users by one session: %s", s)
		}
	}
}
