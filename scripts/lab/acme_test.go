//go:build labtest

package lab

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
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
%[4]s`

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
	if err := c.Quit(); err != nil { // an address has ten sessions
		t.Fatal(err)
	}
	return st.PeerCertificates[0]
}

// TestACME: an authority certifies the smarthost's name, by HTTP and by TLS; the certificate is renewed, and stays when the
// authority is away. One of the two knows its customers by other means and takes no others.
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
	closed := port == 443
	authority, err := l.Pebble(ctx, ca.server(t, "mx.sink.example", time.Hour).Certificates[0], life, closed)
	if err != nil {
		t.Fatal(err)
	}
	account := ""
	if closed {
		secret := filepath.Join(l.Dir(), "account.secret")
		if err := os.WriteFile(secret, []byte(PebbleKey+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		account = fmt.Sprintf("account = %q\naccount_key_file = %q\n", PebbleAccount, secret)
	}
	g := startGatewayWith(t, l, smarthostConfig+fmt.Sprintf(acmeConfig, port, PebbleDirectory, roots, account))
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
	readableByNobodyElse(t, filepath.Join(g.Dir, "state", "acme"))
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
	same := func(when string) {
		t.Helper()
		if c := shownAt(ctx, t, l); c.SerialNumber.Cmp(second.SerialNumber) != 0 {
			t.Errorf("%s another certificate is shown", when)
		}
	}
	same("without the authority")
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	same("after a restart")
}

// readableByNobodyElse wants the account's key and the certificate below dir, and each file there readable by its owner alone.
func readableByNobodyElse(t *testing.T, dir string) {
	t.Helper()
	keys := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, fi.Mode())
		}
		if d.Name() == "certificate.pem" || filepath.Ext(path) == ".key" {
			keys++
		}
		return nil
	})
	if err != nil || keys != 2 {
		t.Errorf("below %s are %d keys, %v, want the account's and the certificate's", dir, keys, err)
	}
}
