package acme

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

var at = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("127.0.0.1:443")}

// made keeps a certificate for names, valid from and until.
func made(t *testing.T, m *Manager, from, until time.Time, names ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.keep(key, [][]byte{der}); err != nil {
		t.Fatal(err)
	}
}

func TestWhenItIsRenewed(t *testing.T) {
	t.Parallel()
	m := New(Options{Dir: t.TempDir(), Names: []string{"a.example"}, Listen: at})
	now := time.Now()
	m.now = func() time.Time { return now }
	if !m.due().Equal(now) {
		t.Error("without a certificate it waits")
	}
	from := now.Add(-time.Hour).Truncate(time.Second)
	made(t, m, from, from.Add(90*24*time.Hour), "a.example")
	if want := from.Add(60 * 24 * time.Hour); !m.due().Equal(want) {
		t.Errorf("it is renewed at %v, want %v", m.due(), want)
	}
	m.o.Names = append(m.o.Names, "b.example")
	if !m.due().Equal(now) {
		t.Error("with a name more it waits")
	}
	if fi, err := os.Stat(m.file()); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the key can be read by others: %v, %v", fi, err)
	}
}

// TestAFailureKeepsWhatIsThere and is tried again later, not at once.
func TestAFailureKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "away", http.StatusTeapot) }))
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	failed := make(chan error, 10)
	m := New(Options{Directory: s.URL, Dir: t.TempDir(), Names: []string{"a.example"}, Roots: roots, Listen: at,
		Got: func() { t.Error("there is a certificate") }, Failed: func(err error) { failed <- err }})
	now := time.Now()
	made(t, m, now.Add(-80*24*time.Hour), now.Add(10*24*time.Hour), "a.example")
	before, err := os.ReadFile(m.file())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { m.Run(ctx); close(done) }()
	if err := <-failed; err == nil {
		t.Error("no cause")
	}
	stop()
	<-done
	after, err := os.ReadFile(m.file())
	if err != nil || string(after) != string(before) {
		t.Errorf("the certificate changed: %v", err)
	}
	if _, err := m.Last(); err == nil || len(failed) > 0 {
		t.Errorf("the failure is forgotten, or it was tried %d times more", len(failed))
	}
}

// TestAnOrderEndsWithItsContext, however silent the authority is.
func TestAnOrderEndsWithItsContext(t *testing.T) {
	t.Parallel()
	asked, gone := make(chan struct{}, 10), make(chan struct{})
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{}; <-gone }))
	defer s.Close()
	defer close(gone)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	m := New(Options{Directory: s.URL, Dir: t.TempDir(), Names: []string{"a.example"}, Roots: roots, Listen: at,
		Got: func() { t.Error("there is a certificate") }, Failed: func(error) { t.Error("its end counts as a failure") }})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { m.Run(ctx); close(done) }()
	<-asked
	stop()
	<-done
}

func TestWhoeverElseComesFindsNothing(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	m := New(Options{Dir: t.TempDir(), Names: []string{"a.example"}, Listen: at, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for _, request := range []string{
		"GET /.well-known/acme-challenge/x HTTP/1.1\r\nHost: a.example\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
		"POST /.well-known/acme-challenge/x HTTP/1.1\r\nHost: a.example\r\n\r\n", "GET /.well-known/acme-challenge/../../account HTTP/1.0\r\n\r\n",
	} {
		a, b := net.Pipe()
		go m.Serve(b, false)
		if _, err := a.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(a), nil)
		if err != nil || r.StatusCode != http.StatusNotFound {
			t.Errorf("%q: %v, %v, want 404", request, r, err)
		}
		a.Close()
	}
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() { m.Serve(b, false); close(done) }()
	if _, err := a.Write([]byte("no HTTP\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	<-done
	for _, protocol := range []string{"acme-tls/1", "h2"} {
		a, b := net.Pipe()
		go m.Serve(b, true)
		if err := tls.Client(a, &tls.Config{ServerName: "a.example", NextProtos: []string{protocol}}).Handshake(); err == nil {
			t.Errorf("by %s there is a certificate", protocol)
		}
		a.Close()
	}
	if log.Len() > 0 {
		t.Errorf("strangers fill the log: %s", &log)
	}
}

// TestWays: an order is made at an address that has every port, or by turns at two.
func TestWays(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.1:80":                  "192.0.2.1 http",
		"192.0.2.1:80 [2001:db8::1]:80": "192.0.2.1 http",
		"192.0.2.1:443":                 "192.0.2.1 tls",
		"192.0.2.1:80 [2001:db8::1]:80 [2001:db8::1]:443":        "2001:db8::1 tls http",
		"192.0.2.1:80 192.0.2.2:443 192.0.2.3:80":                "192.0.2.2 tls, 192.0.2.1 http",
		"192.0.2.1:80 192.0.2.2:443 192.0.2.1:443 192.0.2.2:443": "192.0.2.1 tls http",
	} {
		var listen []netip.AddrPort
		for l := range strings.FieldsSeq(in) {
			listen = append(listen, netip.MustParseAddrPort(l))
		}
		var got []string
		for _, w := range ways(listen) {
			s := w.host.String()
			if w.tls {
				s += " tls"
			}
			if w.http {
				s += " http"
			}
			got = append(got, s)
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%s: %s, want %s", in, s, want)
		}
	}
}

// TestTheLibrarysLog is ours: its details are details, its errors warnings, and each field has its name.
func TestTheLibrarysLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := zap.New(core{slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))}).Named("x")
	log.Info("asked", zap.String("name", "a.example"), zap.Int("times", 2))
	log.With(zap.Bool("late", true)).Error("refused", zap.Error(errors.New("no")))
	const want = "level=DEBUG msg=\"acme: asked\" name=a.example times=2\nlevel=WARN msg=\"acme: refused\" late=true error=no\n"
	if out.String() != want {
		t.Errorf("the log has %q, want %q", &out, want)
	}
}
