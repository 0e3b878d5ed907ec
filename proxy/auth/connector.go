package auth

import (
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"sluice/filter/message"
)

// Connector lets one tenant of a mail service, which sends everybody's mail from the same addresses, hand in mail without a
// login (AUT7). Neither the address nor the certificate nor the sender says which tenant it is: so the service must have
// written that into the message, or the tenant something that nobody else knows.
type Connector struct {
	Name        string
	Ranges      []netip.Prefix // of the service
	Certificate string         // name in the certificate that the service shows
	Field       string         // header field that tells tenants apart
	Values      []string       // what stands there in mail of this tenant; compared without regard to case unless Secret
	Secret      bool           // the value is known to the tenant alone, and is taken out of the message
	Domains     []string       // of senders, in lower case, as A-labels
}

// Has tells whether an address is one of the service.
func (c *Connector) Has(a netip.Addr) bool {
	return slices.ContainsFunc(c.Ranges, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// Sends tells whether an address belongs to the tenant.
func (c *Connector) Sends(a message.Address) bool {
	d := strings.ToLower(a.Domain())
	if slices.Contains(c.Domains, d) {
		return d != ""
	}
	ascii, err := idna.Lookup.ToASCII(d)
	return err == nil && ascii != "" && slices.Contains(c.Domains, ascii)
}

// Shown tells whether the client showed the service's certificate; the error says what is wrong. What a certificate is for
// (extended key usage) is not asked: public authorities make none for clients any more, and the name is what counts.
func (c *Connector) Shown(st *tls.ConnectionState, roots *x509.CertPool) error {
	if len(st.PeerCertificates) == 0 {
		return errors.New("the client shows no certificate")
	}
	between := x509.NewCertPool()
	for _, more := range st.PeerCertificates[1:] {
		between.AddCert(more)
	}
	leaf := st.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("the client's certificate: %w", err)
	}
	if err := leaf.VerifyHostname(c.Certificate); err != nil {
		return fmt.Errorf("the client's certificate: %w", err)
	}
	return nil
}

// Proves tells whether the header of a message says that it is this tenant's; why says what is missing. From and to are
// where the lines with a secret stand.
func (c *Connector) Proves(header []byte) (why string, from, to int) {
	value, from, to, n := message.Field(header, c.Field)
	is := strings.TrimSpace(string(value))
	switch {
	case n == 0:
		return "it has no " + c.Field + " field", 0, 0
	case n > 1:
		return "it has more than one " + c.Field + " field", 0, 0
	case c.Secret && !slices.ContainsFunc(c.Values, func(v string) bool { return subtle.ConstantTimeCompare([]byte(v), []byte(is)) == 1 }):
		return "its " + c.Field + " field is not this tenant's", 0, 0
	case !c.Secret && !slices.ContainsFunc(c.Values, func(v string) bool { return strings.EqualFold(v, is) }):
		return "its " + c.Field + " field is not this tenant's", 0, 0
	}
	return c.authored(header), from, to
}

// authored tells why the tenant may not be the author, "" where he may.
func (c *Connector) authored(header []byte) string {
	all, err := message.Authors(header)
	if err != nil {
		return err.Error()
	}
	for _, a := range all {
		if !c.Sends(a) {
			return fmt.Sprintf("its From field names %.100q, which is not this tenant's", a)
		}
	}
	return ""
}
