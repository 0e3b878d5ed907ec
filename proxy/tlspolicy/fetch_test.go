package tlspolicy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// web serves policies for names below example, each by what its first label asks for.
func web(t *testing.T, ca *authority, hang chan struct{}) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		domain := strings.TrimPrefix(r.Host, "mta-sts.")
		domain, _, _ = strings.Cut(domain, ":")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		switch {
		case r.URL.Path != "/.well-known/mta-sts.txt":
			w.WriteHeader(404)
		case domain == "moved.example":
			http.Redirect(w, r, "https://mta-sts.good.example/.well-known/mta-sts.txt", http.StatusFound)
		case domain == "html.example":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, sts("enforce", "86400", "mx."+domain))
		case domain == "large.example":
			fmt.Fprint(w, strings.Repeat("x", mostPolicy+1))
		case domain == "endless.example":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		case domain == "slow.example":
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		default:
			fmt.Fprint(w, sts("enforce", "86400", "mx."+domain))
		}
	}))
	cert := func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		o := issued{names: []string{h.ServerName}, from: time.Now().Add(-time.Hour), until: time.Now().Add(time.Hour)}
		signer := ca
		switch h.ServerName {
		case "mta-sts.self.example":
			signer = nil
		case "mta-sts.name.example":
			o.names = []string{"www.name.example"}
		case "mta-sts.old.example":
			o.until = time.Now().Add(-time.Minute)
		}
		a := signer.issue(o)
		return &tls.Certificate{Certificate: [][]byte{a.cert.Raw}, PrivateKey: a.key}, nil
	}
	s.TLS = &tls.Config{GetCertificate: cert}
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).AddrPort()
}

func TestPoliciesComeFromTheDomainsOwnServerOnly(t *testing.T) {
	t.Parallel()
	ca := (*authority)(nil).issue(issued{common: "web CA", ca: true, from: time.Now().Add(-time.Hour), until: time.Now().Add(time.Hour)})
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) }) // after the parallel tests
	server := web(t, ca, hang)
	z := newZone()
	w := NewWeb(WebOptions{DNS: z, Roots: ca.pool(), Port: server.Port(), Any: true})
	for _, c := range []struct{ domain, want string }{
		{"good.example", ""},
		{"moved.example", "answered 302"},
		{"html.example", `type is "text/html"`},
		{"large.example", "more than 65536 bytes"},
		{"endless.example", "more than 65536 bytes"},
		{"self.example", "unknown authority"},
		{"name.example", "www.name.example"},
		{"old.example", "expired"},
		{"nowhere.example", "no address"},
		{"slow.example", "deadline"},
	} {
		if c.domain != "nowhere.example" {
			z.set("mta-sts."+c.domain, Addresses, Answer{Addrs: []netip.Addr{server.Addr()}})
		}
		t.Run(c.domain, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(context.Background())
			if c.domain == "slow.example" {
				ctx, cancel = context.WithTimeout(ctx, 2*time.Second) // time to reach the server, which does not answer
			}
			defer cancel()
			file, err := w.Fetch(ctx, c.domain)
			told(t, c.domain, err, c.want)
			if err == nil {
				if p, err := ParseSTS(file); err != nil || !p.Lists("mx."+c.domain) {
					t.Errorf("%v, %v", p, err)
				}
			}
		})
	}
}

func TestNoStrangersNameLeadsInside(t *testing.T) {
	t.Parallel()
	z := newZone()
	w := NewWeb(WebOptions{DNS: z})
	for _, a := range []string{"127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.9", "169.254.169.254", "0.0.0.0", "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "224.0.0.1", "255.255.255.255"} {
		z.set("mta-sts.evil.example", Addresses, Answer{Addrs: []netip.Addr{netip.MustParseAddr(a)}})
		_, err := w.Fetch(context.Background(), "evil.example")
		told(t, a, err, "is not on the internet")
	}
}
