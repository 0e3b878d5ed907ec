package cert

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shown returns the certificate a client sees.
func shown(t *testing.T, s *Store, version uint16) ([]byte, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	srv := tls.Server(a, s.Config())
	done := make(chan error, 1)
	go func() { done <- srv.Handshake() }()
	c := tls.Client(b, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version})
	err := c.Handshake()
	if err != nil {
		a.Close()
		return nil, errors.Join(err, <-done)
	}
	if err := <-done; err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0].Raw, nil
}

func open(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOwnCertificateIsKept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Name: "gw.example", Dir: dir})
	first, err := shown(t, s, tls.VersionTLS13)
	if err != nil {
		t.Fatal(err)
	}
	again, err := shown(t, open(t, Options{Name: "gw.example", Dir: dir}), tls.VersionTLS12)
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("after a restart another certificate is shown (%v)", err)
	}
	other, err := shown(t, open(t, Options{Name: "other.example", Dir: dir}), tls.VersionTLS13)
	if err != nil || bytes.Equal(first, other) {
		t.Errorf("under another name the same certificate is shown (%v)", err)
	}
	if st, err := os.Stat(filepath.Join(dir, "client-leg.pem")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key's file has mode %v, %v; want 0600", st.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".client-leg-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	if _, err := shown(t, open(t, Options{Name: "gw.example"}), tls.VersionTLS11); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
}

func TestOwnCertificateIsRenewedInTime(t *testing.T) {
	s := open(t, Options{Name: "gw.example", Dir: t.TempDir()})
	first, err := shown(t, s, tls.VersionTLS13)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	s.now = func() time.Time { return now.Add(lifetime - renewal + time.Hour) }
	next, err := shown(t, s, tls.VersionTLS13)
	if err != nil || bytes.Equal(first, next) || s.NotAfter().Sub(s.now()) < renewal {
		t.Errorf("the certificate is not renewed (%v), ends %v", err, s.NotAfter())
	}
}

func TestConfiguredCertificateIsReloaded(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tls.pem")
	write := func(name string, at time.Time) []byte {
		s := open(t, Options{Name: name})
		b, err := s.make()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(file, b, 0o600), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
		return b
	}
	base := time.Now().Add(-time.Hour)
	write("one.example", base)
	s := open(t, Options{Name: "gw.example", CertFile: file, KeyFile: file})
	first, err := shown(t, s, tls.VersionTLS13)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	s.now = func() time.Time { return now.Add(time.Minute) }
	write("two.example", base.Add(time.Minute))
	second, err := shown(t, s, tls.VersionTLS13)
	if err != nil || bytes.Equal(first, second) {
		t.Errorf("a changed file is not taken (%v)", err)
	}
	if err := errors.Join(os.WriteFile(file, []byte("garbage"), 0o600), os.Chtimes(file, base, base)); err != nil {
		t.Fatal(err)
	}
	s.now = func() time.Time { return now.Add(2 * time.Minute) }
	third, err := shown(t, s, tls.VersionTLS13)
	if err != nil || !bytes.Equal(second, third) {
		t.Errorf("a broken file replaces the certificate in force (%v)", err)
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("the broken file is not reported: %v", err)
	}
	if err := s.Reload(); err == nil {
		t.Error("Reload takes a broken file")
	}
}

func TestBadOptionsAreNamed(t *testing.T) {
	for want, o := range map[string]Options{
		"only one of":        {Name: "x", CertFile: "a"},
		"has no name":        {},
		"could not load":     {CertFile: "/nonexistent/a", KeyFile: "/nonexistent/b"},
		"could not keep the": {Name: "x", Dir: "/nonexistent"},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
}
