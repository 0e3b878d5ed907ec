package config

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// service is what is known of a mail service whose customers may have connectors.
type service struct {
	certificate string
	ranges      []string
}

// services publish their addresses: Microsoft in its list of endpoints (Exchange Online, port 25), Google by the SPF record
// _spf.google.com. Both change seldom, and a configuration can name newer ones.
var services = map[string]service{
	"microsoft365": {"mail.protection.outlook.com", []string{
		"40.92.0.0/15", "40.107.0.0/16", "52.100.0.0/14", "52.238.78.88/32", "104.47.0.0/17", "2a01:111:f400::/48", "2a01:111:f403::/48",
	}},
	"google": {"smtp.gmail.com", []string{
		"35.190.247.0/24", "35.191.0.0/16", "64.233.160.0/19", "66.102.0.0/20", "66.249.80.0/20", "72.14.192.0/18", "74.125.0.0/16",
		"108.177.8.0/21", "108.177.96.0/19", "130.211.0.0/22", "172.217.0.0/16", "172.253.56.0/21", "172.253.112.0/20", "173.194.0.0/16",
		"209.85.128.0/17", "216.58.192.0/19", "216.239.32.0/19", "2001:4860:4000::/36", "2404:6800:4000::/36", "2607:f8b0:4000::/36",
		"2800:3f0:4000::/36", "2a00:1450:4000::/36", "2c0f:fb50:4000::/36",
	}},
}

// originator is the field in which Exchange Online writes whose message it is.
const originator = "X-OriginatorOrg"

// Field is the header field that proves whose message it is, and whether what stands there is a secret.
func (c *Connector) Field() (name string, secret bool) {
	if c.ProofHeader != "" {
		return c.ProofHeader, true
	}
	return originator, false
}

// connectors fills in what is known of the services, and refuses what would let one customer pass for another.
func (v *validator) connectors(c *Config) {
	names, owners := map[string]bool{}, map[string]string{}
	for i := range c.Smarthost.Connector {
		n := &c.Smarthost.Connector[i]
		key := fmt.Sprintf("smarthost.connector[%d].", i)
		if names[n.Name] {
			v.report(key+"name", fmt.Sprintf("%q stands there twice", n.Name), "give each connector a name of its own")
		}
		names[n.Name] = true
		if strings.ContainsAny(n.Name, "@ \r\n\t") || strings.Contains(n.Name, ".") {
			v.report(key+"name", fmt.Sprintf("%q could be a login", n.Name), "use a word without dot, @ and space")
		}
		n.Domains = v.domainsOf(key+"domains", n.Domains)
		for _, d := range n.Domains {
			if o := owners[d]; o != "" {
				v.report(key+"domains", fmt.Sprintf("%s belongs to the connector %s, too", d, o), "one of both is wrong: whoever has the domain sends as it")
			}
			owners[d] = n.Name
		}
		v.proof(key, n)
		v.service(key, n)
	}
}

// domainsOf brings domains into the form in which they are compared.
func (v *validator) domainsOf(key string, all []string) []string {
	out := make([]string, 0, len(all))
	for _, d := range all {
		ascii, err := idna.Lookup.ToASCII(strings.ToLower(d))
		if err != nil || !strings.Contains(ascii, ".") {
			v.report(key, fmt.Sprintf("%q is not a domain", d), "write it like customer.example")
			continue
		}
		out = append(out, ascii)
	}
	return out
}

func (v *validator) proof(key string, n *Connector) {
	switch {
	case (n.ProofHeader == "") != (n.ProofFile == ""):
		v.report(key+"proof_header", "proof_header and proof_file belong together", "give both, or none")
	case n.ProofHeader == "" && n.Service != "microsoft365":
		v.report(key+"proof_header", "nothing would tell this customer from others at the same service", "have the service add a field with a secret, and name it in proof_header and proof_file")
	case n.ProofHeader != "" && len(n.Tenants) > 0:
		v.report(key+"tenants", "counts only where there is no proof_header", "remove one of them")
	case !fieldName(n.ProofHeader):
		v.report(key+"proof_header", fmt.Sprintf("%q is no name of a header field", n.ProofHeader), `write it like "X-Provider-Proof"`)
	}
	if n.ProofHeader == "" && len(n.Tenants) == 0 {
		n.Tenants = n.Domains
	}
}

// fieldName tells whether s may be a field's name (RFC 5322 2.2), and none that mail has in any case.
func fieldName(s string) bool {
	if s == "" {
		return true
	}
	return len(s) < 70 && strings.HasPrefix(strings.ToLower(s), "x-") && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' })
}

func (v *validator) service(key string, n *Connector) {
	known := services[n.Service]
	if n.Certificate == "" {
		n.Certificate = known.certificate
	}
	if n.Certificate == "" {
		v.report(key+"certificate", "is missing", "name the host in the certificate that the service shows")
	}
	if len(n.Ranges) == 0 {
		for _, r := range known.ranges {
			n.Ranges = append(n.Ranges, Prefix{netip.MustParsePrefix(r)})
		}
	}
	if len(n.Ranges) == 0 {
		v.report(key+"ranges", "is missing", "name the addresses from which the service sends")
	}
}
