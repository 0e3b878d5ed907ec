package tlspolicy

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// TLSA is one record that binds a certificate to a server (RFC 6698 2.1).
type TLSA struct {
	Usage    uint8 // 2: an authority, DANE-TA; 3: the server's own certificate, DANE-EE
	Selector uint8 // 0: the whole certificate; 1: its public key
	Matching uint8 // 0: as it is; 1: its SHA-256; 2: its SHA-512
	Data     []byte
}

// The usages that mail knows (RFC 7672 3.1).
const (
	usageTA = 2
	usageEE = 3
)

// String shows the record as a zone file has it, shortened.
func (t TLSA) String() string {
	data := hex.EncodeToString(t.Data[:min(len(t.Data), 8)])
	if len(t.Data) > 8 {
		data += "…"
	}
	return fmt.Sprintf("%d %d %d %s", t.Usage, t.Selector, t.Matching, data)
}

// Unusable tells why the record cannot be used, or nil. Usages 0 and 1 say nothing between mail servers (RFC 7672 3.1.3).
func (t TLSA) Unusable() error {
	switch {
	case t.Usage != usageTA && t.Usage != usageEE:
		return fmt.Errorf("usage %d is none of mail's", t.Usage)
	case t.Selector > 1:
		return fmt.Errorf("selector %d is not known", t.Selector)
	case t.Matching > 2:
		return fmt.Errorf("matching type %d is not known", t.Matching)
	case t.Matching == 1 && len(t.Data) != sha256.Size, t.Matching == 2 && len(t.Data) != sha512.Size:
		return errors.New("the digest has not its length")
	case t.Matching == 0 && t.Selector == 0:
		if _, err := x509.ParseCertificate(t.Data); err != nil {
			return errors.New("the certificate in it cannot be read")
		}
	case t.Matching == 0:
		if _, err := x509.ParsePKIXPublicKey(t.Data); err != nil {
			return errors.New("the key in it cannot be read")
		}
	}
	return nil
}

// matches tells whether the record names c.
func (t TLSA) matches(c *x509.Certificate) bool {
	what := c.Raw
	if t.Selector == 1 {
		what = c.RawSubjectPublicKeyInfo
	}
	switch t.Matching {
	case 1:
		sum := sha256.Sum256(what)
		return bytes.Equal(sum[:], t.Data)
	case 2:
		sum := sha512.Sum512(what)
		return bytes.Equal(sum[:], t.Data)
	}
	return bytes.Equal(what, t.Data)
}

var errNoMatch = errors.New("no TLSA record matches the certificate")

// checkTLSA tells why none of the usable records vouches for the chain, or nil. Names and times count for authorities
// only: a record that names the server's own certificate is all that has to be known of it (RFC 7672 3.1.1).
func checkTLSA(records []TLSA, chain []*x509.Certificate, names []string, now time.Time) error {
	why := errNoMatch
	for _, t := range records {
		if t.Usage == usageEE && t.matches(chain[0]) {
			return nil
		}
	}
	for _, t := range records {
		if t.Usage != usageTA {
			continue
		}
		anchors := t.anchors(chain)
		if len(anchors) == 0 {
			continue
		}
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: pool(anchors), Intermediates: pool(chain[1:]), CurrentTime: now})
		if err = plainly(err, chain[0]); err == nil {
			err = named(chain[0], names, true)
		}
		if err == nil {
			return nil
		}
		why = err
	}
	return why
}

// anchors are the certificates at which trust begins by the record: those of the chain that it names, the one that it
// holds, or those that the key it holds has signed (RFC 7672 3.1.2: a bare key need not be in the chain).
func (t TLSA) anchors(chain []*x509.Certificate) (out []*x509.Certificate) {
	for _, c := range chain[1:] {
		if t.matches(c) {
			out = append(out, c)
		}
	}
	if len(out) > 0 || t.Matching != 0 {
		return out
	}
	if t.Selector == 0 {
		if c, err := x509.ParseCertificate(t.Data); err == nil {
			out = append(out, c)
		}
		return out
	}
	key, err := x509.ParsePKIXPublicKey(t.Data)
	if err != nil {
		return nil
	}
	for _, c := range chain[:min(len(chain), mostChain)] {
		signer := x509.Certificate{PublicKey: key, PublicKeyAlgorithm: algorithm(key)}
		if signer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			out = append(out, c)
		}
	}
	return out
}

// mostChain is how many certificates of a server's chain are tried with a bare key.
const mostChain = 8
