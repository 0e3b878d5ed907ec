package resolver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"sluice/proxy/tlspolicy"
)

// Trust is whose word counts that DNSSEC vouches for an answer.
type Trust uint8

// The kinds of trust. The bit by which a resolver says so (AD, RFC 4035 3.2.3) is worth as much as the way it comes by.
const (
	TrustLocal Trust = iota // that of resolvers on this host's loopback addresses
	TrustAll                // that of every resolver that is asked
	TrustNone
)

// SecureOptions make a Secure.
type SecureOptions struct {
	Servers []netip.AddrPort // empty: those of /etc/resolv.conf
	Trust   Trust
	Timeout time.Duration // for one server's answer; 0 means 3 s
}

// Secure asks validating resolvers and tells whether DNSSEC vouches for what they say. It remembers nothing: whoever
// asks does. It is safe for concurrent use.
type Secure struct {
	o  SecureOptions
	mu sync.Mutex
	// What /etc/resolv.conf said, and when it was read.
	conf []netip.AddrPort
	read time.Time
}

const (
	resolvConf = "/etc/resolv.conf"
	confAge    = 10 * time.Second
	rounds     = 2    // how often each server is asked
	udpSize    = 1232 // bytes of an answer that pass everywhere in one piece
	mostAlias  = 10
)

// NewSecure returns a Secure.
func NewSecure(o SecureOptions) *Secure {
	o.Timeout = cmp.Or(o.Timeout, 3*time.Second)
	return &Secure{o: o}
}

var kinds = map[tlspolicy.Kind]uint16{
	tlspolicy.MXs: dns.TypeMX, tlspolicy.Aliases: dns.TypeCNAME, tlspolicy.Records: dns.TypeTLSA, tlspolicy.Texts: dns.TypeTXT,
	tlspolicy.Pointers: dns.TypePTR,
}

// Look asks for a name. Of addresses both families are asked for. Both have to be answered where DNSSEC vouches for one of
// them, since the other may be withheld to hide that; else one with addresses will do, for the sake of name servers that fail
// at AAAA.
func (s *Secure) Look(ctx context.Context, name string, kind tlspolicy.Kind) (tlspolicy.Answer, error) {
	if kind == tlspolicy.Addresses {
		return s.addresses(ctx, name)
	}
	if kind == tlspolicy.Pointers {
		var err error
		if name, err = dns.ReverseAddr(name); err != nil {
			return tlspolicy.Answer{}, err
		}
	}
	return s.look(ctx, name, kinds[kind])
}

func (s *Secure) addresses(ctx context.Context, name string) (tlspolicy.Answer, error) {
	var six tlspolicy.Answer
	var err6 error
	var done sync.WaitGroup
	done.Go(func() { six, err6 = s.look(ctx, name, dns.TypeAAAA) })
	a, err := s.look(ctx, name, dns.TypeA)
	done.Wait()
	switch {
	case err6 != nil && err == nil && !a.Secure && len(a.Addrs) > 0:
		return a, nil
	case err != nil && err6 == nil && !six.Secure && len(six.Addrs) > 0:
		return six, nil
	case err != nil || err6 != nil:
		return tlspolicy.Answer{}, errors.Join(err, err6)
	}
	if len(a.Addrs) == 0 {
		a.Name = six.Name
	}
	a.Secure = a.Secure && six.Secure
	a.TTL = min(a.TTL, six.TTL)
	a.Addrs = append(a.Addrs, six.Addrs...)
	return a, nil
}

// look asks the servers in turn until one answers.
func (s *Secure) look(ctx context.Context, name string, qtype uint16) (tlspolicy.Answer, error) {
	name = dns.CanonicalName(name)
	if _, ok := dns.IsDomainName(name); !ok {
		return tlspolicy.Answer{}, fmt.Errorf("%q is no name of the DNS", name)
	}
	servers, err := s.servers()
	if err != nil {
		return tlspolicy.Answer{}, err
	}
	for range rounds {
		for _, server := range servers {
			r, rerr := s.exchange(ctx, server, name, qtype)
			if rerr == nil {
				return read(r, name, qtype, s.trusted(server)), nil
			}
			err = rerr
			if ctx.Err() != nil {
				return tlspolicy.Answer{}, err
			}
		}
	}
	return tlspolicy.Answer{}, err
}

// exchange asks one server, by TCP where the answer does not fit. What is not an answer is an error: a validating
// resolver says SERVFAIL to what is forged.
func (s *Secure) exchange(ctx context.Context, server netip.AddrPort, name string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	q.AuthenticatedData = true // asks for the bit (RFC 6840 5.7)
	q.SetEdns0(udpSize, false)
	c := dns.Client{Timeout: s.o.Timeout}
	r, _, err := c.ExchangeContext(ctx, q, server.String())
	if err == nil && r.Truncated {
		c.Net = "tcp"
		r, _, err = c.ExchangeContext(ctx, q, server.String())
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("resolver %v: %w", server, err)
	case r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError:
		return nil, fmt.Errorf("resolver %v answered %s about %s", server, dns.RcodeToString[r.Rcode], name)
	case len(r.Question) != 1 || r.Question[0].Qtype != qtype || dns.CanonicalName(r.Question[0].Name) != name:
		return nil, fmt.Errorf("resolver %v answered another question", server)
	}
	return r, nil
}

