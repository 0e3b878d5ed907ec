//go:build labtest

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// relayConfig has relays by user, by domain and for all else: with a login, with a certificate that nobody trusts, with a
// wrong password.
const relayConfig = `
[spool]
first_retry = "1h"
[[spool.relay]]
host = "mx.gosmtp.example"
users = ["alice"]
login = "%[1]s"
password_file = "%[2]s"
tls = "required"
[[spool.relay]]
host = "mx.gosmtp.example"
domains = ["d01.example"]
tls = "verified"
[[spool.relay]]
host = "mx.gosmtp.example"
domains = ["d02.example"]
login = "%[1]s"
password_file = "%[3]s"
tls = "required"
[[spool.relay]]
host = "mx.gosmtp.example"
`

// TestUpstreamRelays take mail in place of its destinations, by user, by domain and globally, with AUTH and TLS; what a
// relay does not keep waits.
func TestUpstreamRelays(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(l.Dir(), name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	g := startGatewayWith(t, l, smarthostConfig+fmt.Sprintf(relayConfig, Mailbox, file("right", MailboxPassword+"\n"), file("wrong", "guess-"+MailboxPassword+"\n")))
	for _, m := range []struct{ host, to string }{{"alice", "a@gosmtp.example"}, {"alice", "b@gosmtp.example"}, {"bob", "x@d01.example"}, {"bob", "x@d02.example"}, {"bob", "c@gosmtp.example"}} {
		out, err := l.Swaks(ctx, m.host, "--server", "203.0.113.1:587", "--from", "a@"+m.host+".example", "--to", m.to)
		if err != nil || out.Code != 0 {
			t.Fatalf("%s: %v, %s", m.to, err, out.Stdout)
		}
	}
	all, err := l.Sink("gosmtp").Wait(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		want := Mailbox
		if m.Recipients()[0] == "c@gosmtp.example" {
			want = ""
		}
		if m.User != want {
			t.Errorf("%v came as %q, want %q", m.Recipients(), m.User, want)
		}
	}
	q := untilQueue(ctx, t, g, "two wait", func(q map[string]queued) bool {
		return len(q) == 2 && q["d01.example"].Tries > 0 && q["d02.example"].Tries > 0
	})
	if n := q["d01.example"].Note; !strings.Contains(n, "certificate") {
		t.Errorf("a relay whose certificate nobody trusts: %q", n)
	}
	if n := q["d02.example"].Note; !strings.Contains(n, "the relay refuses the login") {
		t.Errorf("a relay that refuses the password: %q", n)
	}
	noTrace(ctx, t, g)
}
