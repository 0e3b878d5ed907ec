package sink

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/netip"
	"time"
)

// Kind is how the sink behaves at an address, so that one run can have destinations of several kinds.
type Kind uint8

// The kinds.
const (
	Plain Kind = iota // as fast as it can
	TLS               // offers STARTTLS
	Slow              // takes SlowBy for the answer to each message
	kinds
)

// SlowBy is what a message takes a slow destination.
const SlowBy = 600 * time.Millisecond

// PerKind is how many addresses of a kind there are behind each gateway.
const PerKind = 8

// block is how many addresses each gateway has; a kind begins every perBlock of them.
const (
	block    = 64
	perBlock = 16
)

// Addr is address k, below PerKind, of a kind behind gateway i.
func (d Kind) Addr(i, k int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 51, 100, byte(block*i + perBlock*int(d) + 1 + k)})
}

// kindOf reads the kind from an address; others than those of Addr are plain.
func kindOf(a netip.Addr) Kind {
	a = a.Unmap()
	if !a.Is4() {
		return Plain
	}
	d := Kind((int(a.As4()[3]) - 1) % block / perBlock)
	if d >= kinds {
		return Plain
	}
	return d
}

// certificate makes a self-signed one: nobody verifies it.
func certificate() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("could not make the sink's key: %w", err)
	}
	t := x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"sink.example"}, NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &t, &t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("could not make the sink's certificate: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, DynamicRecordSizingDisabled: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}, nil
}