// trusted tells whether a server's word on DNSSEC counts.
func (s *Secure) trusted(server netip.AddrPort) bool {
	return s.o.Trust == TrustAll || s.o.Trust == TrustLocal && server.Addr().Unmap().IsLoopback()
}

// Validates tells whether any of the servers is trusted on DNSSEC, and whether that one vouches for the root: without
// either no domain's TLSA records are ever used.
func (s *Secure) Validates(ctx context.Context) (trusted bool, err error) {
	servers, err := s.servers()
	if err != nil {
		return false, err
	}
	for _, server := range servers {
		if !s.trusted(server) {
			continue
		}
		r, err := s.exchange(ctx, server, ".", dns.TypeNS)
		if err != nil {
			return true, err
		}
		if !r.AuthenticatedData {
			return true, fmt.Errorf("resolver %v does not validate", server)
		}
		return true, nil
	}
	return false, nil
}

// servers are those to ask.
func (s *Secure) servers() ([]netip.AddrPort, error) {
	if len(s.o.Servers) > 0 {
		return s.o.Servers, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.read) < confAge && len(s.conf) > 0 {
		return s.conf, nil
	}
	text, err := os.ReadFile(resolvConf)
	if err != nil {
		return nil, fmt.Errorf("could not find a resolver: %w", err)
	}
	s.conf, s.read = serversIn(string(text)), time.Now()
	return s.conf, nil
}

// serversIn reads resolv.conf(5); without a server there is one on this host.
func serversIn(text string) (servers []netip.AddrPort) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			servers = append(servers, netip.AddrPortFrom(a, 53))
		}
	}
	if len(servers) == 0 {
		servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53)}
	}
	return servers
}

// read takes the records of an answer, at the end of its aliases.
func read(r *dns.Msg, name string, qtype uint16, trusted bool) tlspolicy.Answer {
	a := tlspolicy.Answer{Secure: trusted && r.AuthenticatedData, TTL: ttl(r)}
	for range mostAlias {
		next := aliasOf(r.Answer, name)
		if next == "" {
			break
		}
		name = next
	}
	a.Name = bare(name)
	for _, rr := range r.Answer {
		if h := rr.Header(); h.Rrtype == qtype && h.Class == dns.ClassINET && dns.CanonicalName(h.Name) == name {
			add(&a, rr)
		}
	}
	return a
}

// aliasOf gives where a name leads to, "" where it is none.
func aliasOf(rrs []dns.RR, name string) string {
	for _, rr := range rrs {
		if c, ok := rr.(*dns.CNAME); ok && dns.CanonicalName(c.Hdr.Name) == name {
			return dns.CanonicalName(c.Target)
		}
	}
	return ""
}

func bare(name string) string { return strings.TrimSuffix(dns.CanonicalName(name), ".") }

// add takes one record.
func add(a *tlspolicy.Answer, rr dns.RR) {
	switch rr := rr.(type) {
	case *dns.MX:
		a.MX = append(a.MX, tlspolicy.MX{Host: bare(rr.Mx), Preference: rr.Preference})
	case *dns.A:
		a.Addrs = appendAddr(a.Addrs, rr.A)
	case *dns.AAAA:
		a.Addrs = appendAddr(a.Addrs, rr.AAAA)
	case *dns.TLSA:
		t := tlspolicy.TLSA{Usage: rr.Usage, Selector: rr.Selector, Matching: rr.MatchingType}
		t.Data = unhex(rr.Certificate)
		a.TLSA = append(a.TLSA, t)
	case *dns.TXT:
		a.Texts = append(a.Texts, unescape(strings.Join(rr.Txt, "")))
	case *dns.PTR:
		a.Names = append(a.Names, bare(rr.Ptr))
	}
}

func appendAddr(list []netip.Addr, ip net.IP) []netip.Addr {
	if a, ok := netip.AddrFromSlice(ip); ok {
		list = append(list, a.Unmap())
	}
	return list
}

// negativeTTL is how long it is remembered that there is nothing, where the zone does not say.
const negativeTTL = 5 * time.Minute

// ttl is how long an answer may be remembered (RFC 2308 5 where there is nothing).
func ttl(r *dns.Msg) time.Duration {
	least, found := uint32(0), false
	take := func(t uint32) {
		if !found || t < least {
			least, found = t, true
		}
	}
	for _, rr := range r.Answer {
		take(rr.Header().Ttl)
	}
	if !found {
		for _, rr := range r.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				take(min(soa.Hdr.Ttl, soa.Minttl))
			}
		}
	}
	if !found {
		return negativeTTL
	}
	return time.Duration(least) * time.Second
}
