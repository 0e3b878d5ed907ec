package main

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/intercept/flow"
	"sluice/proxy/cert"
	"sluice/proxy/cert/acme"
)

// challenges marks a listener at which an authority looks whether a name leads here.
const challenges = "acme"

// newACME makes what gets certificates from an authority; nil where none is asked.
func newACME(cfg *config.Config, log *slog.Logger, got func(), failed func(error)) (*acme.Manager, error) {
	a := &cfg.TLS.ACME
	if len(a.Listen) == 0 {
		return nil, nil
	}
	var roots *x509.CertPool
	if a.Roots != "" {
		var err error
		if roots, err = trustedRoots(a.Roots); err != nil {
			return nil, fmt.Errorf("tls.acme.roots: %w", err)
		}
	}
	key, err := acmeKey(a)
	if err != nil {
		return nil, err
	}
	return acme.New(acme.Options{
		Directory: a.Directory, Contact: a.Contact, Names: a.Names, Dir: acmeDir(cfg), Roots: roots, Listen: a.Listen,
		Account: a.Account, AccountKey: key, Log: log, Got: got, Failed: failed,
	}), nil
}

// acmeKey reads the secret of an account that the authority knows by other means, "" for none.
func acmeKey(a *config.ACME) (string, error) {
	if a.Key == "" {
		return "", nil
	}
	b, err := os.ReadFile(a.Key)
	if err != nil {
		return "", fmt.Errorf("could not read the account's secret, tls.acme.account_key_file: %w", err)
	}
	key := strings.TrimRight(strings.TrimSpace(string(b)), "=")
	if _, err := base64.RawURLEncoding.DecodeString(key); err != nil || key == "" {
		return "", fmt.Errorf("could not use %s, tls.acme.account_key_file: it is not base64url; write the secret there as the authority gave it", a.Key)
	}
	return key, nil
}

func acmeDir(cfg *config.Config) string { return filepath.Join(cfg.Store.Dir, "acme") }

// newCerts loads the certificate of the configuration, or that which an authority gave; there may be none yet.
func newCerts(cfg *config.Config) (*cert.Store, error) {
	o := cert.Options{Name: cfg.Gateway.Name, CertFile: cfg.TLS.Certificate, KeyFile: cfg.TLS.Key, Dir: cfg.Store.Dir, Domains: cfg.TLS.CADomains}
	if len(cfg.TLS.ACME.Listen) > 0 {
		file := filepath.Join(acmeDir(cfg), acme.CertificateFile)
		if _, err := os.Stat(file); err == nil {
			o.CertFile, o.KeyFile = file, file
		}
	}
	return cert.New(o)
}

// certified puts a certificate in force that an authority just gave.
func (d *daemon) certified() {
	d.change.Lock()
	defer d.change.Unlock()
	c, err := newCerts(d.cfg.Load().Config)
	if err != nil {
		d.log.Error("the authority's certificate is not used, the old one stays", "err", err)
		return
	}
	d.certs.Store(c)
	d.log.Info("certificate renewed", "names", d.cfg.Load().TLS.ACME.Names, "until", c.NotAfter().Format(time.DateTime))
}

// keepACME renews the certificate, from when the authority can look here until another process does.
func (d *daemon) keepACME(ctx context.Context) {
	if d.acme == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-d.handedOver:
			cancel()
		case <-ctx.Done():
		}
	}()
	select {
	case <-d.acmeReady:
		d.acme.Run(ctx)
	case <-ctx.Done():
	}
}

// beginACME notes that a port is open where the authority looks. d.accepting is held.
func (d *daemon) beginACME() {
	for _, l := range d.cfg.Load().TLS.ACME.Listen {
		if !slices.ContainsFunc(d.houses, func(h *house) bool { return h.at.TLS == challenges && h.at.Address == l }) {
			return
		}
	}
	d.acmeOnce.Do(func() { close(d.acmeReady) })
}

// serveChallenge answers whoever looks.
func (d *daemon) serveChallenge(c *flow.Conn, done func()) {
	defer done()
	if d.acme == nil { // it is read at the start only
		_ = c.Close()
		return
	}
	d.acme.Serve(c, acme.Encrypted(c.Flow().Target))
}

// certificateFindings tell of the certificate, and why it is not renewed.
func (d *daemon) certificateFindings() []api.Finding {
	left := time.Until(d.certs.Load().NotAfter())
	remedy := "renew tls.certificate, then systemctl reload sluiced"
	if d.acme != nil {
		remedy = "the authority is asked in time by itself; look for why it does not answer"
	}
	fs := []api.Finding{finding("certificate", left < 14*24*time.Hour && d.acme == nil, certificateState(left), fmt.Sprintf("valid for %d more days", int(left.Hours()/24)), remedy)}
	if err := d.certs.Load().Err(); err != nil {
		fs = append(fs, finding("certificate", true, api.Warn, err.Error(), "correct the files; the certificate read before goes on being used"))
	}
	if d.acme != nil {
		if next, err := d.acme.Last(); err != nil {
			fs = append(fs, finding("certificate", true, certificateState(left), err.Error(), "tried again at "+next.Format(time.DateTime)+"; until then the old certificate is shown"))
		}
	}
	return fs
}
