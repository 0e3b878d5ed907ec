package sign

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
)

// rsaBits is the size of RSA keys (RFC 8301 3.2): a record of one still fits into a plain answer of the DNS.
const rsaBits = 2048

// NewHeld makes a key of a type.
func NewHeld(domain, selector, kind string, at time.Time) (*Held, error) {
	var signer crypto.Signer
	var err error
	switch kind {
	case RSA:
		signer, err = rsa.GenerateKey(rand.Reader, rsaBits)
	case Ed25519:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, fmt.Errorf("a key cannot be of type %q; use rsa or ed25519", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("could not make a key for %s: %w", domain, err)
	}
	h := &Held{Domain: domain, Selector: selector, Type: kind, Made: at.UTC()}
	if h.Public, err = publicOf(signer.Public()); err != nil {
		return nil, err
	}
	h.Secret, err = x509.MarshalPKCS8PrivateKey(signer)
	return h, err
}

// parseSecret reads a private key of a type.
func parseSecret(kind string, secret []byte) (crypto.Signer, error) {
	k, err := x509.ParsePKCS8PrivateKey(secret)
	if err != nil {
		return nil, fmt.Errorf("it is no key: %w", err)
	}
	switch k := k.(type) {
	case *rsa.PrivateKey:
		if kind == RSA && k.N.BitLen() >= 1024 { // RFC 8301 3.2
			return k, nil
		}
	case ed25519.PrivateKey:
		if kind == Ed25519 {
			return k, nil
		}
	}
	return nil, fmt.Errorf("it is no key of type %s", kind)
}

// Name is where the DNS has its record (RFC 6376 3.6.2.1).
func (h *Held) Name() string { return h.Selector + "._domainkey." + h.Domain }

// publicOf is a key as a record has it: of RSA a SubjectPublicKeyInfo, of Ed25519 the bare key (RFC 8463 4.2).
func publicOf(p crypto.PublicKey) (string, error) {
	if raw, ok := p.(ed25519.PublicKey); ok {
		return base64.StdEncoding.EncodeToString(raw), nil
	}
	der, err := x509.MarshalPKIXPublicKey(p)
	return base64.StdEncoding.EncodeToString(der), err
}

// Record is the text of the TXT record that has to be published (RFC 6376 3.6.1).
func (h *Held) Record() string { return "v=DKIM1; k=" + h.Type + "; p=" + h.Public }

// What is wrong with a record.
var (
	ErrNoRecord = errors.New("there is no record")
	errSeveral  = errors.New("there are several records of that name, of which receivers believe none")
	errRevoked  = errors.New("the record says that the key is revoked")
	errOther    = errors.New("the record has another key")
)

// Published tells by nil that the TXT records of the name let everybody verify what the key signs, else what is wrong.
func (h *Held) Published(txt []string) error {
	switch len(txt) {
	case 0:
		return ErrNoRecord
	case 1:
	default:
		return errSeveral
	}
	tags := map[string]string{"v": "DKIM1", "k": RSA, "h": "sha256", "s": "email"}
	for tag := range strings.SplitSeq(txt[0], ";") {
		if k, v, ok := strings.Cut(tag, "="); ok {
			tags[strings.TrimSpace(k)] = strings.Join(strings.Fields(v), "")
		}
	}
	p, there := tags["p"]
	switch {
	case !there:
		return errors.New("the record has no p=")
	case p == "":
		return errRevoked
	case tags["v"] != "DKIM1":
		return fmt.Errorf("the record says v=%.20s", tags["v"])
	case tags["k"] != h.Type:
		return fmt.Errorf("the record is of a key of type %.20s, want k=%s", tags["k"], h.Type)
	case p != h.Public:
		return errOther
	case !has(tags["h"], "sha256"):
		return fmt.Errorf("the record allows h=%.40s alone, want sha256", tags["h"])
	case !has(tags["s"], "email") && !has(tags["s"], "*"):
		return fmt.Errorf("the record is for s=%.40s, not for email", tags["s"])
	}
	return nil
}

// has tells whether a list in a record has a word (RFC 6376 3.6.1).
func has(list, word string) bool {
	for w := range strings.SplitSeq(list, ":") {
		if w == word {
			return true
		}
	}
	return false
}
