package cert

import (
	"container/list"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/proxy/durable"
)

// Lifetimes of the authority and of what it certifies. Whoever trusts one of its certificates trusts the next, too, as far
// as that goes: the key and the name stay.
const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	caRenewal    = 365 * 24 * time.Hour
	leafLifetime = 150 * 24 * time.Hour
	leafRenewal  = leafLifetime / 2
	mostLeaves   = 1024 // in memory; about 2 KiB each
)

// Authority makes certificates for the names that clients ask for, inside of its domains only: its own certificate says
// so (RFC 5280 4.2.1.10), and clients that trust it believe it nothing else. It is safe for concurrent use.
type Authority struct {
	domains []string
	cert    *x509.Certificate
	key     crypto.Signer
	now     func() time.Time

	mu     sync.Mutex
	leaf   *ecdsa.PrivateKey // of all leaves: a new one with each start
	leaves map[string]*list.Element
	recent list.List // of *made, the most recently used first
}

// made is a certificate in memory.
type made struct {
	name string
	cert *tls.Certificate
}

// caFile holds key and certificate of the authority, readable by the proxy's user only.
const caFile = "ca.pem"

// newAuthority takes the authority's key from dir, or makes one, and a certificate for exactly these domains.
func newAuthority(gateway, dir string, domains []string, now func() time.Time) (*Authority, error) {
	a := &Authority{domains: slices.Sorted(slices.Values(domains)), now: now, leaves: map[string]*list.Element{}}
	if dir == "" {
		return nil, errors.New("could not make an authority for clients' certificates: it has no folder to keep its key; set one")
	}
	file := filepath.Join(dir, caFile)
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("could not read the authority for clients' certificates: %w; make it readable or remove it", err)
	}
	if err == nil {
		if err := a.take(b); err != nil {
			return nil, fmt.Errorf("could not use the authority in %s: %w; restore it, or remove it and have clients trust the new one", file, err)
		}
	}
	if a.leaf, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if a.cert != nil && slices.Equal(a.cert.PermittedDNSDomains, a.domains) && a.cert.NotAfter.Sub(now()) >= caRenewal {
		return a, nil
	}
	if b, err = a.certify(gateway); err != nil {
		return nil, fmt.Errorf("could not make an authority for clients' certificates: %w", err)
	}
	if err := durable.WriteFile(file, b, 0o600); err != nil {
		return nil, fmt.Errorf("could not keep the authority for clients' certificates: %w; give a state directory the proxy's user may write", err)
	}
	return a, nil
}

// take reads key and certificate.
func (a *Authority) take(b []byte) error {
	pair, err := tls.X509KeyPair(b, b)
	if err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		return err
	}
	var ok bool
	if a.key, ok = pair.PrivateKey.(crypto.Signer); !ok || !a.cert.IsCA {
		return errors.New("it holds no authority's key")
	}
	return nil
}

// certify makes the authority's own certificate, with the key and the name that it has, and returns both as PEM.
func (a *Authority) certify(gateway string) ([]byte, error) {
	t := template(a.now(), caLifetime)
	if a.cert != nil {
		t.RawSubject = a.cert.RawSubject // another name would be another authority
	} else {
		t.Subject = pkix.Name{CommonName: "Sluice at " + gateway}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		a.key = key
	}
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	t.PermittedDNSDomainsCritical, t.PermittedDNSDomains = true, a.domains
	t.ExcludedIPRanges = []*net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, err
	}
	return append(a.PEM(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...), nil
}

// template is what all our certificates have in common.
func template(now time.Time, lifetime time.Duration) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // never fails
	return &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    now.Add(-time.Hour), // clients' clocks are not all right
		NotAfter:     now.Add(lifetime),
	}
}

// PEM is the authority's certificate, for clients to trust.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Domains are those that the authority may certify.
func (a *Authority) Domains() []string { return slices.Clone(a.domains) }

// NotAfter is the end of its certificate.
func (a *Authority) NotAfter() time.Time { return a.cert.NotAfter }

// Fingerprint is the SHA-256 digest of its certificate, in hexadecimal digits.
func (a *Authority) Fingerprint() string { return fmt.Sprintf("%x", sha256.Sum256(a.cert.Raw)) }

// Leaves is how many certificates are in memory.
func (a *Authority) Leaves() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.recent.Len()
}

// certificate gives the one for the name that a client asks for, or nil where the authority may not certify it.
func (a *Authority) certificate(sni string) *tls.Certificate {
	name := strings.ToLower(strings.TrimSuffix(sni, "."))
	if !a.covers(name) {
		return nil
	}
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.leaves[name]; e != nil {
		if c := e.Value.(*made).cert; c.Leaf.NotAfter.Sub(now) >= leafRenewal {
			a.recent.MoveToFront(e)
			return c
		}
		a.forget(e)
	}
	c, err := a.make(name, now)
	if err != nil {
		return nil // there is always the other one
	}
	if a.recent.Len() >= mostLeaves {
		a.forget(a.recent.Back())
	}
	a.leaves[name] = a.recent.PushFront(&made{name, c})
	return c
}

// forget drops a certificate; a.mu is held.
func (a *Authority) forget(e *list.Element) {
	delete(a.leaves, e.Value.(*made).name)
	a.recent.Remove(e)
}

// covers tells whether the name is a host inside of the domains.
func (a *Authority) covers(name string) bool {
	if len(name) > 253 || strings.ContainsFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '.')
	}) {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return slices.ContainsFunc(a.domains, func(d string) bool { return name == d || strings.HasSuffix(name, "."+d) })
}

// make certifies a name; one signature, with a key that is there.
func (a *Authority) make(name string, now time.Time) (*tls.Certificate, error) {
	t := template(now, leafLifetime)
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	if len(name) <= 64 { // the bound of a common name (RFC 5280 A.1)
		t.Subject.CommonName = name
	}
	t.DNSNames = []string{name}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, a.leaf.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: a.leaf, Leaf: leaf}, nil
}
