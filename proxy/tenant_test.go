package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/intercept/flow"
	"sluice/proxy/auth"
)

// service is a mail service with its certificate.
func service(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// newShared starts a smarthost for a service that has two customers, and returns how the service comes.
func newShared(t *testing.T) (r *rig, k *keeper, visit func() *peer) {
	t.Helper()
	shown, roots := service(t, "mail.service.example")
	loop := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	tenants := []Tenant{
		{User: houseUser, Connector: &auth.Connector{Name: "contoso", Ranges: loop, Certificate: "mail.service.example", Field: "X-OriginatorOrg", Values: []string{"contoso.example"}, Domains: []string{"customer.example"}}},
		{User: flow.User{ID: 10, Name: "dave"}, Connector: &auth.Connector{Name: "fabrikam", Ranges: loop, Certificate: "mail.service.example", Field: "X-Proof", Values: []string{"word"}, Secret: true, Domains: []string{"xn--bcher-kva.example"}}},
	}
	r, k = newHouse(t, 0, func(_ *rig, h *House) {
		h.Roots, h.TLS = roots, h.TLS.Clone()
		h.TLS.ClientAuth = tls.RequestClientCert
		h.Tenants = func(a netip.Addr) (all []Tenant) {
			for _, one := range tenants {
				if one.Has(a) {
					all = append(all, one)
				}
			}
			return all
		}
	})
	return r, k, func() *peer {
		p := r.visit()
		p.cmd("EHLO out.service.example", "250")
		p.cmd("STARTTLS", "220")
		p.encrypt(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{shown}})
		p.cmd("EHLO out.service.example", "250")
		return p
	}
}

func TestAServiceHandsInMailOfItsTenants(t *testing.T) {
	t.Parallel()
	r, k, visit := newShared(t)
	p := visit()
	for _, tc := range []struct{ from, header, want string }{
		{"a@customer.example", "X-OriginatorOrg: Contoso.example\r\nFrom: a@customer.example\r\n", "250"},
		{"a@customer.example", "X-OriginatorOrg: evil.example\r\nFrom: a@customer.example\r\n", "550 5.7.1 gw.example: [CONNECTOR]"},
		{"a@bücher.example", "X-Proof: word\r\nFrom: a@xn--bcher-kva.example\r\n", "250"},
		{"", "From: a@xn--bcher-kva.example\r\nX-Proof: word\r\n", "250"},
		{"", "X-OriginatorOrg: contoso.example\r\nFrom: a@customer.example\r\n", "250"},
		{"", "X-OriginatorOrg: contoso.example\r\nFrom: a@elsewhere.example\r\n", "550 5.7.1 gw.example: [CONNECTOR]"},
		{"", "X-Proof: wrong\r\nFrom: a@xn--bcher-kva.example\r\n", "550 5.7.1 gw.example: [CONNECTOR]"},
		{"a@xn--bcher-kva.example", "X-Proof: word\r\nFrom: a@customer.example\r\n", "550 5.7.1 gw.example: [CONNECTOR]"},
	} {
		p.cmd("MAIL FROM:<"+tc.from+"> SMTPUTF8", "250")
		p.cmd("RCPT TO:<b@sink.example>", "250")
		p.send(tc.header+"\r\n..body\r\n", tc.want)
	}
	p.cmd("MAIL FROM:<a@elsewhere.example>", "550 5.7.1 gw.example: [CONNECTOR]")
	p.cmd("QUIT", "221")
	p.closed()
	var got []string
	for _, m := range k.messages() {
		got = append(got, m.login)
		if strings.Contains(m.text, "X-Proof") || !strings.Contains(m.text, "\r\n\r\n.body\r\n") || !m.secure || m.user == 0 {
			t.Errorf("kept %+v", m)
		}
	}
	if strings.Join(got, " ") != "contoso fabrikam fabrikam contoso" {
		t.Errorf("kept of %v", got)
	}
	for i, rec := range r.log.wait(t, 9) {
		if rec.Status == Queued && rec.Flow.User.ID == 0 {
			t.Errorf("message %d is %q's: %v", i, rec.Flow.User.Name, rec.Status)
		}
	}
}

// TestNoOpenRelayForServices: whoever shares the service's addresses, but not its certificate, is a stranger.
func TestNoOpenRelayForServices(t *testing.T) {
	t.Parallel()
	r, k, _ := newShared(t)
	other, _ := service(t, "mail.service.example") // by an authority that nobody trusts
	for _, shown := range [][]tls.Certificate{nil, {other}} {
		p := r.visit()
		p.cmd("EHLO out.service.example", "250")
		p.cmd("STARTTLS", "220")
		p.encrypt(&tls.Config{InsecureSkipVerify: true, Certificates: shown})
		p.cmd("EHLO out.service.example", "250")
		for _, from := range []string{"a@customer.example", ""} {
			p.cmd("MAIL FROM:<"+from+">", "250")
			p.cmd("RCPT TO:<b@sink.example>", "550 5.7.1 gw.example: no relaying for you")
			p.cmd("RSET", "250")
		}
	}
	if len(k.messages()) != 0 {
		t.Errorf("kept %+v", k.messages())
	}
}

func TestAuthorsOfWhoLogsIn(t *testing.T) {
	t.Parallel()
	r, k := newHouse(t, 0, func(_ *rig, h *House) { h.AnyFrom = false })
	for login, headers := range map[string]map[string]string{
		"customer.example": {
			"From: x@customer.example\r\n": "250", "From: x@customer.example, y@CUSTOMER.example\r\n": "250",
			"From: ceo@bank.example\r\n": "550 5.7.1 gw.example: [SENDER]", "From: x@customer.example\r\nFrom: ceo@bank.example\r\n": "550 5.7.1",
			"From: x@customer.example, ceo@bank.example\r\n": "550 5.7.1", "To: x@customer.example\r\n": "550 5.7.1",
			"From: y@else.example\r\nResent-From: x@customer.example\r\n": "250", "From: y@else.example\r\nResent-From: y@else.example\r\n": "550",
			"From: y@else.example\r\nList-Id: <dev.customer.example>\r\n": "250", "From: y@else.example\r\nList-Id: <dev.else.example>\r\n": "550",
		},
		"bob@customer.example": {
			"From: bob@customer.example\r\n": "250", "From: alice@customer.example\r\n": "550 5.7.1",
			"From: y@else.example\r\nList-Id: <dev.customer.example>\r\n": "550",
		},
	} {
		p := r.inTLS()
		p.cmd("AUTH PLAIN "+plain(login, "secret"), "235")
		for header, want := range headers {
			p.cmd("MAIL FROM:<bob@customer.example>", "250")
			p.cmd("RCPT TO:<b@sink.example>", "250")
			p.send(header+"\r\nbody\r\n", want)
		}
	}
	if n := len(k.messages()); n != 5 {
		t.Errorf("%d messages are kept, want 5", n)
	}
}
