//go:build labtest

package lab

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// acmeConfig has a smarthost whose name an authority certifies.
const acmeConfig = `
[tls.acme]
listen = ["203.0.113.1:%[1]d", "[2001:db8:203::1]:%[1]d"]
directory = "%[2]s"
contact = "hostmaster@provider.example"
agree = true
roots = "%[3]s"
`

// shownAt is the certificate that the smarthost shows.
func shownAt(ctx context.Context, t *testing.T, l *Lab) *x509.Certificate {
	t.Helper()
	c, err := l.SMTP(ctx, HostInternet, "", "203.0.113.1:587")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Cmd("EHLO client.example"); err != nil {
		t.Fatal(err)
	}
	st, err := c.StartTLS()
	if err != nil {
		t.Fatal(err)
	}
	return st.PeerCertificates[0]
}

// TestACME: an authority certifies the smarthost's name, by HTTP and by TLS; the certificate is renewed, and stays when the
// authority is away.
func TestACME(t *testing.T) {
	t.Parallel()
	for _, port := range []int{80, 443} {
		t.Run(fmt.Sprint("port ", port), func(t *testing.T) { t.Parallel(); certifies(t, port) })
	}
}

func certifies(t *testing.T, port int) {
	ctx, l := testContext(t), ForTest(t, Options{})
	ca := newIssuer(t)
	roots := filepath.Join(l.Dir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	const life = 12 * time.Second // renewed every 8 s
	authority, err := l.Pebble(ctx, ca.server(t, "mx.sink.example", time.Hour).Certificates[0], life)
	if err != nil {
		t.Fatal(err)
	}
	g := startGatewayWith(t, l, smarthostConfig+fmt.Sprintf(acmeConfig, port, PebbleDirectory, roots))
	until := func(what string, good func(*x509.Certificate) bool) *x509.Certificate {
		t.Helper()
		for {
			if c := shownAt(ctx, t, l); good(c) {
				return c
			}
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
				t.Fatal(what)
			}
		}
	}
	first := until("no certificate of the authority comes", func(c *x509.Certificate) bool { return strings.Contains(c.Issuer.CommonName, "Pebble") })
	if err := first.VerifyHostname("smtp.provider.example"); err != nil {
		t.Error(err)
	}
	files, err := filepath.Glob(filepath.Join(g.Dir, "state", "acme", "*.pem"))
	if err != nil || len(files) != 2 {
		t.Fatalf("the state holds %v, %v", files, err)
	}
	for _, f := range files {
		if fi, err := os.Stat(f); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, fi.Mode(), err)
		}
	}
	second := until("it is not renewed", func(c *x509.Certificate) bool { return c.SerialNumber.Cmp(first.SerialNumber) != 0 })
	if err := authority.Kill(); err != nil {
		t.Fatal(err)
	}
	for {
		out, err := g.Sluice(ctx, "doctor")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.Stdout, "could not get a certificate for [smtp.provider.example]") && strings.Contains(out.Stdout, "until then the old certificate is shown") {
			break
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the doctor does not say that the authority is away: %s", out.Stdout)
		}
	}
	if c := shownAt(ctx, t, l); c.SerialNumber.Cmp(second.SerialNumber) != 0 {
		t.Error("without the authority another certificate is shown")
	}
}
