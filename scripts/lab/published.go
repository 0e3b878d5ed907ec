package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Published is what domains publish for those who send them mail, beyond what the lab's own DNS knows: a resolver on the
// gateway's loopback, which answers as one that validates, and the web server of MTA-STS policies.
type Published struct {
	mu      sync.Mutex
	records map[string][]dns.RR // "name. TYPE"
	secure  map[string]bool     // domains that are signed, with all below
	fail    map[string]bool     // names whose answers are forged
	files   map[string]string   // policies by domain
}

// ValidatingResolver is where a Published answers on the gateway.
const ValidatingResolver = "127.0.0.53"

// Publish starts both servers; web is where that for policies listens, cert its certificates.
func (l *Lab) Publish(web string, cert func(*tls.ClientHelloInfo) (*tls.Certificate, error)) (*Published, error) {
	p := &Published{records: map[string][]dns.RR{}, secure: map[string]bool{}, fail: map[string]bool{}, files: map[string]string{}}
	at := net.JoinHostPort(ValidatingResolver, "53")
	var pc net.PacketConn
	err := l.In(HostGateway, func() (err error) {
		pc, err = net.ListenPacket("udp", at)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("could not open the resolver: %w", err)
	}
	ln, err := l.Listen(HostGateway, at)
	if err != nil {
		return nil, fmt.Errorf("could not open the resolver: %w", err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: p}, {Listener: ln, Handler: p}} {
		go func() { _ = s.ActivateAndServe() }() // ends with the lab
		l.onClose(closer(func() error { return s.Shutdown() }))
	}
	wl, err := l.Listen(HostInternet, web)
	if err != nil {
		return nil, fmt.Errorf("could not open the web server: %w", err)
	}
	s := &http.Server{Handler: http.HandlerFunc(p.policy), ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(tls.NewListener(wl, &tls.Config{GetCertificate: cert})) }()
	l.onClose(closer(s.Close))
	return p, nil
}

type closer func() error

func (c closer) Close() error { return c() }

// Record adds a record in the words of a zone file.
func (p *Published) Record(text string) error {
	rr, err := dns.NewRR(text)
	if err != nil {
		return fmt.Errorf("could not publish %q: %w", text, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	k := dns.CanonicalName(rr.Header().Name) + " " + dns.TypeToString[rr.Header().Rrtype]
	p.records[k] = append(p.records[k], rr)
	return nil
}

// Sign has DNSSEC vouch for a domain and all below.
func (p *Published) Sign(domain string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.secure[domain+"."] = true
}

// Forge has the resolver find that answers about a name are forged.
func (p *Published) Forge(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail[name+"."] = true
}

// Policy publishes the MTA-STS policy of a domain.
func (p *Published) Policy(domain, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files["mta-sts."+domain] = text
}

func (p *Published) policy(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	text, ok := p.files[r.Host]
	p.mu.Unlock()
	if !ok || r.URL.Path != "/.well-known/mta-sts.txt" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write([]byte(text)) // the reader tells
}

// ServeDNS answers one question.
func (p *Published) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := new(dns.Msg)
	r.SetReply(q)
	r.RecursionAvailable = true
	name := dns.CanonicalName(q.Question[0].Name)
	for at, end := 0, false; !end; at, end = dns.NextLabel(name, at) {
		r.AuthenticatedData = r.AuthenticatedData || p.secure[name[at:]] && q.AuthenticatedData
	}
	r.Answer = p.records[name+" "+dns.TypeToString[q.Question[0].Qtype]]
	switch {
	case p.fail[name]:
		r.Rcode, r.Answer, r.AuthenticatedData = dns.RcodeServerFailure, nil, false
	case len(r.Answer) == 0 && !p.knows(name):
		r.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(r) // who asked asks again
}

func (p *Published) knows(name string) bool {
	for k := range p.records {
		if strings.HasPrefix(k, name+" ") {
			return true
		}
	}
	return false
}

// Encrypt has the sink offer STARTTLS with these settings from now on; nil are the lab's usual ones.
func (s *Sink) Encrypt(cfg *tls.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.TLS, s.tls = true, cfg
}

func (s *Sink) encrypts() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opts.TLS
}

func (s *Sink) tlsConfig() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tls != nil {
		return s.tls
	}
	return s.cert.config(s.host)
}

// Certificate is the one that a server shows after STARTTLS.
func (l *Lab) Certificate(ctx context.Context, host, raddr string) (*tls.ConnectionState, error) {
	c, err := l.Hello(ctx, host, "", raddr)
	if err != nil {
		return nil, err
	}
	st, err := c.StartTLS()
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return &st, c.Quit()
}
