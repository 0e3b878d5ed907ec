// Package acme has an authority certify the gateway's names (RFC 8555), and renews that in time.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
)

// Times of renewal. Authorities bound failed orders per hour, so the pauses grow.
const (
	firstPause = 5 * time.Minute
	mostPause  = 6 * time.Hour
	orderTime  = 5 * time.Minute // for one order as a whole
)

// Options of a Manager.
type Options struct {
	Directory string         // address of the authority's directory
	Contact   string         // mailbox, may be empty
	Names     []string       // to be certified, in one certificate
	Dir       string         // for account key and certificate; files are readable by their owner only
	Roots     *x509.CertPool // that the authority's own certificate is verified by; nil: the system's
	// TLS says that the authority comes by TLS (tls-alpn-01, RFC 8737); HTTP that it comes by HTTP (http-01). One at least.
	TLS, HTTP bool
	Got       func()      // hears of each new certificate, once it is on disk
	Failed    func(error) // hears of each failure
}

// Manager keeps one certificate up to date. It is safe for concurrent use.
type Manager struct {
	o   Options
	now func() time.Time

	mu     sync.Mutex
	tokens map[string]string           // path of the challenge -> what is answered
	certs  map[string]*tls.Certificate // name -> certificate that answers the challenge
	err    error                       // of the last order
	next   time.Time                   // when there is the next
}

// New makes a manager. Nothing happens before Run.
func New(o Options) *Manager {
	return &Manager{o: o, now: time.Now, tokens: map[string]string{}, certs: map[string]*tls.Certificate{}}
}

// CertificateFile holds certificate and key in Options.Dir, once there is one.
const CertificateFile = "certificate.pem"

func (m *Manager) file() string { return filepath.Join(m.o.Dir, CertificateFile) }

// Last tells when the next order is made, and why the last one failed, nil where it did not.
func (m *Manager) Last() (next time.Time, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.next, m.err
}

// Run gets and renews the certificate until ctx ends. Whatever fails, the one that is there stays.
func (m *Manager) Run(ctx context.Context) {
	pause := firstPause
	for {
		due := m.due()
		if wait := due.Sub(m.now()); wait <= 0 {
			err := m.order(ctx)
			if ctx.Err() != nil {
				return
			}
			m.mu.Lock()
			m.err = err
			m.mu.Unlock()
			if err == nil {
				pause = firstPause
				m.o.Got()
				continue
			}
			m.o.Failed(err)
			due = m.now().Add(pause)
			pause = min(2*pause, mostPause)
		}
		m.mu.Lock()
		m.next = due
		m.mu.Unlock()
		if !sleep(ctx, due.Sub(m.now())) {
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// due is when the certificate is to be renewed: with a third of its life left, or at once where it is not one for these names.
func (m *Manager) due() time.Time {
	c, err := tls.LoadX509KeyPair(m.file(), m.file())
	if err != nil {
		return m.now()
	}
	leaf := c.Leaf
	for _, n := range m.o.Names {
		if !slices.Contains(leaf.DNSNames, n) {
			return m.now()
		}
	}
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

// order gets a certificate.
func (m *Manager) order(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	if err := m.get(ctx); err != nil {
		return fmt.Errorf("could not get a certificate for %v from %s: %w", m.o.Names, m.o.Directory, err)
	}
	return nil
}

func (m *Manager) get(ctx context.Context) error {
	if err := os.MkdirAll(m.o.Dir, 0o700); err != nil {
		return err
	}
	c, err := m.client()
	if err != nil {
		return err
	}
	a := &acme.Account{}
	if m.o.Contact != "" {
		a.Contact = []string{"mailto:" + m.o.Contact}
	}
	if _, err := c.Register(ctx, a, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return fmt.Errorf("account: %w", err)
	}
	o, err := c.AuthorizeOrder(ctx, acme.DomainIDs(m.o.Names...))
	if err != nil {
		return fmt.Errorf("order: %w", err)
	}
	for _, url := range o.AuthzURLs {
		if err := m.authorize(ctx, c, url); err != nil {
			return err
		}
	}
	at := o.URI
	if o, err = c.WaitOrder(ctx, at); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	key, csr, err := request(m.o.Names)
	if err != nil {
		return err
	}
	chain, _, err := c.CreateOrderCert(ctx, o.FinalizeURL, csr, true)
	if err != nil { // some authorities do not say again where the order is (RFC 8555 7.4 does not ask for it)
		chain, err = finished(ctx, c, at, err)
	}
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return m.keep(key, chain)
}

// finished waits for an order that may go on though its finalization seemed to fail, for the cause why.
func finished(ctx context.Context, c *acme.Client, at string, why error) ([][]byte, error) {
	o, err := c.WaitOrder(ctx, at)
	if err != nil || o.Status != acme.StatusValid {
		return nil, why
	}
	return c.FetchCert(ctx, o.CertURL, true)
}

// client speaks for the account, whose key is made once.
func (m *Manager) client() (*acme.Client, error) {
	key, err := m.accountKey()
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: m.o.Roots, MinVersion: tls.VersionTLS12}
	t.DisableKeepAlives = true // an order is seldom
	return &acme.Client{Key: key, DirectoryURL: m.o.Directory, HTTPClient: &http.Client{Transport: t, Timeout: time.Minute}, UserAgent: "sluice"}, nil
}

// authorize proves that a name leads here, unless the authority knows that.
func (m *Manager) authorize(ctx context.Context, c *acme.Client, url string) error {
	z, err := c.GetAuthorization(ctx, url)
	if err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	if z.Status != acme.StatusPending {
		return nil
	}
	name := z.Identifier.Value
	for _, ch := range z.Challenges {
		if ch.Type != "http-01" || !m.o.HTTP {
			if ch.Type != "tls-alpn-01" || !m.o.TLS {
				continue
			}
		}
		done, err := m.ready(c, ch, name)
		if err != nil {
			return err
		}
		defer done()
		if _, err := c.Accept(ctx, ch); err != nil {
			return fmt.Errorf("%s for %s: %w", ch.Type, name, err)
		}
		if _, err := c.WaitAuthorization(ctx, z.URI); err != nil {
			return fmt.Errorf("%s for %s: %w; the authority must reach this gateway by that name", ch.Type, name, err)
		}
		return nil
	}
	return fmt.Errorf("the authority offers no challenge for %s that can be answered at tls.acme.listen", name)
}

// ready has the challenge answered until done is called.
func (m *Manager) ready(c *acme.Client, ch *acme.Challenge, name string) (done func(), err error) {
	if ch.Type == "tls-alpn-01" {
		cert, err := c.TLSALPN01ChallengeCert(ch.Token, name)
		if err != nil {
			return nil, err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.certs[name] = &cert
		return func() { m.mu.Lock(); delete(m.certs, name); m.mu.Unlock() }, nil
	}
	text, err := c.HTTP01ChallengeResponse(ch.Token)
	if err != nil {
		return nil, err
	}
	path := c.HTTP01ChallengePath(ch.Token)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens[path] = text
	return func() { m.mu.Lock(); delete(m.tokens, path); m.mu.Unlock() }, nil
}
