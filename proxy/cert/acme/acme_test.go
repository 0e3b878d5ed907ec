package acme

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

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
	m := New(Options{Dir: t.TempDir(), Names: []string{"a.example"}})
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
	m := New(Options{Directory: s.URL, Dir: t.TempDir(), Names: []string{"a.example"}, Roots: roots, HTTP: true,
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

func TestWhoeverElseComesFindsNothing(t *testing.T) {
	t.Parallel()
	m := New(Options{Dir: t.TempDir()})
	m.tokens["/.well-known/acme-challenge/x"] = "x.key"
	for request, want := range map[string]int{
		"GET /.well-known/acme-challenge/x HTTP/1.1\r\nHost: a\r\n\r\n": 200, "GET / HTTP/1.1\r\nHost: a\r\n\r\n": 404,
		"POST /.well-known/acme-challenge/x HTTP/1.1\r\nHost: a\r\n\r\n": 404,
	} {
		a, b := net.Pipe()
		go m.Serve(b, false)
		if _, err := a.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(a), nil)
		if err != nil || r.StatusCode != want {
			t.Errorf("%q: %v, %v, want %d", request, r, err, want)
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
}
