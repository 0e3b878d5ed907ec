// Package acme has an authority certify the gateway's names (RFC 8555), and renews that in time.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
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
	// Listen is where Serve answers for us: with port 443 by TLS (tls-alpn-01, RFC 8737), else by HTTP (http-01). One at least.
	Listen []netip.AddrPort
	// Account and AccountKey are of an account that the authority knows by other means (RFC 8555 7.3.4), base64url; may be empty.
	Account, AccountKey string
	Log                 *slog.Logger // may be nil
	Got                 func()       // hears of each new certificate, once it is on disk
	Failed              func(error)  // hears of each failure
}

// Manager keeps one certificate up to date. It is safe for concurrent use.
type Manager struct {
	o   Options
	now func() time.Time

	cfg   *certmagic.Config
	cache *certmagic.Cache // is empty: the library asks for one
	by    []*certmagic.ACMEIssuer
	turn  int // which of them makes the next order; of Run alone

	mu   sync.Mutex
	err  error     // of the last order
	next time.Time // when there is the next
}

// New makes a manager. Nothing happens before Run, which is called once.
func New(o Options) *Manager {
	o.Log = discard(o.Log)
	m := &Manager{o: o, now: time.Now}
	m.cfg, m.cache, m.by = m.issuers()
	return m
}

// Encrypted tells whether an authority that looks at this address comes by TLS.
func Encrypted(l netip.AddrPort) bool { return l.Port() == 443 }

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
	defer m.cache.Stop()
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

// order gets a certificate, or tells why there is none. Where one way failed, the next order goes another.
func (m *Manager) order(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	err := os.MkdirAll(m.o.Dir, 0o700)
	if err == nil {
		err = m.get(ctx, m.by[m.turn%len(m.by)])
	}
	if err != nil {
		m.turn++
		return fmt.Errorf("could not get a certificate for %v from %s: %w; the authority must reach this gateway by each name at tls.acme.listen", m.o.Names, m.o.Directory, err)
	}
	return nil
}
