package acme

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sluice/proxy/durable"
)

// accountKey is that of the account, made at the first order.
func (m *Manager) accountKey() (crypto.Signer, error) {
	file := filepath.Join(m.o.Dir, "account.pem")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key, kerr := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if kerr != nil {
			return nil, kerr
		}
		text, kerr := keyText(key)
		if kerr != nil {
			return nil, kerr
		}
		return key, durable.WriteFile(file, text, 0o600)
	}
	if err != nil {
		return nil, err
	}
	p, _ := pem.Decode(b)
	if p == nil {
		return nil, fmt.Errorf("%s holds no key; remove it, and a new account is made", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(p.Bytes)
	if s, ok := key.(crypto.Signer); ok && err == nil {
		return s, nil
	}
	return nil, fmt.Errorf("%s holds no key that can sign; remove it, and a new account is made", file)
}

// request makes a key and the request for its certificate.
func request(names []string) (key crypto.Signer, csr []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, k)
	return k, csr, err
}

// keep writes key and chain into one file, so that they always belong together.
func (m *Manager) keep(key crypto.Signer, chain [][]byte) error {
	text, err := keyText(key)
	if err != nil {
		return err
	}
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	c, err := tls.X509KeyPair(text, text)
	if err != nil {
		return fmt.Errorf("the authority's certificate cannot be used: %w", err)
	}
	for _, n := range m.o.Names {
		if err := c.Leaf.VerifyHostname(n); err != nil {
			return fmt.Errorf("the authority's certificate cannot be used: %w", err)
		}
	}
	return durable.WriteFile(m.file(), text, 0o600)
}

func keyText(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
