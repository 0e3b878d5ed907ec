package acme

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// way is one address of ours at which an authority may look.
type way struct {
	host      netip.Addr
	tls, http bool
}

// ways are few addresses that have all ports of listen: before an order is made, a connection to each is tried.
func ways(listen []netip.AddrPort) []way {
	var all []way
	for _, l := range listen {
		i := slices.IndexFunc(all, func(w way) bool { return w.host == l.Addr() })
		if i < 0 {
			all, i = append(all, way{host: l.Addr()}), len(all)
		}
		all[i].tls = all[i].tls || Encrypted(l)
		all[i].http = all[i].http || !Encrypted(l)
	}
	first := func(good func(way) bool) []way {
		if i := slices.IndexFunc(all, good); i >= 0 {
			return all[i : i+1]
		}
		return nil
	}
	if both := first(func(w way) bool { return w.tls && w.http }); both != nil {
		return both
	}
	return slices.Concat(first(func(w way) bool { return w.tls }), first(func(w way) bool { return w.http }))
}

// issuers speak with the authority: one for each way, with the same account. They open no port: the addresses are taken, by us.
func (m *Manager) issuers() (*certmagic.Config, *certmagic.Cache, []*certmagic.ACMEIssuer) {
	var cfg *certmagic.Config
	log := zap.New(core{m.o.Log})
	cache := certmagic.NewCache(certmagic.CacheOptions{Logger: log, GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return cfg, nil }})
	cfg = certmagic.New(cache, certmagic.Config{Logger: log, Storage: &certmagic.FileStorage{Path: m.o.Dir}, Issuers: []certmagic.Issuer{}})
	template := certmagic.ACMEIssuer{
		CA: m.o.Directory, Email: m.o.Contact, Agreed: true, TrustedRoots: m.o.Roots, CertObtainTimeout: orderTime, Logger: log,
		DisableDistributedSolvers: true, // one process at a time makes orders
	}
	if m.o.Account != "" {
		template.ExternalAccount = &acme.EAB{KeyID: m.o.Account, MACKey: m.o.AccountKey}
	}
	var all []*certmagic.ACMEIssuer
	for _, w := range ways(m.o.Listen) {
		template.ListenHost, template.DisableTLSALPNChallenge, template.DisableHTTPChallenge = w.host.String(), !w.tls, !w.http
		all = append(all, certmagic.NewACMEIssuer(cfg, template))
	}
	return cfg, cache, all
}

// get orders one certificate for all names.
func (m *Manager) get(ctx context.Context, by *certmagic.ACMEIssuer) error {
	key, csr, err := request(m.o.Names)
	if err != nil {
		return err
	}
	if err := by.PreCheck(ctx, m.o.Names, false); err != nil {
		return err
	}
	asked, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return err
	}
	got, err := by.Issue(ctx, asked)
	if err != nil {
		return err
	}
	var chain [][]byte
	for p, rest := pem.Decode(got.Certificate); p != nil; p, rest = pem.Decode(rest) {
		chain = append(chain, p.Bytes)
	}
	if len(chain) == 0 {
		return errors.New("the authority gave no certificate")
	}
	return m.keep(key, chain)
}

// discard is the log of those who want none.
func discard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
