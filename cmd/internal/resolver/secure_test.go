package resolver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/proxy/tlspolicy"
)

// nameServer answers what its zone has; below "secure." it claims that DNSSEC vouches for it, where it is asked to tell.
type nameServer struct {
	mu    sync.Mutex
	zone  map[string][]string // "name TYPE" to records
	codes map[string]int
	tcp   int
	quiet bool
}

func (n *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.quiet {
		return
	}
	r := new(dns.Msg)
	r.SetReply(q)
	name, kind := q.Question[0].Name, dns.TypeToString[q.Question[0].Qtype]
	r.AuthenticatedData = q.AuthenticatedData && strings.HasSuffix(name, "secure.")
	for _, text := range n.zone[name+" "+kind] {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		r.Answer = append(r.Answer, rr)
	}
	if code, ok := n.codes[name+" "+kind]; ok {
		r.Rcode = code
	}
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	if udp {
		r.Truncate(512)
	} else {
		n.tcp++
	}
	_ = w.WriteMsg(r)
}

// start serves on a loopback port, by UDP and TCP.
func (n *nameServer) start(t *testing.T) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	ln, err := net.Listen("tcp", at.String())
	if errors.Is(err, syscall.EADDRINUSE) { // the port is free for UDP alone: some connection on this host has it
		defer pc.Close()
		return n.start(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: n}, {Listener: ln, Handler: n}} {
		go func() { _ = s.ActivateAndServe() }()
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return at
}

