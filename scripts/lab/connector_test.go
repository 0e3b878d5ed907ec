//go:build labtest

package lab

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// connectorConfig has two customers at services that send from the internet's router.
const connectorConfig = `
[[smarthost.connector]]
name = "contoso"
user = "alice"
service = "microsoft365"
domains = ["customer.example"]
tenants = ["contoso.onmicrosoft.example"]
certificate = "mail.service.example"
ranges = ["203.0.113.2/32"]
[[smarthost.connector]]
name = "fabrikam"
user = "bob"
service = "google"
domains = ["bob.example"]
proof_header = "X-Provider-Proof"
proof_file = "%[1]s"
certificate = "mail.service.example"
ranges = ["203.0.113.2/32"]
`

const proofWord = "kT7mWq2zR9vLx4Np"

// TestConnectors take the mail of a customer at a service that sends the mail of many, and of none of its other tenants.
func TestConnectors(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	ca := newIssuer(t)
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(l.Dir(), name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	roots := file("roots.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})))
	identity := func(name string) []string {
		t.Helper()
		c := ca.server(t, name, time.Hour).Certificates[0]
		key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		return []string{"--tls-cert", file(name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))),
			"--tls-key", file(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))}
	}
	config := strings.Replace(smarthostConfig, "[delivery]\n", fmt.Sprintf("[delivery]\ntls_roots = %q\n", roots), 1)
	g := startGatewayWith(t, l, config+fmt.Sprintf(connectorConfig, file("proof", proofWord+"\n")))
	shown := identity("mail.service.example")
	const org, proof = "X-OriginatorOrg: contoso.onmicrosoft.example", "X-Provider-Proof: " + proofWord
	send := func(id []string, from, author string, headers ...string) Output {
		t.Helper()
		args := append([]string{"--server", "203.0.113.1:587", "--local-interface", "203.0.113.2", "--tls", "--to", "b@sink.example",
			"--ehlo", "out.service.example", "--from", from, "--h-From", author}, id...)
		for _, h := range headers {
			args = append(args, "--add-header", h)
		}
		out, err := l.Swaks(ctx, HostInternet, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, good := range []struct{ from, author, header string }{
		{"a@customer.example", "A <a@customer.example>", org}, {"<>", "postmaster@customer.example", org},
		{"a@bob.example", "a@bob.example", proof}, {"<>", "a@bob.example", proof},
	} {
		if out := send(shown, good.from, good.author, good.header); out.Code != 0 || !strings.Contains(out.Stdout, "kept as ") {
			t.Errorf("%+v: exit %d\n%s", good, out.Code, out.Stdout)
		}
	}
	login := "no relaying for you: log in first"
	for _, bad := range []struct {
		what, want   string
		id           []string
		from, author string
		headers      []string
	}{
		{"another tenant", "X-OriginatorOrg field is not this tenant's", shown, "a@customer.example", "a@customer.example", []string{"X-OriginatorOrg: evil.onmicrosoft.example"}},
		{"no tenant", "no X-OriginatorOrg field", shown, "a@customer.example", "a@customer.example", nil},
		{"two tenants", "more than one X-OriginatorOrg field", shown, "a@customer.example", "a@customer.example", []string{org, "x-originatororg: evil.onmicrosoft.example"}},
		{"a forged author", "From field names", shown, "a@customer.example", "ceo@bank.example", []string{org}},
		{"a sender of nobody's", "no customer here sends as", shown, "a@elsewhere.example", "a@customer.example", []string{org}},
		{"another customer's sender", "no X-Provider-Proof field", shown, "a@bob.example", "a@bob.example", []string{org}},
		{"no sender, another tenant", "not proved", shown, "<>", "a@customer.example", []string{"X-OriginatorOrg: evil.onmicrosoft.example"}},
		{"a guessed proof", "X-Provider-Proof field is not this tenant's", shown, "a@bob.example", "a@bob.example", []string{"X-Provider-Proof: guessed-guessed-guessed"}},
		{"no certificate", login, nil, "a@customer.example", "a@customer.example", []string{org}},
		{"another certificate", login, identity("mail.evil.example"), "a@customer.example", "a@customer.example", []string{org}},
	} {
		if out := send(bad.id, bad.from, bad.author, bad.headers...); out.Code == 0 || !strings.Contains(out.Stdout, "550 5.7.1") || !strings.Contains(out.Stdout, bad.want) {
			t.Errorf("%s: exit %d, want %q\n%s", bad.what, out.Code, bad.want, out.Stdout)
		}
	}
	all, err := l.Sink("sink").Wait(ctx, 4)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if strings.Contains(string(m.Data), proofWord) {
			t.Errorf("the secret went on: %s", m.Data)
		}
	}
	for _, user := range []string{"alice", "bob"} {
		var ms []json.RawMessage
		if err := sluiceJSON(ctx, g, &ms, "log", "--status", "queued", "--user", user); err != nil || len(ms) != 2 {
			t.Errorf("%d messages of %s were taken, want 2: %v", len(ms), user, err)
		}
	}
}
