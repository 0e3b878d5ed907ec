//go:build labtest

package lab

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestAuthAtTheDestination: who logs in at a foreign server does so through the gateway, from his own address, and the
// password is found nowhere afterwards.
func TestAuthAtTheDestination(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGateway(t, l, "")
	for i, c := range []struct{ server, from string }{{"198.51.100.24", "192.0.2.10"}, {"2001:db8:100::24", "2001:db8:1::10"}} {
		to := fmt.Sprintf("auth%d@gosmtp.example", i)
		out, err := l.Swaks(ctx, "alice", "--server", c.server, "--from", "a@alice.example", "--to", to, "--tls",
			"--auth", "PLAIN", "--auth-user", Mailbox, "--auth-password", MailboxPassword)
		if err != nil || out.Code != 0 {
			t.Fatalf("%v, code %d\n%s", err, out.Code, out.Stdout)
		}
		all, err := l.Sink("gosmtp").Wait(ctx, i+1)
		if err != nil {
			t.Fatal(err)
		}
		if m := all[i]; m.User != Mailbox || m.Peer.Addr().Unmap().String() != c.from {
			t.Errorf("the message arrived from %v as user %q, want %s as %s", m.Peer, m.User, c.from, Mailbox)
		}
		out, err = l.Swaks(ctx, "alice", "--server", c.server, "--from", "a@alice.example", "--to", to, "--tls",
			"--auth", "PLAIN", "--auth-user", Mailbox, "--auth-password", "guess-"+MailboxPassword)
		if err != nil || out.Code == 0 {
			t.Errorf("a wrong password ends with %v, code %d", err, out.Code)
		}
	}
	var u struct {
		Auth *struct{ Accepted, Refused int }
	}
	if err := sluiceJSON(ctx, g, &u, "users", "show", "alice"); err != nil {
		t.Fatal(err)
	}
	if u.Auth == nil || u.Auth.Accepted != 2 || u.Auth.Refused < 2 {
		t.Errorf("alice's attempts are counted as %+v", u.Auth)
	}
	noTrace(ctx, t, g)
}