func TestSecureAnswers(t *testing.T) {
	t.Parallel()
	digest := strings.Repeat("ab", 32)
	n := &nameServer{zone: map[string][]string{
		"a.secure. MX":                {"a.secure. 300 IN MX 20 MX2.a.secure.", "a.secure. 200 IN MX 10 mx1.a.secure."},
		"null.secure. MX":             {"null.secure. 300 IN MX 0 ."},
		"mx.a.secure. A":              {"mx.a.secure. 300 IN CNAME Host.b.secure.", "host.b.secure. 60 IN A 192.0.2.1", "other.secure. 60 IN A 192.0.2.66"},
		"mx.a.secure. AAAA":           {"mx.a.secure. 300 IN CNAME host.b.secure.", "host.b.secure. 600 IN AAAA 2001:db8::1"},
		"mx.a.secure. CNAME":          {"mx.a.secure. 300 IN CNAME host.b.secure."},
		"v4.secure. A":                {"v4.secure. 300 IN A 192.0.2.4"},
		"half.secure. A":              {"half.secure. 300 IN A 192.0.2.4"},
		"half.example. A":             {"half.example. 300 IN A 192.0.2.4"},
		"six.example. AAAA":           {"six.example. 300 IN AAAA 2001:db8::6"},
		"plain.example. MX":           {"plain.example. 300 IN MX 10 mx.plain.example."},
		"_25._tcp.a.secure. TLSA":     {"_25._tcp.a.secure. 300 IN TLSA 3 1 1 " + digest},
		"_mta-sts.a.secure. TXT":      {`_mta-sts.a.secure. 300 IN TXT "v=STSv1; " "id=1;\"\009"`},
		"1.2.0.192.in-addr.arpa. PTR": {"1.2.0.192.in-addr.arpa. 300 IN PTR mx.a.secure."},
		"loop.secure. MX":             {"loop.secure. 300 IN CNAME loop.secure."},
		"many.secure. TXT":            nil,
	}, codes: map[string]int{"bogus.secure. MX": dns.RcodeServerFailure, "half.secure. AAAA": dns.RcodeServerFailure, "half.example. AAAA": dns.RcodeServerFailure, "six.example. A": dns.RcodeServerFailure, "gone.example. A": dns.RcodeServerFailure, "none.secure. MX": dns.RcodeNameError, "shut.secure. MX": dns.RcodeRefused}}
	for i := range 60 {
		n.zone["many.secure. TXT"] = append(n.zone["many.secure. TXT"], fmt.Sprintf(`many.secure. 300 IN TXT "text number %d"`, i))
	}
	server := n.start(t)
	s := NewSecure(SecureOptions{Servers: []netip.AddrPort{server}})
	for _, c := range []struct {
		name string
		kind tlspolicy.Kind
		want string
	}{
		{"a.secure", tlspolicy.MXs, "true a.secure 3m20s [{mx2.a.secure 20} {mx1.a.secure 10}]"},
		{"A.Secure.", tlspolicy.MXs, "true a.secure 3m20s [{mx2.a.secure 20} {mx1.a.secure 10}]"},
		{"null.secure", tlspolicy.MXs, "true null.secure 5m0s [{ 0}]"},
		{"none.secure", tlspolicy.MXs, "true none.secure 5m0s"},
		{"mx.a.secure", tlspolicy.Addresses, "true host.b.secure 1m0s [192.0.2.1 2001:db8::1]"},
		{"mx.a.secure", tlspolicy.Aliases, "true host.b.secure 5m0s"},
		{"v4.secure", tlspolicy.Addresses, "true v4.secure 5m0s [192.0.2.4]"},
		{"plain.example", tlspolicy.MXs, "false plain.example 5m0s [{mx.plain.example 10}]"},
		{"_25._tcp.a.secure", tlspolicy.Records, "true _25._tcp.a.secure 5m0s [3 1 1 abababababababab…]"},
		{"_mta-sts.a.secure", tlspolicy.Texts, "true _mta-sts.a.secure 5m0s [v=STSv1; id=1;\"\t]"},
		{"192.0.2.1", tlspolicy.Pointers, "false 1.2.0.192.in-addr.arpa 5m0s [mx.a.secure]"},
		{"loop.secure", tlspolicy.MXs, "true loop.secure 5m0s"},
		{"bogus.secure", tlspolicy.MXs, "answered SERVFAIL"},
		{"half.secure", tlspolicy.Addresses, "answered SERVFAIL"},
		{"half.example", tlspolicy.Addresses, "false half.example 5m0s [192.0.2.4]"},
		{"six.example", tlspolicy.Addresses, "false six.example 5m0s [2001:db8::6]"},
		{"gone.example", tlspolicy.Addresses, "answered SERVFAIL"},
		{"shut.secure", tlspolicy.MXs, "answered REFUSED"},
		{"a..secure", tlspolicy.MXs, "no name of the DNS"},
		{"no address", tlspolicy.Pointers, "unrecognized address"},
	} {
		a, err := s.Look(context.Background(), c.name, c.kind)
		if err != nil {
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %s", c.name, err, c.want)
			}
			continue
		}
		got := fmt.Sprint(a.Secure, " ", a.Name, " ", a.TTL)
		for _, part := range []string{fmt.Sprint(a.MX), fmt.Sprint(a.Addrs), fmt.Sprint(a.TLSA), fmt.Sprint(a.Texts), fmt.Sprint(a.Names)} {
			if part != "[]" {
				got += " " + part
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	a, err := s.Look(context.Background(), "many.secure", tlspolicy.Texts)
	if err != nil || len(a.Texts) != 60 || n.tcp == 0 {
		t.Errorf("a long answer: %d texts, %d by TCP, %v", len(a.Texts), n.tcp, err)
	}
	for trust, want := range map[Trust]bool{TrustLocal: true, TrustAll: true, TrustNone: false} {
		s := NewSecure(SecureOptions{Servers: []netip.AddrPort{server}, Trust: trust})
		if a, err := s.Look(context.Background(), "a.secure", tlspolicy.MXs); err != nil || a.Secure != want {
			t.Errorf("trust %d: %v, %v", trust, a.Secure, err)
		}
		if trusted, err := s.Validates(context.Background()); trusted != want || (err != nil) != want { // its root is not signed
			t.Errorf("trust %d: validates %v, %v", trust, trusted, err)
		}
	}
	far := NewSecure(SecureOptions{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}})
	if far.trusted(far.o.Servers[0]) || !NewSecure(SecureOptions{Trust: TrustAll}).trusted(far.o.Servers[0]) {
		t.Error("the word of a resolver elsewhere")
	}
}

func TestAnotherServerIsAsked(t *testing.T) {
	t.Parallel()
	zone := map[string][]string{"a.secure. MX": {"a.secure. 300 IN MX 10 mx.a.secure."}}
	first := &nameServer{codes: map[string]int{"a.secure. MX": dns.RcodeServerFailure}}
	silent, second := &nameServer{quiet: true}, &nameServer{zone: zone}
	s := NewSecure(SecureOptions{Servers: []netip.AddrPort{silent.start(t), first.start(t), second.start(t)}, Timeout: 2 * time.Second})
	if a, err := s.Look(context.Background(), "a.secure", tlspolicy.MXs); err != nil || len(a.MX) != 1 {
		t.Errorf("%v, %v", a, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Look(ctx, "a.secure", tlspolicy.MXs); err == nil {
		t.Error("asked on after its end")
	}
}

func TestServersOfTheHost(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"# nothing\n": "[127.0.0.1:53]",
		"nameserver 192.0.2.53\nsearch x\nnameserver 2001:db8::53\nnameserver nonsense\nnameserver": "[192.0.2.53:53 [2001:db8::53]:53]",
	} {
		if got := fmt.Sprint(serversIn(text)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestPolicyOfADomainFromTheWire asks a name server and a web server for everything that a domain publishes.
func TestPolicyOfADomainFromTheWire(t *testing.T) {
	t.Parallel()
	now := time.Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"mta-sts.b.example", "mx.b.example"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, "version: STSv1\nmode: enforce\nmax_age: 86400\nmx: *.b.example\n")
	}))
	web.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	web.StartTLS()
	t.Cleanup(web.Close)

	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	n := &nameServer{zone: map[string][]string{
		"a.secure. MX":               {"a.secure. 300 IN MX 10 mx.a.secure."},
		"mx.a.secure. A":             {"mx.a.secure. 300 IN A 192.0.2.1"},
		"_25._tcp.mx.a.secure. TLSA": {"_25._tcp.mx.a.secure. 300 IN TLSA 3 1 1 " + hex.EncodeToString(sum[:])},
		"b.example. MX":              {"b.example. 300 IN MX 10 mx.b.example."},
		"mx.b.example. A":            {"mx.b.example. 300 IN A 192.0.2.2"},
		"_mta-sts.b.example. TXT":    {`_mta-sts.b.example. 300 IN TXT "v=STSv1; id=20270301;"`},
		"mta-sts.b.example. A":       {"mta-sts.b.example. 300 IN A 127.0.0.1"},
	}}
	s := NewSecure(SecureOptions{Servers: []netip.AddrPort{n.start(t)}})
	port := web.Listener.Addr().(*net.TCPAddr).AddrPort().Port()
	f, err := tlspolicy.NewFinder(tlspolicy.Options{DNS: s, Roots: roots, Fetch: tlspolicy.NewWeb(tlspolicy.WebOptions{DNS: s, Roots: roots, Port: port, Any: true})})
	if err != nil {
		t.Fatal(err)
	}
	shown := &tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{cert}}
	for domain, want := range map[string]tlspolicy.Level{"a.secure": tlspolicy.DANE, "b.example": tlspolicy.Verify} {
		d, err := f.Domain(context.Background(), domain)
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Hosts) != 1 || d.Hosts[0].Err != nil || d.Hosts[0].Policy.Level != want || d.STSWhy != "" {
			t.Fatalf("%s: %+v", domain, d)
		}
		if err := d.Hosts[0].Policy.Check(shown, roots, now); err != nil {
			t.Errorf("%s: %v", domain, err)
		}
	}
}
