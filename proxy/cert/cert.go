// Package cert keeps the certificate that clients see when they encrypt their leg.
package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"sluice/proxy/durable"
)

// Options say where the certificate comes from.
type Options struct {
	Name string // gateway name; the self-made certificate is for it
	// CertFile and KeyFile are PEM files of the operator's own certificate; both or none.
	CertFile, KeyFile string
	// Dir keeps the self-made certificate when there is no CertFile, so that clients that remember it see the same one
	// after a restart. "" keeps it in memory only. The authority's key is there, too.
	Dir string
	// Domains are those inside of which an authority of our own makes a certificate for the name that a client asks for.
	Domains []string
}

// Lifetimes of the self-made certificate: nobody verifies it, but some clients refuse one that has expired.
const (
	lifetime = 397 * 24 * time.Hour
	renewal  = 30 * 24 * time.Hour
	recheck  = 10 * time.Second // how often changed files are looked for, at most
)

// Store holds the certificate in force. It is safe for concurrent use.
type Store struct {
	o       Options
	now     func() time.Time
	current atomic.Pointer[tls.Certificate]
	checked atomic.Int64 // unix nanoseconds of the last look at the files
	reload  sync.Mutex
	stamp   time.Time // modification time of the loaded files; under reload
	failed  atomic.Pointer[error]
	ca      *Authority // nil: none
}

// New loads or makes the certificate.
func New(o Options) (*Store, error) {
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, errors.New("could not load the certificate: only one of certificate file and key file is set; set both or none")
	}
	if o.CertFile == "" && o.Name == "" {
		return nil, errors.New("could not make a certificate: the gateway has no name; set it")
	}
	s := &Store{o: o, now: time.Now}
	if len(o.Domains) > 0 {
		var err error
		if s.ca, err = newAuthority(o.Name, o.Dir, o.Domains, s.now); err != nil {
			return nil, err
		}
	}
	return s, s.Reload()
}

// Authority makes certificates for the names that clients ask for; nil where there is none.
func (s *Store) Authority() *Authority { return s.ca }

// Config returns the settings of the client leg: TLS 1.2 or newer, forward secrecy, no client certificate asked, tickets
// whose keys turn. get is Certificate of this store or of its successors.
func Config(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	cfg := &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		DynamicRecordSizingDisabled: true, // bodies and replies leave in few writes
		GetCertificate:              get,
	}
	t := &tickets{}
	t.turn(cfg, time.Now())
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		t.turn(cfg, time.Now())
		return nil, nil // the same
	}
	return cfg
}

// Config returns the settings of the client leg with the certificate in force.
func (s *Store) Config() *tls.Config { return Config(s.Certificate) }

// Certificate gives the one to show: for the name that the client asks for where the authority may certify it, else the
// operator's or the self-made one.
func (s *Store) Certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.ca != nil {
		if c := s.ca.certificate(h.ServerName); c != nil {
			return c, nil
		}
	}
	s.refresh()
	return s.current.Load(), nil
}

// Reload takes the files as they are now. On an error the certificate in force stays.
func (s *Store) Reload() error {
	s.reload.Lock()
	defer s.reload.Unlock()
	err := s.load()
	s.failed.Store(&err)
	return err
}

// Err returns why the last look at the files failed, or nil.
func (s *Store) Err() error {
	if e := s.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// NotAfter is the end of the certificate in force.
func (s *Store) NotAfter() time.Time { return s.current.Load().Leaf.NotAfter }

// refresh looks for changed or ageing files, seldom, and never makes a handshake wait for another's look.
func (s *Store) refresh() {
	now := s.now()
	last := s.checked.Load()
	if now.UnixNano()-last < int64(recheck) || !s.checked.CompareAndSwap(last, now.UnixNano()) || !s.reload.TryLock() {
		return
	}
	defer s.reload.Unlock()
	due := s.o.CertFile == "" && s.NotAfter().Sub(now) < renewal
	if s.o.CertFile != "" {
		stamp, err := modified(s.o.CertFile, s.o.KeyFile)
		due = err == nil && !stamp.Equal(s.stamp)
	}
	if due {
		err := s.load()
		s.failed.Store(&err) // the one in force stays; Err tells
	}
}

func (s *Store) load() error {
	if s.o.CertFile == "" {
		return s.loadOwn()
	}
	stamp, err := modified(s.o.CertFile, s.o.KeyFile)
	if err != nil {
		return fmt.Errorf("could not load the certificate: %w; check the path and that the proxy's user may read it", err)
	}
	c, err := tls.LoadX509KeyPair(s.o.CertFile, s.o.KeyFile)
	if err != nil {
		return fmt.Errorf("could not load the certificate %s with key %s: %w; check that they are PEM files of one pair", s.o.CertFile, s.o.KeyFile, err)
	}
	s.stamp = stamp
	return s.use(c)
}

// loadOwn takes the self-made certificate from disk, or makes a new one where there is none for this name or it is old.
func (s *Store) loadOwn() error {
	file := filepath.Join(s.o.Dir, "client-leg.pem")
	if s.o.Dir != "" {
		b, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("could not read the self-made certificate: %w; make it readable or remove it", err)
		}
		if c, err := tls.X509KeyPair(b, b); err == nil && s.fits(&c) {
			return s.use(c)
		}
	}
	b, err := s.make()
	if err != nil {
		return fmt.Errorf("could not make a certificate for %s: %w", s.o.Name, err)
	}
	if s.o.Dir != "" {
		if err := durable.WriteFile(file, b, 0o600); err != nil {
			return fmt.Errorf("could not keep the self-made certificate: %w; give a state directory the proxy's user may write", err)
		}
	}
	c, err := tls.X509KeyPair(b, b)
	if err != nil {
		return fmt.Errorf("could not use the certificate just made: %w", err)
	}
	return s.use(c)
}

// fits tells whether a kept certificate may still be used.
func (s *Store) fits(c *tls.Certificate) bool {
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	return err == nil && len(leaf.DNSNames) == 1 && leaf.DNSNames[0] == s.o.Name && leaf.NotAfter.Sub(s.now()) >= renewal
}

func (s *Store) use(c tls.Certificate) error {
	if c.Leaf == nil {
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			return fmt.Errorf("could not read the certificate: %w", err)
		}
		c.Leaf = leaf
	}
	s.current.Store(&c)
	return nil
}

// make returns a new key and certificate as PEM.
func (s *Store) make() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := template(s.now(), lifetime)
	t.Subject = pkix.Name{CommonName: s.o.Name}
	t.DNSNames = []string{s.o.Name}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(b, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...), nil
}

// modified returns the younger modification time of the two files.
func modified(a, b string) (time.Time, error) {
	fa, err := os.Stat(a)
	if err != nil {
		return time.Time{}, err
	}
	fb, err := os.Stat(b)
	if err != nil {
		return time.Time{}, err
	}
	if fa.ModTime().After(fb.ModTime()) {
		return fa.ModTime(), nil
	}
	return fb.ModTime(), nil
}
