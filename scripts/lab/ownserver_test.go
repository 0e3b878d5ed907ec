//go:build labtest

package lab

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// TestCustomersOwnServer (AUT5): a login of a customer whose own server knows the passwords is asked for there, over verified
// TLS. What was right holds on for a while when that server is away; what is not known then is put off.
func TestCustomersOwnServer(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	ca := newIssuer(t)
	roots := filepath.Join(l.Dir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	own := smtp.NewServer(goSMTP{l.Sink("sink")})
	own.Domain, own.TLSConfig, own.ErrorLog = "mx.sink.example", ca.server(t, "mx.sink.example", time.Hour), discardLog{}
	ln, err := l.Listen(HostInternet, "198.51.100.20:2587")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = own.Serve(ln) }() // ends with Close
	t.Cleanup(func() { _ = own.Close() })
	g := startGatewayWith(t, l, strings.Replace(smarthostConfig, "[delivery]\n", fmt.Sprintf("[delivery]\ntls_roots = %q\n", roots), 1))
	sluice(t, g, "login", "add", Mailbox, "--user", "alice", "--own", "mx.sink.example:2587")
	sluice(t, g, "login", "add", "other@gosmtp.example", "--user", "alice", "--own", "mx.alive.example:2587") // nothing listens there
	send := func(login, password, want string) {
		t.Helper()
		out, err := l.Swaks(ctx, HostInternet, "--server", "203.0.113.1:587", "--tls", "--ehlo", "client.example", "--auth", "PLAIN", "--auth-user", login, "--auth-password", password,
			"--from", login, "--to", "b@sink.example")
		if err != nil || !strings.Contains(out.Stdout, want) {
			t.Errorf("%s with %q: want %q: %v\n%s", login, password, want, err, out.Stdout)
		}
	}
	send(Mailbox, MailboxPassword, "250 2.0.0 gw.example: kept as ")
	send(Mailbox, "wrong", "535 5.7.8 gw.example: wrong login or password")
	send("other@gosmtp.example", MailboxPassword, "454 4.7.0 gw.example: the login cannot be checked now")
	if err := own.Close(); err != nil {
		t.Fatal(err)
	}
	send(Mailbox, MailboxPassword, "250 2.0.0 gw.example: kept as ")
	send(Mailbox, "another", "454 4.7.0 gw.example: the login cannot be checked now")
	messageTo(ctx, t, l, "b@sink.example")
}
