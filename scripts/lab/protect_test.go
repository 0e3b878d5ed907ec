//go:build labtest

package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// issuer signs the certificates of a test.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	i.cert = i.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "lab CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, &key.PublicKey, time.Hour)
	return i
}

func (i *issuer) sign(t *testing.T, c, parent *x509.Certificate, key *ecdsa.PublicKey, left time.Duration) *x509.Certificate {
	t.Helper()
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-48*time.Hour), time.Now().Add(left)
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, i.key)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// server is a TLS server's settings with a certificate for a name that is valid for so long.
func (i *issuer) server(t *testing.T, name string, left time.Duration) *tls.Config {
	t.Helper()
	c := i.sign(t, &x509.Certificate{DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature}, i.cert, &i.key.PublicKey, left)
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{c.Raw}, PrivateKey: i.key}}}
}

// protectLab is a gateway with rules for the onward leg, and domains that publish what they ask for.
type protectLab struct {
	l   *Lab
	g   *Gateway
	pub *Published
	ca  *issuer
}

const protectRules = `
[[delivery.protect]]
domain = "required.example"
level = "required"
reason = "contract"
[[delivery.protect]]
domain = "verified.example"
level = "verified"
names = [".peer03.example", "mx.peer05.example"]
reason = "contract"
[dns]
servers = ["` + ValidatingResolver + `"]
`

