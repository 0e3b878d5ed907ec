package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// mailboxes is a server of a customer's, which knows one login.
type mailboxes struct{ reply error }

func (m *mailboxes) NewSession(*smtp.Conn) (smtp.Session, error) { return &mailbox{m}, nil }

type mailbox struct{ m *mailboxes }

func (s *mailbox) AuthMechanisms() []string { return []string{sasl.Plain} }
func (s *mailbox) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, login, password string) error {
		if s.m.reply == nil && (login != "alice@customer.example" || password != "alice's secret") {
			return smtp.ErrAuthFailed
		}
		return s.m.reply
	}), nil
}
func (*mailbox) Reset()                               {}
func (*mailbox) Logout() error                        { return nil }
func (*mailbox) Mail(string, *smtp.MailOptions) error { return nil }
func (*mailbox) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (*mailbox) Data(io.Reader) error                 { return nil }

// certificate is one for localhost, and who trusts it.
func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, c, c, key.Public(), key))
	pool := x509.NewCertPool()
	pool.AddCert(must[*x509.Certificate](t)(x509.ParseCertificate(der)))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// ownServer starts a customer's server.
func ownServer(t testing.TB, m *mailboxes, implicit bool) *Own {
	cert, pool := certificate(t)
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	s := smtp.NewServer(m)
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.ErrorLog = quiet{}
	if implicit {
		go s.Serve(tls.NewListener(ln, s.TLSConfig))
	} else {
		go s.Serve(ln)
	}
	t.Cleanup(func() { s.Close() })
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return &Own{Addr: "localhost:" + port, Implicit: implicit, TLS: &tls.Config{RootCAs: pool}, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, ln.Addr().String())
	}}
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

func TestTheCustomersOwnServerIsAsked(t *testing.T) {
	t.Parallel()
	for _, implicit := range []bool{false, true} {
		m := &mailboxes{}
		own := ownServer(t, m, implicit)
		c := must[*Checker](t)(NewChecker(book{"alice@customer.example": {Login: "alice@customer.example", User: 7, Own: own}}))
		ask := func(password string, want error) {
			t.Helper()
			if _, err := c.Check(context.Background(), "alice@customer.example", password); !errors.Is(err, want) {
				t.Errorf("implicit %t, %q: %v, want %v", implicit, password, err, want)
			}
		}
		ask("a wrong guess", ErrWrong)
		ask("alice's secret", nil)
		m.reply = &smtp.SMTPError{Code: 454, EnhancedCode: smtp.EnhancedCode{4, 7, 0}, Message: "later"}
		ask("alice's secret", nil) // remembered
		ask("another one", ErrBusy)
		own.TLS.RootCAs = x509.NewCertPool()
		ask("not for a stranger", ErrBusy) // its certificate is nobody's
	}
}

func TestAServerThatIsAway(t *testing.T) {
	t.Parallel()
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	addr := ln.Addr().String()
	for _, hangs := range []bool{true, false} {
		if !hangs {
			ln.Close()
		}
		c := must[*Checker](t)(NewChecker(book{"alice": {Login: "alice", Own: &Own{Addr: addr}}}))
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		if _, err := c.Check(ctx, "alice", "whatever"); !errors.Is(err, ErrBusy) {
			t.Errorf("hangs %t: %v", hangs, err)
		}
	}
}