// noTrace looks for the password in all that the gateway keeps and shows.
func noTrace(ctx context.Context, t *testing.T, g *Gateway) {
	t.Helper()
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + Mailbox + "\x00" + MailboxPassword))
	needles := [][]byte{[]byte(MailboxPassword), []byte(base64.StdEncoding.EncodeToString([]byte(MailboxPassword))), []byte(plain)}
	look := func(where string, b []byte) {
		for _, n := range needles {
			if bytes.Contains(b, n) {
				t.Errorf("%s holds the password as %q", where, n)
			}
		}
	}
	for _, args := range [][]string{{"log", "--json"}, {"users", "--json"}, {"flows", "--json"}, {"status", "--json"}} {
		out, err := g.Sluice(ctx, args...)
		if err != nil || out.Code != 0 {
			t.Errorf("sluice %s: %v, %+v", strings.Join(args, " "), err, out)
		}
		look("sluice "+args[0], []byte(out.Stdout))
	}
	for _, p := range []*Process{g.Sluiced, g.Intercept} { // what the journal would have
		b, err := os.ReadFile(p.LogPath())
		if err != nil || len(b) == 0 {
			t.Errorf("%d bytes of a program's log: %v", len(b), err)
		}
		look(p.LogPath(), b)
	}
	files := 0
	err := filepath.WalkDir(g.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(path, filepath.Join(g.Dir, "bin")) {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		files++
		look(path, b)
		return err
	})
	if err != nil || files < 3 {
		t.Errorf("%d files were looked at: %v", files, err)
	}
	// A core file would hold what the memory holds: there is none.
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", g.Sluiced.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(limits)) {
		if f := strings.Fields(l); strings.HasPrefix(l, "Max core file size") && (f[4] != "0" || f[5] != "0") {
			t.Errorf("sluiced may leave a core file: %s", l)
		}
	}
	// Nor does a program get one that the kernel would hand it to, nor another process of the same user its memory: what is
	// not to be dumped belongs to root in /proc (proc(5)).
	st, err := os.Stat(fmt.Sprintf("/proc/%d/mem", g.Sluiced.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	if who := st.Sys().(*syscall.Stat_t).Uid; who != 0 {
		t.Errorf("sluiced's memory belongs to user %d, and may be dumped", who)
	}
}

// TestWhichAuthIsOffered: what the destination offers in the client's own state of TLS, less what is tied to a channel that ends
// here, and nothing to whom it is refused.
func TestWhichAuthIsOffered(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGatewayWith(t, l, strings.Replace(soonGoodbye, `name = "{{.Name}}"`, "name = \"{{.Name}}\"{{if eq .Name \"bob\"}}\nauth = \"refuse\"{{end}}", 1))
	const bound = " SCRAM-SHA-256 SCRAM-SHA-256-PLUS EXTERNAL NTLM GSSAPI"
	ehlo := func(step, auth string) string {
		return step + `: reply 250-mx\n250-PIPELINING` + auth + `\n250 8BITMIME`
	}
	for i, c := range []struct {
		name        string
		rules       []string
		tls         bool
		plain, over string // offered in plain text, and under TLS
	}{
		{"another list under TLS", []string{ehlo("ehlo#2", `\n250-AUTH PLAIN LOGIN`+bound), ehlo("ehlo", `\n250-STARTTLS\n250-AUTH LOGIN CRAM-MD5`)}, true, "AUTH LOGIN", "AUTH PLAIN LOGIN"},
		{"only under TLS", []string{ehlo("ehlo#2", `\n250-AUTH PLAIN`), ehlo("ehlo", `\n250-STARTTLS`)}, true, "", "AUTH PLAIN"},
		{"nothing but what is bound", []string{ehlo("ehlo#2", `\n250-AUTH`+bound), ehlo("ehlo", `\n250-STARTTLS`)}, true, "", ""},
		{"without TLS", []string{ehlo("ehlo", `\n250-AUTH PLAIN`+bound)}, false, "AUTH PLAIN" + bound, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, to := l.Sink(fmt.Sprintf("peer%02d", i+1)), fmt.Sprintf("198.51.100.%d:25", 101+i)
			if c.tls {
				s.Encrypt(nil)
			}
			if err := s.Script(append(c.rules, "auth: reply 235 2.7.0 welcome")...); err != nil {
				t.Fatal(err)
			}
			for _, host := range []string{"bob", "alice"} {
				x, err := l.SMTP(ctx, host, "", to)
				if err != nil {
					t.Fatal(err)
				}
				defer x.Close()
				authOffered(t, x, host, c.plain)
				if c.tls {
					if x, _, err = underTLS(ctx, t, l, host, to, anyCertificate); err != nil {
						t.Fatal(err)
					}
					authOffered(t, x, host, c.over)
				}
				if host == "bob" && slices.ContainsFunc(s.Sessions(), func(x Session) bool { return strings.Contains(strings.Join(x.Lines, "\n"), "C: AUTH") }) {
					t.Error("the destination heard AUTH of who is refused it")
				}
			}
		})
	}
}

// authOffered holds a client's EHLO to the line about AUTH, "" for none, and tries what is said there; it may not be tried elsewhere.
func authOffered(t *testing.T, x *Client, host, want string) {
	t.Helper()
	if host == "bob" {
		want = ""
	}
	r, err := x.Cmd("EHLO mail." + host + ".example")
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, line := range r.Lines {
		if strings.HasPrefix(line, "AUTH") {
			got = line
		}
	}
	if got != want {
		t.Errorf("%s is offered %q, want %q", host, got, want)
	}
	for _, mechanism := range []string{"EXTERNAL", "PLAIN"} {
		code := 504
		switch {
		case want == "":
			code = 502
		case slices.Contains(strings.Fields(want), mechanism):
			code = 235
		}
		if r, err := x.Cmd("AUTH " + mechanism + " AHVzZXIAcGFzcw=="); err != nil || r.Code != code {
			t.Errorf("%s, to whom %q is offered, says AUTH %s and hears %s, %v; want %d", host, want, mechanism, r, err, code)
		}
		if code == 235 {
			return
		}
	}
}