// startProtectLab starts them, with more settings.
func startProtectLab(t *testing.T, more ...string) *protectLab {
	t.Helper()
	l, ca := ForTest(t, Options{}), newIssuer(t)
	roots := filepath.Join(l.Dir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	pub, err := l.Publish("198.51.100.20:443", func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return &ca.server(t, h.ServerName, time.Hour).Certificates[0], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	g := startGatewayWith(t, l, strings.Replace(GatewayConfig, "[delivery]\n", fmt.Sprintf("[delivery]\ntls_roots = %q\n", roots), 1)+protectRules+strings.Join(more, ""))
	return &protectLab{l, g, pub, ca}
}

// peer gives a scripted host's domain its records and returns the host.
func (p *protectLab) peer(t *testing.T, n int) (s *Sink, domain, address string) {
	t.Helper()
	name := fmt.Sprintf("peer%02d", n)
	domain, address = name+".example", fmt.Sprintf("198.51.100.%d", 100+n)
	p.records(t, domain+". 60 IN MX 10 mx."+domain+".", "mx."+domain+". 60 IN A "+address)
	return p.l.Sink(name), domain, address
}

func (p *protectLab) records(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := p.pub.Record(text); err != nil {
			t.Fatal(err)
		}
	}
}

// sts publishes an MTA-STS policy in mode enforce.
func (p *protectLab) sts(t *testing.T, domain, mx string) {
	t.Helper()
	p.records(t, "_mta-sts."+domain+`. 60 IN TXT "v=STSv1; id=1;"`, "mta-sts."+domain+". 60 IN A 198.51.100.20")
	p.pub.Policy(domain, "version: STSv1\r\nmode: enforce\r\nmax_age: 86400\r\nmx: "+mx+"\r\n")
}

// send sends one message and returns the reply to its recipient, or to the message where he was accepted.
func (p *protectLab) send(ctx context.Context, t *testing.T, address, to string) Reply {
	t.Helper()
	c, err := p.l.Hello(ctx, "alice", "", address+":25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Timeout(time.Minute)
	_, last, err := c.Send("a@alice.example", []string{to}, letter("alice", "onward"))
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// logged is what the message log says of the onward leg.
type logged struct {
	Status    string `json:"status"`
	TLSOut    string `json:"tls_out"`
	TLSTerms  string `json:"tls_terms"`
	TLSTrust  string `json:"tls_trust"`
	TLSPolicy string `json:"tls_policy"`
	TLSResult string `json:"tls_result"`
	Note      string `json:"note"`
}

// last is the log's last line about mail to a recipient.
func (p *protectLab) last(ctx context.Context, t *testing.T, to string) logged {
	t.Helper()
	for {
		var all []logged
		if err := sluiceJSON(ctx, p.g, &all, "log", "--to", to); err != nil {
			t.Fatal(err)
		}
		if len(all) > 0 {
			return all[0]
		}
		if err := sleep(ctx, logPoll); err != nil {
			t.Fatalf("no line about %s: %v", to, err)
		}
	}
}

// reported sends messages, which all have to be taken, until the log tells what their domain asks for: that is found out
// in the background.
func (p *protectLab) reported(ctx context.Context, t *testing.T, address, to string) logged {
	t.Helper()
	for {
		if r := p.send(ctx, t, address, to); r.Code != 250 {
			t.Fatalf("a report refuses mail: %s", r)
		}
		if l := p.last(ctx, t, to); l.TLSPolicy != "" {
			return l
		}
		if err := sleep(ctx, logPoll); err != nil {
			t.Fatalf("no report on %s: %v", to, err)
		}
	}
}

// tlsa is a record that names a server's key.
func tlsaOf(host string, c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "_25._tcp." + host + ". 60 IN TLSA 3 1 1 " + hex.EncodeToString(sum[:])
}

func (p *protectLab) want(ctx context.Context, t *testing.T, address, to, policy, result, trust string) {
	t.Helper()
	l := p.reported(ctx, t, address, to)
	if l.TLSPolicy != policy || !strings.Contains(l.TLSResult, result) || result == "" && l.TLSResult != "" || !strings.Contains(l.TLSTrust, trust) || l.Status != "delivered" {
		t.Errorf("%s: %+v, want %q with %q, trust %q", to, l, policy, result, trust)
	}
}

// TestOnwardEncryption: what domains publish is reported and refuses nothing; what the operator demands is met or 451; and
// destinations that break TLS still get their mail.
func TestOnwardEncryption(t *testing.T) {
	t.Parallel()
	p := startProtectLab(t)
	for name, test := range map[string]func(*protectLab, context.Context, *testing.T){
		"DANE": testDANE, "MTA-STS": testMTASTS, "expired": testExpired, "old": testOldTLS, "hangs": testHangingTLS, "refused": testRefusedTLS, "apart": testTermsApart, "postfix": testPostfixDANE,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(p, testContext(t), t)
		})
	}
}

func testDANE(p *protectLab, ctx context.Context, t *testing.T) {
	right, domain, address := p.peer(t, 1)
	wrong, domain2, address2 := p.peer(t, 2)
	right.Encrypt(nil)
	wrong.Encrypt(nil)
	st, err := p.l.Certificate(ctx, HostInternet, address+":25")
	if err != nil {
		t.Fatal(err)
	}
	p.pub.Sign(domain)
	p.pub.Sign(domain2)
	p.records(t, tlsaOf("mx."+domain, st.PeerCertificates[0]), tlsaOf("mx."+domain2, p.ca.cert))
	p.want(ctx, t, address, "u@"+domain, "dane", "ok", "self-signed")
	p.want(ctx, t, address2, "u@"+domain2, "dane", "no TLSA record matches", "self-signed")
	for domain, want := range map[string]string{domain: "dane", domain2: "dane", "peer03.example": "opportunistic"} {
		if domain == "peer03.example" {
			continue // that is testMTASTS's to publish
		}
		if out := sluice(t, p.g, "tls", "policy", domain); !strings.Contains(out, want) || !strings.Contains(out, "vouched for by DNSSEC") || !strings.Contains(out, "3 1 1 ") {
			t.Errorf("sluice tls policy %s: %s", domain, out)
		}
	}
	p.pub.Forge("forged.example")
	out, err := p.g.Sluice(ctx, "tls", "policy", "forged.example")
	if err != nil || out.Code != 1 || !strings.Contains(out.Stderr, "SERVFAIL") {
		t.Errorf("a forged domain: %v, %+v", err, out)
	}
	if l := p.reported(ctx, t, address, "u@forged.example"); l.TLSPolicy != "unknown" || l.Status != "delivered" {
		t.Errorf("a forged domain is reported as %+v", l)
	}
}

func testMTASTS(p *protectLab, ctx context.Context, t *testing.T) {
	right, domain, address := p.peer(t, 3)
	wrong, domain2, address2 := p.peer(t, 4)
	right.Encrypt(p.ca.server(t, "mx."+domain, time.Hour))
	wrong.Encrypt(nil)
	p.sts(t, domain, "*."+domain)
	p.sts(t, domain2, "mx."+domain2)
	p.want(ctx, t, address, "u@"+domain, "mta-sts enforce", "ok", "trusted for mx."+domain)
	p.want(ctx, t, address2, "u@"+domain2, "mta-sts enforce", "self-signed", "self-signed")
	if r := p.send(ctx, t, address, "u@verified.example"); r.Code != 250 {
		t.Errorf("a certificate as the rule demands: %s", r)
	}
	if l := p.last(ctx, t, "u@verified.example"); !strings.HasPrefix(l.TLSTerms, "verified (setting)") {
		t.Errorf("%+v", l)
	}
	if out := sluice(t, p.g, "tls", "policy", domain); !strings.Contains(out, "enforce, id 1") {
		t.Errorf("sluice tls policy: %s", out)
	}
	var st struct {
		Onward struct {
			Enforced struct{ OK, Failed uint64 } `json:"mta_sts_enforce"`
		} `json:"onward"`
	}
	if err := sluiceJSON(ctx, p.g, &st, "status"); err != nil || st.Onward.Enforced.OK == 0 || st.Onward.Enforced.Failed == 0 {
		t.Errorf("status: %+v, %v", st, err)
	}
}

func testExpired(p *protectLab, ctx context.Context, t *testing.T) {
	s, _, address := p.peer(t, 5)
	s.Encrypt(p.ca.server(t, "mx.peer05.example", -time.Hour))
	if r := p.send(ctx, t, address, "u@peer05.example"); r.Code != 250 || !s.Messages()[0].TLS {
		t.Errorf("any certificate is better than none: %s", r)
	}
	r := p.send(ctx, t, address, "strict05@verified.example")
	if r.Code != 451 || !strings.Contains(r.Raw, "451 4.7.5 gw.example: the destination's certificate is not what is required: a certificate of the chain is not valid now") {
		t.Errorf("an expired certificate where a valid one is demanded: %s", r)
	}
	if n := len(s.Messages()); n != 1 {
		t.Errorf("%d messages arrived", n)
	}
}

func testOldTLS(p *protectLab, ctx context.Context, t *testing.T) {
	s, _, address := p.peer(t, 6)
	cfg := p.ca.server(t, "mx.peer06.example", time.Hour)
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	s.Encrypt(cfg)
	var some [4]*Client // at once: each leaves an onward session in plain text for the next mail (DEL13)
	for i := range some {
		c, err := p.l.Hello(ctx, "alice", "", address+":25")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, r, err := c.Send("a@alice.example", []string{"u@peer06.example"}, letter("alice", "onward")); err != nil || r.Code != 250 {
			t.Errorf("%s, %v", r, err)
		}
		some[i] = c
	}
	for _, c := range some {
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	}
	if m := s.Messages(); len(m) != len(some) || m[0].TLS || len(s.Sessions()) > len(some)+2 {
		t.Errorf("%d messages in %d sessions: the handshake is tried each time", len(m), len(s.Sessions()))
	}
	if r := p.send(ctx, t, address, "old@required.example"); r.Code != 451 || !strings.Contains(r.Raw, "encryption is required, and the handshake with the destination fails") {
		t.Errorf("%s", r)
	}
	if out := sluice(t, p.g, "tls", "broken"); !strings.Contains(out, address+":25") || !strings.Contains(out, "protocol version") {
		t.Errorf("sluice tls broken: %s", out)
	}
	s.Encrypt(p.ca.server(t, "mx.peer06.example", time.Hour))
	sluice(t, p.g, "tls", "retry", address)
	if r := p.send(ctx, t, address, "again@peer06.example"); r.Code != 250 || !s.Messages()[len(some)].TLS {
		t.Errorf("after it was mended: %s", r)
	}
	if out := sluice(t, p.g, "tls", "broken"); strings.Contains(out, address+":25") {
		t.Errorf("sluice tls broken: %s", out)
	}
}

func testHangingTLS(p *protectLab, ctx context.Context, t *testing.T) {
	s, _, address := p.peer(t, 7)
	s.Encrypt(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		<-ctx.Done() // says nothing until the test is over
		return nil, ctx.Err()
	}})
	if r := p.send(ctx, t, address, "u@peer07.example"); r.Code != 250 || s.Messages()[0].TLS {
		t.Errorf("%s", r)
	}
	began := time.Now()
	if r := p.send(ctx, t, address, "u@peer07.example"); r.Code != 250 || time.Since(began) > 20*time.Second {
		t.Errorf("the second mail waits %v: %s", time.Since(began), r)
	}
}

