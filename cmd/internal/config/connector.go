package config

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// services are those whose certificate and addresses are known. The addresses stand in files of the folder ranges, each with
// where they are published and when that was compared; a configuration can name a newer file (ranges_file).
var services = map[string]string{"microsoft365": "mail.protection.outlook.com", "google": "smtp.gmail.com"}

//go:embed ranges
var published embed.FS

// publishedRanges are the addresses of a service as of this version; none where it is not known.
func publishedRanges(service string) ([]Prefix, error) {
	text, err := published.ReadFile("ranges/" + service + ".txt")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ParseRanges(string(text))
}

// ParseRanges reads prefixes, one a line; # begins a comment.
func ParseRanges(text string) (all []Prefix, err error) {
	for n, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		p, err := netip.ParsePrefix(line)
		if err != nil || p != p.Masked() {
			return nil, fmt.Errorf("line %d: %q is not a prefix; write it like 203.0.113.0/24, one a line", n+1, line)
		}
		all = append(all, Prefix{p})
	}
	return all, nil
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
	if n.Certificate == "" {
		n.Certificate = services[n.Service]
	}
	if n.Certificate == "" {
		v.report(key+"certificate", "is missing", "name the host in the certificate that the service shows")
	}
	switch {
	case len(n.Ranges) > 0 && n.RangesFile != "":
		v.report(key+"ranges_file", "stands beside ranges", "remove one of them")
	case len(n.Ranges) > 0 || n.RangesFile != "":
		return
	}
	var err error
	if n.Ranges, err = publishedRanges(n.Service); err != nil {
		v.report(key+"ranges", err.Error(), "name the addresses from which the service sends")
	} else if len(n.Ranges) == 0 {
		v.report(key+"ranges", "is missing", "name the addresses from which the service sends, or a file with them in ranges_file")
	}
}
