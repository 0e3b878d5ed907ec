package main

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"

	"sluice/cmd/internal/api"
)

// TestAuthorityFollowsTheConfiguration: there is none unless domains are named; a reload makes it, and it certifies what
// clients ask for.
func TestAuthorityFollowsTheConfiguration(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "")
	g.start()
	ask(g, "GET", "/v1/authority", nil, http.StatusNotFound, "tls.ca_domains")
	g.configure("[tls]\nca_domains = [\"customers.example\"]\n")
	if err := g.daemon.reload(); err != nil {
		t.Fatal(err)
	}
	shown, err := g.daemon.clientTLS().GetCertificate(&tls.ClientHelloInfo{ServerName: "mx.customers.example"})
	if err != nil || shown.Leaf.VerifyHostname("mx.customers.example") != nil {
		t.Errorf("a client that asks for a name sees %v %v", shown.Leaf.DNSNames, err)
	}
	a := get[api.Authority](g, "/v1/authority")
	if a.Leaves != 1 || len(a.Domains) != 1 || len(a.Fingerprint) != 64 || !strings.HasPrefix(a.PEM, "-----BEGIN CERTIFICATE-----") || strings.Contains(a.PEM, "PRIVATE") {
		t.Errorf("told is %+v", a)
	}
	g.end()
	g.start()
	if again := get[api.Authority](g, "/v1/authority"); again.Fingerprint != a.Fingerprint {
		t.Error("a restart makes another one")
	}
	g.end()
}