func testRefusedTLS(p *protectLab, ctx context.Context, t *testing.T) {
	s, _, address := p.peer(t, 8)
	s.Encrypt(nil)
	if err := s.Script("starttls: reply 454 4.7.0 TLS not available just now"); err != nil {
		t.Fatal(err)
	}
	if r := p.send(ctx, t, address, "u@peer08.example"); r.Code != 250 || s.Messages()[0].TLS {
		t.Errorf("%s", r)
	}
	if r := p.send(ctx, t, address, "refused@required.example"); r.Code != 451 || !strings.Contains(r.Raw, "4.7.5 gw.example: encryption is required, and the destination refuses it") {
		t.Errorf("%s", r)
	}
	if err := s.Script(); err != nil {
		t.Fatal(err)
	}
	if r := p.send(ctx, t, address, "refused@required.example"); r.Code != 250 || !s.Messages()[1].TLS {
		t.Errorf("refused for a moment only, and remembered: %s", r)
	}
	_, _, bare := p.peer(t, 9) // offers nothing
	if r := p.send(ctx, t, bare, "bare@required.example"); r.Code != 451 || !strings.Contains(r.Raw, "does not offer it") {
		t.Errorf("%s", r)
	}
}

// testTermsApart: a recipient whose mail must be more than the first one's comes in a message of his own.
func testTermsApart(p *protectLab, ctx context.Context, t *testing.T) {
	s, domain, address := p.peer(t, 10)
	s.Encrypt(nil)
	c, err := p.l.Hello(ctx, "alice", "", address+":25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, to := range [][]string{{"u@" + domain, "v@required.example", "w@" + domain}, {"v@required.example", "x@" + domain}} {
		rcpts, last, err := c.Send("a@alice.example", to, letter("alice", "apart"))
		if err != nil || last.Code != 250 {
			t.Fatalf("%v, %v", last, err)
		}
		for i, r := range rcpts {
			want := "250 "
			if i > 0 && strings.HasPrefix(to[i], "v@") {
				want = "452 4.5.3 gw.example: "
			}
			if !strings.HasPrefix(r.Raw, want) {
				t.Errorf("%s beside %s hears %s", to[i], to[0], r)
			}
		}
	}
	if m := s.Messages(); len(m) != 2 || len(m[0].Rcpts) != 2 || len(m[1].Rcpts) != 2 {
		t.Errorf("%d messages arrived", len(m))
	}
}

func testPostfixDANE(p *protectLab, ctx context.Context, t *testing.T) {
	if _, err := p.l.MX(ctx, "postfix"); err != nil {
		t.Fatal(err)
	}
	const address = "198.51.100.10"
	st, err := p.l.Certificate(ctx, HostInternet, address+":25")
	if err != nil {
		t.Fatal(err)
	}
	for domain, cert := range map[string]*x509.Certificate{"postfix.example": st.PeerCertificates[0], "tls4.postfix.example": p.ca.cert} {
		p.pub.Sign(domain)
		p.records(t, domain+". 60 IN MX 10 mx."+domain+".", "mx."+domain+". 60 IN A "+address, tlsaOf("mx."+domain, cert))
	}
	p.want(ctx, t, address, "archive@postfix.example", "dane", "ok", "")
	p.want(ctx, t, address, "archive@tls4.postfix.example", "dane", "no TLSA record matches", "")
}
