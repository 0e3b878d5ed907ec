package relay

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/proxy/tlspolicy"
)

// identity is a certificate of a test.
type identity struct {
	cert *x509.Certificate
	pair tls.Certificate
}

func newIdentity(t *testing.T, signer *identity, until time.Time, names ...string) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, DNSNames: names,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until, IsCA: signer == nil, BasicConstraintsValid: true}
	parent, sign := tmpl, key
	if signer != nil {
		parent, sign = signer.cert, signer.pair.PrivateKey.(*ecdsa.PrivateKey)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, sign)
	must(t, err)
	c, err := x509.ParseCertificate(der)
	must(t, err)
	return &identity{c, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

// mx is a destination that can encrypt, or not.
type mx struct {
	addr netip.AddrPort

	mu       sync.Mutex
	tls      *tls.Config // nil: STARTTLS is not offered
	starttls string      // another reply to STARTTLS than 220; or one of those below
	silent   bool        // it says nothing in the handshake
	under    []string    // extensions under TLS
	bar      string      // all it says under TLS
	conns    int
	names    []string // that it was told
}

// What an mx does in place of a reply to STARTTLS.
const (
	leaves = "LEAVES"
	stalls = "STALLS"
)

func newMX(t *testing.T, cfg *tls.Config) *mx {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	m := &mx{addr: ln.Addr().(*net.TCPAddr).AddrPort(), tls: cfg}
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { nc.Close() })
			go m.serve(nc)
		}
	}()
	return m
}

func (m *mx) set(change func(*mx)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

func (m *mx) serve(nc net.Conn) {
	defer nc.Close()
	m.mu.Lock()
	m.conns++
	cfg, starttls, silent, under, bar := m.tls, m.starttls, m.silent, m.under, m.bar
	m.mu.Unlock()
	br := bufio.NewReader(nc)
	lines := []string{"mx", "PIPELINING"}
	if cfg != nil {
		lines = append(lines, "STARTTLS")
	}
	fmt.Fprint(nc, "220 mx\r\n")
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
		case "EHLO":
			fmt.Fprintf(nc, "250-%s\r\n250 HELP\r\n", strings.Join(lines, "\r\n250-"))
		case "STARTTLS":
			switch starttls {
			case "":
			case leaves:
				return
			case stalls:
				_, _ = br.ReadString(0)
				return
			default:
				fmt.Fprint(nc, starttls+"\r\n")
				continue
			}
			fmt.Fprint(nc, "220 go\r\n")
			if silent {
				_, _ = br.ReadString(0)
				return
			}
			tc := tls.Server(nc, cfg)
			if tc.Handshake() != nil {
				return
			}
			m.set(func(m *mx) { m.names = append(m.names, tc.ConnectionState().ServerName) })
			if bar != "" {
				_, _ = bufio.NewReader(tc).ReadString('\n')
				fmt.Fprint(tc, bar+"\r\n")
				return
			}
			nc, br, lines = tc, bufio.NewReader(tc), append([]string{"mx", "PIPELINING"}, under...)
		case "QUIT":
			fmt.Fprint(nc, "221 bye\r\n")
			return
		default:
			fmt.Fprint(nc, "250 ok\r\n")
		}
	}
}

func (m *mx) opened() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conns
}

func (m *mx) told() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.names, " ")
}

func serverOf(ids ...*identity) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, i := range ids {
		c.Certificates = append(c.Certificates, i.pair)
	}
	return c
}

func tlsa(i *identity) []tlspolicy.TLSA {
	sum := sha256.Sum256(i.cert.RawSubjectPublicKeyInfo)
	return []tlspolicy.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: sum[:]}}
}
