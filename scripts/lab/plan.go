package lab

import (
	"fmt"
	"net/netip"
)

// Names of the two hosts that every lab has beside its customers.
const (
	HostGateway  = "gw"  // forwards between customers and internet; Sluice runs here
	HostInternet = "net" // router, DNS and all MX hosts, each on addresses of its own
)

// Fixed addresses of the plan. Everything is from the documentation prefixes
// (RFC 5737, RFC 3849).
var (
	GatewayV4 = netip.MustParseAddr("203.0.113.1")
	GatewayV6 = netip.MustParseAddr("2001:db8:203::1")

	// DeliveryV4 and DeliveryV6 are routed by the internet to the gateway and
	// configured nowhere: the gateway's programs make them local.
	DeliveryV4 = netip.MustParsePrefix("203.0.113.16/28")
	DeliveryV6 = netip.MustParsePrefix("2001:db8:203:1::/64")

	// ResolverV4 and ResolverV6 answer DNS for everybody.
	ResolverV4 = netip.MustParseAddr("198.51.100.53")
	ResolverV6 = netip.MustParseAddr("2001:db8:100::53")

	routerV4 = netip.MustParseAddr("203.0.113.2")
	routerV6 = netip.MustParseAddr("2001:db8:203::2")
)

// DNSList is the zone of the lab's DNS block list; Lab.List fills it.
const DNSList = "bl.example"

// Domains is how many domains d01.example, d02.example … lead to the MX "sink".
const Domains = 30

// Scripted is how many MX hosts peer01, peer02 … stand ready for scripts; the
// domain of peer01 is peer01.example.
const Scripted = 10

// Customer is a host in the customer network, on a link of its own.
type Customer struct {
	Name string // also the first label of its host name, as in alice.example
	V4   netip.Addr
	V6   netip.Addr
}

// DefaultCustomers are the customers of a lab whose Options name none, in the
// order of the gateway's interfaces cust0, cust1 and so on.
func DefaultCustomers() []Customer {
	return []Customer{
		{Name: "alice", V4: netip.MustParseAddr("192.0.2.10"), V6: netip.MustParseAddr("2001:db8:1::10")},
		{Name: "bob", V4: netip.MustParseAddr("192.0.2.20"), V6: netip.MustParseAddr("2001:db8:2::20")},
		{Name: "mallory", V4: netip.MustParseAddr("192.0.2.66"), V6: netip.MustParseAddr("2001:db8:66::66")},
		{Name: "dave", V4: netip.MustParseAddr("192.0.2.30"), V6: netip.MustParseAddr("2001:db8:3::30")},
	}
}

// An MX is one mail host of the internet. Its domain is Name.example and its
// host name mx.Name.example.
type MX struct {
	Name string
	Kind Kind
	Last int    // 198.51.100.Last and 2001:db8:100::Last (same digits)
	Only string // "4" or "6" where it has only that family
	Note string
	// Sink settings, for kinds that are one.
	Sink SinkOptions
}

// Kind says what answers at an MX.
type Kind int

// The kinds of MX.
const (
	KindSink      Kind = iota // this package's byte-exact server
	KindPostfix               // Debian's Postfix
	KindExim                  // Debian's Exim
	KindOpenSMTPD             // Debian's OpenSMTPD
	KindHaraka                // Haraka, for Node.js
	KindAiosmtpd              // aiosmtpd, for Python
	KindGoSMTP                // emersion/go-smtp's server
	KindRefused               // nothing listens: connection refused
	KindDropped               // packets vanish
)

// V4 is the IPv4 address, invalid where the MX has none.
func (m MX) V4() netip.Addr {
	if m.Only == "6" {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{198, 51, 100, byte(m.Last)})
}

// V6 is the IPv6 address, invalid where the MX has none.
func (m MX) V6() netip.Addr {
	if m.Only == "4" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:100::%d", m.Last))
}

