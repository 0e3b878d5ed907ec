package tlspolicy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Fetcher gets the policy file of a domain.
type Fetcher interface {
	Fetch(ctx context.Context, domain string) ([]byte, error)
}

// fetchPatience bounds one fetch, from the first question to the last byte (RFC 8461 3.3 suggests a minute; nobody waits
// for it here).
const fetchPatience = 30 * time.Second

// Web fetches policies from the domains' own web servers (RFC 8461 3.3): nothing else is asked, redirections are not
// followed, the certificate must be trusted, and no name leads to the gateway's own networks.
type Web struct {
	client *http.Client
}

// WebOptions make a Web.
type WebOptions struct {
	DNS   DNS            // finds the web server
	Roots *x509.CertPool // nil: the system's
	Port  uint16         // 0: 443
	Any   bool           // also addresses of private networks and of this host, for tests
}

// NewWeb returns a Web.
func NewWeb(o WebOptions) *Web {
	if o.Port == 0 {
		o.Port = 443
	}
	t := &http.Transport{
		TLSClientConfig:        &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
		DisableKeepAlives:      true, // a domain is asked once in a long while
		TLSHandshakeTimeout:    fetchPatience / 3,
		ResponseHeaderTimeout:  fetchPatience / 3,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // the bound is on what has to be read
		DialContext: func(ctx context.Context, _, to string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(to)
			if err != nil {
				return nil, err
			}
			return o.dial(ctx, host)
		},
	}
	return &Web{client: &http.Client{Transport: t, Timeout: fetchPatience, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}}
}

// dial connects to the first of a host's addresses that answers.
func (o *WebOptions) dial(ctx context.Context, host string) (net.Conn, error) {
	a, err := o.DNS.Look(ctx, host, Addresses)
	if err != nil {
		return nil, err
	}
	err = errors.New("it has no address")
	for _, addr := range a.Addrs[:min(len(a.Addrs), mostTries)] {
		if !o.Any && !public(addr) {
			err = fmt.Errorf("its address %v is not on the internet", addr)
			continue
		}
		d := net.Dialer{Timeout: fetchPatience / 4}
		var nc net.Conn
		if nc, err = d.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, o.Port).String()); err == nil {
			return nc, nil
		}
	}
	return nil, err
}

// mostTries is how many addresses of a web server are tried.
const mostTries = 4

// public tells whether an address may be anybody's on the internet: a stranger's name must not have the gateway connect
// to what only the gateway can reach.
func public(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsGlobalUnicast() && !a.IsPrivate() && !a.IsLoopback() && !a.IsLinkLocalUnicast()
}

// Fetch gets the file.
func (w *Web) Fetch(ctx context.Context, domain string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://mta-sts."+domain+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return nil, err
	}
	res, err := w.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the web server answered %d", res.StatusCode)
	}
	if t, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || !strings.EqualFold(t, "text/plain") {
		return nil, fmt.Errorf("the policy's type is %q, not text/plain", clean(res.Header.Get("Content-Type")))
	}
	file, err := io.ReadAll(io.LimitReader(res.Body, mostPolicy+1))
	if err == nil && len(file) > mostPolicy {
		err = fmt.Errorf("the policy has more than %d bytes", mostPolicy)
	}
	return file, err
}
