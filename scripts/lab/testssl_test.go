//go:build labtest

package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// finding is one line of testssl's report.
type finding struct{ ID, Severity, Finding string }

// TestClientLegUnderTestssl: a scanner that we did not write, on a customer's host, finds on the client's leg TLS 1.2 and
// 1.3 with forward secrecy and nothing else, tickets, and nothing above LOW.
func TestClientLegUnderTestssl(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	ca := pki(t, l.dir, "mx.selfsigned.example")
	startGateway(t, l, fmt.Sprintf("[tls]\ncertificate = %q\nkey = %q\n", filepath.Join(l.dir, "leg.pem"), filepath.Join(l.dir, "leg.key")))
	report := filepath.Join(l.dir, "testssl.json")
	out, err := l.Run(ctx, "alice", Command{Args: []string{"testssl", "--quiet", "--warnings", "off", "--color", "0", "--jsonfile", report, "--nodns", "min", "--add-ca", ca,
		"--starttls", "smtp", "--ip", "198.51.100.21", "--protocols", "--fs", "--server-defaults", "--server-preference", "--vulnerable", "--std", "mx.selfsigned.example:25"}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("%v: %s%s", err, out.Stdout, out.Stderr)
	}
	var all []finding
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	byID, low, count := map[string]string{}, []string{}, map[string]int{}
	for _, f := range all {
		byID[f.ID] = f.Finding
		if count[f.Severity]++; f.Severity == "LOW" {
			low = append(low, f.ID+": "+f.Finding)
		}
		if f.ID != "engine_problem" && !slices.Contains([]string{"OK", "INFO", "LOW", "DEBUG"}, f.Severity) { // that one is about this host's openssl
			t.Errorf("%s: %s: %s", f.Severity, f.ID, f.Finding)
		}
	}
	if byID["FS"] == "" {
		byID["FS"] = byID["PFS"] // its name in testssl 3.0
	}
	for id, want := range map[string]string{"SSLv2": "not offered", "SSLv3": "not offered", "TLS1": "not offered", "TLS1_1": "not offered", "TLS1_2": "offered", "TLS1_3": "offered",
		"FS": "offered", "cert_chain_of_trust": "passed", "TLS_session_ticket": "valid", "ROBOT": "not vulnerable", "secure_client_renego": "not vulnerable"} {
		if !strings.HasPrefix(byID[id], want) {
			t.Errorf("%s: %q, want %q", id, byID[id], want)
		}
	}
	t.Logf("%d findings: %v; low: %q", len(all), count, low)
	if t.Failed() {
		t.Log(out.Stdout)
	}
}

// pki makes an authority in dir, and in leg.pem and leg.key a certificate of it for a name; it returns the authority's file.
func pki(t *testing.T, dir, name string) (ca string) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	write := func(file, kind string, der []byte) string {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	now := time.Now()
	root := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "Lab authority"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, CRLDistributionPoints: []string{"http://crl.lab.example/lab.crl"}}
	rootKey, leafKey := key(), key()
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	write("leg.pem", "CERTIFICATE", leafDER)
	write("leg.key", "PRIVATE KEY", secret)
	return write("authority.pem", "CERTIFICATE", rootDER)
}