// Domain is the domain whose only MX this is.
func (m MX) Domain() string { return m.Name + ".example" }

// Hostname is what the MX calls itself.
func (m MX) Hostname() string { return "mx." + m.Name + ".example" }

// Addrs are the addresses it has, IPv4 first.
func (m MX) Addrs() []netip.Addr {
	var all []netip.Addr
	for _, a := range []netip.Addr{m.V4(), m.V6()} {
		if a.IsValid() {
			all = append(all, a)
		}
	}
	return all
}

// Foreign tells whether this project did not write the server.
func (k Kind) Foreign() bool { return KindPostfix <= k && k <= KindGoSMTP }

// A Door is one way to a foreign server: one address of it, which offers STARTTLS or does not.
type Door struct {
	Addr   netip.Addr
	TLS    bool
	Domain string // its only MX is this address
}

// Doors are the four ways to a foreign server, those with STARTTLS first; tls4.exim.example is the domain of
// Exim's first. The addresses without STARTTLS are 50 above the server's own.
func (m MX) Doors() []Door {
	var all []Door
	for _, tls := range []bool{true, false} {
		at, kind := m, "tls"
		if !tls {
			at.Last, kind = m.Last+50, "bare"
		}
		all = append(all, Door{at.V4(), tls, kind + "4." + m.Domain()}, Door{at.V6(), tls, kind + "6." + m.Domain()})
	}
	return all
}

// Hosts are the MX hosts of every lab.
func Hosts() []MX {
	all := []MX{
		{Name: "postfix", Kind: KindPostfix, Last: 10, Note: "Debian's Postfix"},
		{Name: "exim", Kind: KindExim, Last: 11, Note: "Debian's Exim"},
		{Name: "opensmtpd", Kind: KindOpenSMTPD, Last: 12, Note: "Debian's OpenSMTPD"},
		{Name: "haraka", Kind: KindHaraka, Last: 13, Note: "Haraka"},
		{Name: "aiosmtpd", Kind: KindAiosmtpd, Last: 14, Note: "Debian's aiosmtpd"},
		{Name: "sink", Last: 20, Note: "stores byte for byte; also MX of d01 … d30.example"},
		{Name: "selfsigned", Last: 21, Note: "STARTTLS with a self-signed certificate", Sink: SinkOptions{TLS: true}},
		{Name: "tlsonly", Last: 22, Note: "530 5.7.0 without STARTTLS", Sink: SinkOptions{TLS: true, RequireTLS: true}},
		{Name: "grey", Last: 23, Note: "451 4.7.1 at first, as greylisting does", Sink: SinkOptions{Grey: true}},
		{Name: "gosmtp", Kind: KindGoSMTP, Last: 24, Note: "go-smtp's server"},
		{Name: "plain", Last: 25, Note: "knows HELO only, no extensions", Sink: SinkOptions{NoESMTP: true}},
		{Name: "v6only", Last: 26, Only: "6", Note: "IPv6 only"},
		{Name: "v4only", Last: 27, Only: "4", Note: "IPv4 only"},
		{Name: "alive", Last: 30, Note: "second MX of deadfirst and slowfirst"},
		{Name: "refused", Kind: KindRefused, Last: 41, Note: "connection refused; first MX of deadfirst"},
		{Name: "dropped", Kind: KindDropped, Last: 42, Note: "silently dropped; first MX of slowfirst"},
	}
	for i := 1; i <= Scripted; i++ {
		all = append(all, MX{Name: fmt.Sprintf("peer%02d", i), Last: 100 + i, Note: "scripted, without CHUNKING", Sink: SinkOptions{NoChunks: true}})
	}
	return all
}

// HostMX finds an MX by its name.
func HostMX(name string) (MX, error) {
	for _, m := range Hosts() {
		if m.Name == name {
			return m, nil
		}
	}
	return MX{}, fmt.Errorf("could not find MX %q in the lab's plan; Hosts lists them", name)
}
