package cert

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// trusting is a client that trusts nothing but the authority, and asks for a name.
func trusting(a *Authority, name string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM())
	return &tls.Config{RootCAs: roots, ServerName: name}
}

// meet has a client shake hands with the store.
func meet(t *testing.T, cfg, c *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	srv := tls.Server(a, cfg)
	done := make(chan error, 1)
	go func() {
		err := srv.Handshake()
		if err == nil {
			_, err = srv.Write([]byte("x")) // a client reads its ticket before
		}
		done <- err
		a.Close()
	}()
	cl := tls.Client(b, c)
	err := cl.Handshake()
	if err == nil {
		_, err = cl.Read(make([]byte, 1))
	}
	b.Close()
	<-done
	return cl.ConnectionState(), err
}

// TestAuthorityCertifiesWhatIsAskedFor: a client that trusts the authority verifies the name it asked for; names outside
// and clients without a name get the other certificate.
func TestAuthorityCertifiesWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Name: "gw.example", Dir: t.TempDir(), Domains: []string{"customers.example", "b.test.example"}})
	a := s.Authority()
	for _, name := range []string{"mx.customers.example", "customers.example", "a-b.c.b.test.example", "MX.Customers.Example"} {
		if _, err := meet(t, s.Config(), trusting(a, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := strings.Repeat("a23456789.", 10) + "customers.example"
	if _, err := meet(t, s.Config(), trusting(a, long)); err != nil {
		t.Errorf("a name longer than a common name may be: %v", err)
	}
	if n := a.Leaves(); n != 4 {
		t.Errorf("%d certificates are in memory", n)
	}
	for _, name := range []string{"mx.other.example", "customers.example.evil.example", "evilcustomers.example", "test.example", "", "-x.customers.example", "a..customers.example",
		"*.customers.example", "192.0.2.1", strings.Repeat("x", 64) + ".customers.example", strings.Repeat("abcdefgh.", 30) + "customers.example", "mx.customers.example\x00.evil.example"} {
		if c, err := s.Certificate(&tls.ClientHelloInfo{ServerName: name}); err != nil || c.Leaf.DNSNames[0] != "gw.example" {
			t.Errorf("%q is certified: %v %v", name, c.Leaf.DNSNames, err)
		}
	}
	if c, err := s.Certificate(&tls.ClientHelloInfo{}); err != nil || c.Leaf.DNSNames[0] != "gw.example" {
		t.Errorf("without a name: %v", err)
	}
}

// TestAuthorityIsConstrained: with the authority's key in the wrong hands, who trusts it believes no other name and no
// address.
func TestAuthorityIsConstrained(t *testing.T) {
	t.Parallel()
	a := open(t, Options{Name: "gw.example", Dir: t.TempDir(), Domains: []string{"customers.example"}}).Authority()
	forge := func(change func(*x509.Certificate)) error {
		tpl := template(time.Now(), time.Hour)
		tpl.KeyUsage, tpl.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		change(tpl)
		der, err := x509.CreateCertificate(nil, tpl, a.cert, a.leaf.Public(), a.key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(a.cert)
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots})
		return err
	}
	if err := forge(func(c *x509.Certificate) { c.DNSNames = []string{"mx.customers.example"} }); err != nil {
		t.Errorf("a good name: %v", err)
	}
	for what, change := range map[string]func(*x509.Certificate){
		"another name":   func(c *x509.Certificate) { c.DNSNames = []string{"bank.example"} },
		"one beside":     func(c *x509.Certificate) { c.DNSNames = []string{"mx.customers.example", "bank.example"} },
		"an address":     func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP("192.0.2.1")} },
		"an IPv6 one":    func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP("2001:db8::1")} },
		"code to be run": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} },
	} {
		if forge(change) == nil {
			t.Errorf("%s is believed", what)
		}
	}
	if !a.cert.PermittedDNSDomainsCritical || a.cert.MaxPathLen != 0 || a.cert.KeyUsage != x509.KeyUsageCertSign {
		t.Error("the authority's certificate allows too much")
	}
}

