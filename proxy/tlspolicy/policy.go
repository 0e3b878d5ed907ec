// Package tlspolicy finds how the owner of a domain wants mail on its way to him protected, by DANE or MTA-STS, and
// checks connections against it.
package tlspolicy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Level is how well a connection must be protected before mail may go by it.
type Level uint8

// The levels.
const (
	May     Level = iota // encrypted where the server can, with any certificate; else in plain text (RFC 7435)
	None                 // in plain text
	Encrypt              // encrypted, with any certificate, or nothing is sent
	Verify               // encrypted, with a trusted certificate for one of the policy's names, or nothing is sent
	DANE                 // encrypted, with a certificate that the policy's TLSA records name (RFC 7672), or nothing is sent
)

// String returns the level as it stands in log and API.
func (l Level) String() string {
	if l > DANE {
		return "?"
	}
	return [...]string{"opportunistic", "none", "required", "verified", "dane"}[l]
}

// Source is who asks for a level.
type Source uint8

// The sources.
const (
	Default Source = iota // nobody
	Setting               // the operator
	TLSAs                 // TLSA records, by DNSSEC
	MTASTS                // the domain's policy (RFC 8461)
	Signed                // who wants a server to prove that it is one of a list that DNSSEC vouches for
)

// String returns the source as it stands in log and API.
func (s Source) String() string {
	if s > Signed {
		return "?"
	}
	return [...]string{"default", "setting", "dane", "mta-sts", "dnssec"}[s]
}

// Policy is what a connection to one server must be. It is not changed once it is made; nil is one of level May.
type Policy struct {
	Level  Level
	Source Source
	// Names are those of which the certificate must bear one: of level Verify, and of level DANE where a record names an
	// authority. One that begins with a dot is that of every host below.
	Names []string
	TLSA  []TLSA // usable records; of level DANE
	SNI   string // the name to give in the handshake; "" is none
	Bar   string // why no mail may go to this server whatever it shows; "" where it may
	Why   string // one line for people
}

// Sure tells whether the policy is the domain's own, by a way that cannot be forged.
func (p *Policy) Sure() bool { return p != nil && p.Source >= TLSAs }

// Must tells whether nothing may be sent in plain text.
func (p *Policy) Must() bool { return p != nil && p.Level >= Encrypt }

// ServerName is the name to give in the handshake, "" for none.
func (p *Policy) ServerName() string {
	if p == nil {
		return ""
	}
	return p.SNI
}

// Reasons why a connection does not do.
var (
	ErrPlain = errors.New("the connection is not encrypted")
	ErrOld   = errors.New("the connection is encrypted by less than TLS 1.2")
	ErrNone  = errors.New("the server showed no certificate")
)

// Check tells why a connection may not be used under the policy, or nil. st is nil where it is not encrypted. Roots are
// the authorities that are trusted; nil are those of the system.
func (p *Policy) Check(st *tls.ConnectionState, roots *x509.CertPool, now time.Time) error {
	if p == nil || p.Level <= None {
		return nil
	}
	switch {
	case p.Bar != "":
		return errors.New(p.Bar)
	case st == nil:
		return ErrPlain
	case st.Version < tls.VersionTLS12:
		return ErrOld
	case p.Level == Encrypt:
		return nil
	case len(st.PeerCertificates) == 0:
		return ErrNone
	case p.Level == DANE:
		return checkTLSA(p.TLSA, st.PeerCertificates, p.Names, now)
	}
	if err := Trusted(st.PeerCertificates, roots, now); err != nil {
		return err
	}
	return named(st.PeerCertificates[0], p.Names, false)
}

// Trusted tells why a chain, the server's own certificate first, leads to no authority among roots, or nil. Whose
// certificate it is, it does not look at.
func Trusted(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) error {
	if len(chain) == 0 {
		return ErrNone
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool(chain[1:]), CurrentTime: now})
	return plainly(err, chain[0])
}

// plainly says in the words of an operator why a chain does not do.
func plainly(err error, leaf *x509.Certificate) error {
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("a certificate of the chain is not valid now: %s", strings.TrimPrefix(invalid.Detail, "current time "))
	case errors.As(err, new(x509.UnknownAuthorityError)) && string(leaf.RawIssuer) == string(leaf.RawSubject):
		return errors.New("the certificate is self-signed")
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return errors.New("the certificate is signed by an unknown authority")
	}
	return errors.New(strings.TrimPrefix(err.Error(), "x509: "))
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// named tells why a certificate bears none of the names, or nil. With common, a certificate without any name of a host
// may have it as its common name (RFC 7672 3.2.3).
func named(c *x509.Certificate, names []string, common bool) error {
	for _, n := range names {
		if below, ok := strings.CutPrefix(n, "."); ok {
			for _, have := range c.DNSNames {
				if strings.HasSuffix(strings.ToLower(have), "."+below) {
					return nil
				}
			}
			continue
		}
		if c.VerifyHostname(n) == nil {
			return nil
		}
		if common && len(c.DNSNames) == 0 && strings.EqualFold(c.Subject.CommonName, n) {
			return nil
		}
	}
	return fmt.Errorf("the certificate is for %s, not for %s", some(c), list(names))
}

// mostNames is how many names a text tells.
const mostNames = 3

// some tells the names of a certificate.
func some(c *x509.Certificate) string {
	names := c.DNSNames
	if len(names) == 0 && c.Subject.CommonName != "" {
		names = []string{c.Subject.CommonName}
	}
	return list(names)
}

// list tells some names, which strangers may have chosen.
func list(names []string) string {
	if len(names) == 0 {
		return "nobody"
	}
	more := ""
	if len(names) > mostNames {
		names, more = names[:mostNames], " and others"
	}
	return clean(strings.Join(names, ", ")) + more
}

// mostText bounds what a stranger's text adds to ours.
const mostText = 200

// clean makes a stranger's text one line of printable ASCII.
func clean(s string) string {
	s = s[:min(len(s), mostText)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
