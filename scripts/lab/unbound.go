package lab

import (
	"context"
	"crypto"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// A SignedZone is a zone with DNSSEC, or without. What it does not have it denies by an NSEC record made for the question.
type SignedZone struct {
	Name    string
	Records []string // in the words of a zone file
	Plain   bool     // not signed
	Broken  string   // "name. TYPE" of the records whose signature does not fit

	key  *dns.DNSKEY
	sign crypto.Signer
}

// zoneServer is a name server for signed zones.
type zoneServer struct {
	mu    sync.Mutex
	zones []*SignedZone
}

// zoneServers is where the zones are served in the internet.
const zoneServers = "198.51.100.20"

// Unbound starts Debian's Unbound on the gateway, at ValidatingResolver. It knows these zones and trusts their keys, but
// for those that are plain.
func (l *Lab) Unbound(ctx context.Context, zones ...*SignedZone) (*Process, error) {
	root, err := unpacked(ctx, l.cache, "unbound")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(l.dir, "unbound")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`server:
	interface: %s
	access-control: 127.0.0.0/8 allow
	directory: %q
	chroot: ""
	username: ""
	pidfile: ""
	use-syslog: no
	logfile: ""
	module-config: "validator iterator"
	qname-minimisation: no
	do-ip6: no
`, ValidatingResolver, dir)
	for _, z := range zones {
		if err := z.makeKey(); err != nil {
			return nil, err
		}
		if !z.Plain {
			conf += fmt.Sprintf("	trust-anchor: %q\n", strings.Join(strings.Fields(z.key.String()), " "))
		}
	}
	conf += "remote-control:\n	control-enable: no\n"
	for _, z := range zones {
		conf += fmt.Sprintf("stub-zone:\n	name: %q\n	stub-addr: %s\n	stub-prime: no\n", z.Name, zoneServers)
	}
	if err := l.serveZones(&zoneServer{zones: zones}); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "unbound.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	libs := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	p, err := l.Start(HostGateway, Command{Args: []string{filepath.Join(root, "usr/sbin/unbound"), "-d", "-p", "-c", file}, Env: []string{"LD_LIBRARY_PATH=" + libs}})
	if err != nil {
		return nil, err
	}
	return p, p.WaitLog(ctx, "start of service")
}

// serveZones serves zones in the internet.
func (l *Lab) serveZones(s *zoneServer) error {
	at := net.JoinHostPort(zoneServers, "53")
	var pc net.PacketConn
	err := l.In(HostInternet, func() (err error) {
		pc, err = net.ListenPacket("udp", at)
		return err
	})
	if err != nil {
		return fmt.Errorf("could not serve zones: %w", err)
	}
	ln, err := l.Listen(HostInternet, at)
	if err != nil {
		return fmt.Errorf("could not serve zones: %w", err)
	}
	for _, d := range []*dns.Server{{PacketConn: pc, Handler: s}, {Listener: ln, Handler: s}} {
		go func() { _ = d.ActivateAndServe() }() // ends with the lab
		l.onClose(closer(func() error { return d.Shutdown() }))
	}
	return nil
}

func (z *SignedZone) makeKey() error {
	z.key = &dns.DNSKEY{Hdr: dns.RR_Header{Name: z.Name + ".", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 60}, Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}
	key, err := z.key.Generate(256)
	if err != nil {
		return fmt.Errorf("could not make a key for %s: %w", z.Name, err)
	}
	z.sign = key.(crypto.Signer)
	return nil
}

// ServeDNS answers one question with authority.
func (s *zoneServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := new(dns.Msg)
	r.SetReply(q)
	r.Authoritative = true
	name := dns.CanonicalName(q.Question[0].Name)
	for _, z := range s.zones {
		if dns.IsSubDomain(z.Name+".", name) {
			if err := z.answer(r, name, q.Question[0].Qtype); err != nil {
				r.Rcode = dns.RcodeServerFailure
			}
		}
	}
	if opt := q.IsEdns0(); opt != nil {
		r.SetEdns0(4096, opt.Do())
	}
	_ = w.WriteMsg(r) // who asked asks again
}

func (z *SignedZone) answer(r *dns.Msg, name string, qtype uint16) error {
	soa, err := dns.NewRR(fmt.Sprintf("%s. 60 IN SOA ns.%s. root.%s. 1 60 60 60 60", z.Name, z.Name, z.Name))
	if err != nil {
		return err
	}
	all := []dns.RR{soa}
	if !z.Plain {
		all = append(all, z.key)
	}
	for _, text := range z.Records {
		rr, err := dns.NewRR(text)
		if err != nil {
			return err
		}
		all = append(all, rr)
	}
	var found []dns.RR
	types := []uint16{dns.TypeRRSIG, dns.TypeNSEC}
	for _, rr := range all {
		h := rr.Header()
		if dns.CanonicalName(h.Name) != name {
			continue
		}
		types = append(types, h.Rrtype)
		if h.Rrtype == qtype {
			found = append(found, rr)
		}
	}
	if len(found) > 0 {
		r.Answer, err = z.signed(found)
		return err
	}
	r.Ns, err = z.signed([]dns.RR{soa})
	if err != nil || z.Plain {
		return err
	}
	denial, err := z.signed([]dns.RR{&dns.NSEC{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 60}, NextDomain: `\000.` + name, TypeBitMap: sorted(types)}})
	r.Ns = append(r.Ns, denial...)
	return err
}

// signed adds the signature of a set of records.
func (z *SignedZone) signed(set []dns.RR) ([]dns.RR, error) {
	if z.Plain {
		return set, nil
	}
	h := set[0].Header()
	sig := &dns.RRSIG{Hdr: dns.RR_Header{Ttl: h.Ttl}, Algorithm: z.key.Algorithm, KeyTag: z.key.KeyTag(), SignerName: z.Name + ".",
		Inception: uint32(time.Now().Add(-time.Hour).Unix()), Expiration: uint32(time.Now().Add(time.Hour).Unix())}
	if err := sig.Sign(z.sign, set); err != nil {
		return nil, err
	}
	if z.Broken == dns.CanonicalName(h.Name)+" "+dns.TypeToString[h.Rrtype] {
		sig.Signature = strings.Repeat("A", 86) + "=="
	}
	return append(append([]dns.RR(nil), set...), sig), nil
}

func sorted(types []uint16) []uint16 {
	seen := map[uint16]bool{}
	var out []uint16
	for t := range uint16(1 << 9) {
		for _, have := range types {
			if have == t && !seen[t] {
				seen[t] = true
				out = append(out, t)
			}
		}
	}
	return out
}
