package acme

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"sluice/proxy/durable"
)

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
