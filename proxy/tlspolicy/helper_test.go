package tlspolicy

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/netip"
	"sync"
	"testing"
	"time"
)

var at = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// issued is what a certificate of a test is like.
type issued struct {
	names  []string
	common string
	from   time.Time // at less a day unless told
	until  time.Time // at plus a day unless told
	ca     bool
}

// issue makes a certificate signed by a; nil signs itself.
func (a *authority) issue(o issued) *authority {
	if o.until.IsZero() {
		o.until = at.Add(24 * time.Hour)
	}
	if o.from.IsZero() {
		o.from = at.Add(-24 * time.Hour)
	}
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	t := &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, big.NewInt(1<<60))), Subject: pkix.Name{CommonName: o.common, SerialNumber: time.Now().String()}, DNSNames: o.names,
		NotBefore: o.from, NotAfter: o.until, IsCA: o.ca, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if o.ca {
		t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageCertSign, nil
	}
	parent, signer := t, crypto.Signer(key)
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der := must(x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer))
	return &authority{must(x509.ParseCertificate(der)), key}
}

func newCA() *authority { return (*authority)(nil).issue(issued{common: "Test CA", ca: true}) }

func (a *authority) pool() *x509.CertPool { return pool([]*x509.Certificate{a.cert}) }

// state is a connection to a server that shows the certificates.
func state(chain ...*authority) *tls.ConnectionState {
	st := &tls.ConnectionState{Version: tls.VersionTLS13}
	for _, c := range chain {
		st.PeerCertificates = append(st.PeerCertificates, c.cert)
	}
	return st
}

// record makes the TLSA record of a certificate.
func record(usage, selector, matching uint8, c *authority) TLSA {
	data := c.cert.Raw
	if selector == 1 {
		data = c.cert.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return TLSA{usage, selector, matching, data}
}

// zone is a small DNS. What is not in it does not exist, securely where the whole zone is secure.
type zone struct {
	mu      sync.Mutex
	answers map[zoneKey]Answer
	fail    map[zoneKey]bool
	absent  bool // whether DNSSEC vouches for what is not there
	asked   map[zoneKey]int
}

type zoneKey struct {
	name string
	kind Kind
}

func newZone() *zone {
	return &zone{answers: map[zoneKey]Answer{}, fail: map[zoneKey]bool{}, absent: true, asked: map[zoneKey]int{}}
}

func (z *zone) set(name string, k Kind, a Answer) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if a.Name == "" {
		a.Name = name
	}
	if a.TTL == 0 {
		a.TTL = 10 * time.Minute
	}
	z.answers[zoneKey{name, k}] = a
}

func (z *zone) times(name string, k Kind) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[zoneKey{name, k}]
}

func (z *zone) Look(_ context.Context, name string, k Kind) (Answer, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	key := zoneKey{name, k}
	z.asked[key]++
	if z.fail[key] {
		return Answer{}, errors.New("SERVFAIL")
	}
	if a, ok := z.answers[key]; ok {
		return a, nil
	}
	return Answer{Name: name, Secure: z.absent, TTL: time.Minute}, nil
}

// domain gives a domain one exchanger with one address.
func (z *zone) domain(domain, mx, addr string, secure bool) {
	z.set(domain, MXs, Answer{Secure: secure, MX: []MX{{Host: mx, Preference: 10}}})
	z.set(mx, Addresses, Answer{Secure: secure, Addrs: []netip.Addr{netip.MustParseAddr(addr)}})
}

func (z *zone) tlsa(host string, secure bool, r ...TLSA) {
	z.set("_25._tcp."+host, Records, Answer{Secure: secure, TLSA: r})
}

// files are the policies of web servers.
type files struct {
	mu      sync.Mutex
	m       map[string]string
	fetched int
}

func (f *files) set(domain, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.m[domain] = text
}

func (f *files) Fetch(_ context.Context, domain string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fetched++
	if t, ok := f.m[domain]; ok {
		return []byte(t), nil
	}
	return nil, errors.New("the web server answered 404")
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// rig is a Finder with everything that it asks.
type rig struct {
	zone  *zone
	files *files
	clock *clock
	ca    *authority
	*Finder
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{zone: newZone(), files: &files{m: map[string]string{}}, clock: &clock{t: at}, ca: newCA()}
	f, err := NewFinder(Options{DNS: r.zone, Fetch: r.files, Roots: r.ca.pool(), Now: r.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	r.Finder = f
	return r
}

func (r *rig) policy(domain, id, text string) {
	r.zone.set("_mta-sts."+domain, Texts, Answer{Texts: []string{"v=STSv1; id=" + id + ";"}})
	r.files.set(domain, text)
}

func sts(mode string, age string, mx ...string) string {
	s := "version: STSv1\r\nmode: " + mode + "\r\nmax_age: " + age + "\r\n"
	for _, m := range mx {
		s += "mx: " + m + "\r\n"
	}
	return s
}