// TestAuthorityIsKept: over a restart it is the same; with other domains it has another certificate of the same key and
// name; its file is the proxy's own, and a broken one is told instead of replaced.
func TestAuthorityIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := Options{Name: "gw.example", Dir: dir, Domains: []string{"b.example.org", "a.example.org"}}
	first := open(t, o).Authority()
	o.Domains = []string{"a.example.org", "b.example.org"}
	if again := open(t, o).Authority(); again.Fingerprint() != first.Fingerprint() {
		t.Error("after a restart it is another one")
	}
	o.Domains, o.Name = []string{"a.example.org", "c.example.org"}, "gw2.example"
	wider := open(t, o)
	if w := wider.Authority(); w.Fingerprint() == first.Fingerprint() || w.Domains()[1] != "c.example.org" {
		t.Error("with other domains it is the same")
	}
	// Who has the old certificate still believes what that one allows.
	if _, err := meet(t, wider.Config(), trusting(first, "mx.a.example.org")); err != nil {
		t.Errorf("who trusted the old certificate: %v", err)
	}
	if _, err := meet(t, wider.Config(), trusting(first, "mx.c.example.org")); err == nil {
		t.Error("who trusted the old certificate believes a domain that it did not allow")
	}
	file := filepath.Join(dir, "ca.pem")
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v %v", st, err)
	}
	if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "restore it, or remove it") {
		t.Errorf("a broken file: %v", err)
	}
	o.Dir = ""
	if _, err := New(o); err == nil {
		t.Error("an authority without a folder")
	}
}

// TestAuthorityIsBounded: many names do not fill the memory, the oldest give way, and what is old is made anew.
func TestAuthorityIsBounded(t *testing.T) {
	t.Parallel()
	a := open(t, Options{Name: "gw.example", Dir: t.TempDir(), Domains: []string{"customers.example"}}).Authority()
	first := a.certificate("first.customers.example")
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 300 {
				a.certificate(fmt.Sprintf("mx%d.customers.example", w*300+i))
				a.certificate("first.customers.example")
			}
		})
	}
	wg.Wait()
	if n := a.Leaves(); n != mostLeaves || len(a.leaves) != n {
		t.Errorf("%d certificates, %d names", n, len(a.leaves))
	}
	if a.certificate("first.customers.example") != first {
		t.Error("the one in use gave way")
	}
	a.now = func() time.Time { return time.Now().Add(leafLifetime - leafRenewal + time.Hour) }
	if a.certificate("first.customers.example") == first {
		t.Error("an old one is shown")
	}
}

// TestTicketsResumeAndTurn: a client that comes again resumes, whichever version it speaks, until the keys have turned
// three times.
func TestTicketsResumeAndTurn(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := open(t, Options{Name: "gw.example"})
		cfg, turns := s.Config(), &tickets{}
		now := time.Now()
		cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { turns.turn(cfg, now); return nil, nil }
		cache := tls.NewLRUClientSessionCache(1)
		client := &tls.Config{InsecureSkipVerify: true, MaxVersion: version, ClientSessionCache: cache}
		resumed := func() bool {
			st, err := meet(t, cfg, client)
			if err != nil {
				t.Fatal(err)
			}
			return st.DidResume
		}
		if resumed() || !resumed() {
			t.Errorf("%s: no resumption", tls.VersionName(version))
		}
		for i := 1; i <= ticketKeys; i++ {
			now = now.Add(ticketTurn + time.Minute)
			turns.turn(cfg, now)
		}
		if len(turns.keys) != ticketKeys {
			t.Errorf("%d keys", len(turns.keys))
		}
		if resumed() {
			t.Errorf("%s: a ticket is taken after %d turns", tls.VersionName(version), ticketKeys)
		}
		if !resumed() {
			t.Errorf("%s: no resumption after the keys have turned", tls.VersionName(version))
		}
		now = now.Add(10 * ticketTurn)
		if resumed() || len(turns.keys) != 1 {
			t.Errorf("%s: after a long silence %d keys", tls.VersionName(version), len(turns.keys))
		}
	}
}
