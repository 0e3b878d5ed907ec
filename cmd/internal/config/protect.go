package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// Protect is a rule how the leg to one destination is protected.
type Protect struct {
	Prefix Prefix   `toml:"prefix" doc:"Destination prefix or address. Exactly one of prefix, host and domain is given; domain goes before host, host before prefix, and a longer prefix before a shorter one."`
	Host   string   `toml:"host" doc:"Name of a mail server; the rule is for its addresses, which are looked up every few minutes."`
	Domain string   `toml:"domain" doc:"Domain of recipients; with a dot before it, every domain below."`
	Level  string   `toml:"level" required:"true" enum:"none|opportunistic|required|verified" doc:"As delivery.tls. none: never encrypted, for servers whose STARTTLS does harm."`
	Names  []string `toml:"names" doc:"Of level verified: the names of which the certificate must bear one; with a dot before it, any name below. Left out: the host; of a domain, itself and every name below. With prefix they are needed."`
	Reason string   `toml:"reason" required:"true" doc:"Why, for whoever reads the file next."`
}

// DNS says who is asked.
type DNS struct {
	Servers []netip.Addr `toml:"servers" doc:"Resolvers for the TLSA, MX and MTA-STS records of destinations. Empty: those of /etc/resolv.conf."`
	Report  bool         `toml:"report" default:"true" doc:"Look up in the background what recipients' domains ask for by DANE and MTA-STS, and tell in the log whether intercepted mail got it: some questions, and at most one web page, for each new domain in an hour. Nothing depends on it."`
	DNSSEC  string       `toml:"dnssec" default:"local" enum:"local|trust|off" doc:"Whose word counts that an answer is vouched for by DNSSEC, without which no TLSA record is used. local: that of resolvers on this host's loopback addresses. trust: that of every resolver, for a validating one behind a safe way. off: nobody's. sluiced does not validate by itself."`
}

// protect checks the rules of the onward leg.
func (v *validator) protect(d *Delivery) {
	seen := map[string]int{}
	for i, p := range d.Protect {
		key := fmt.Sprintf("delivery.protect[%d]", i)
		what := strings.ToLower(p.Host) + strings.ToLower(p.Domain)
		given := 0
		for _, there := range []bool{p.Prefix.IsValid(), p.Host != "", p.Domain != ""} {
			if there {
				given++
			}
		}
		if p.Prefix.IsValid() {
			what = p.Prefix.String()
		}
		switch first, double := seen[what]; {
		case given != 1:
			v.report(key, "has not exactly one of prefix, host and domain", "say for which destination it is, in one way")
		case p.Host != "" && !fqdn(p.Host):
			v.report(key+".host", fmt.Sprintf("%q is not a fully qualified host name", p.Host), `write it like "mx1.bank.example"`)
		case p.Domain != "" && !fqdn(strings.TrimPrefix(p.Domain, ".")):
			v.report(key+".domain", fmt.Sprintf("%q is not a domain", p.Domain), `write it like "bank.example", or ".bank.example" for all below`)
		case double:
			v.report(key, fmt.Sprintf("%s has a rule on line %d already", what, v.doc.line(fmt.Sprintf("delivery.protect[%d]", first))), "remove one of the two")
		case p.Prefix.IsValid() && p.Level == "verified" && len(p.Names) == 0:
			v.report(key+".names", "is missing: an address alone has no name to verify", `add names = ["mx1.bank.example"], or give host or domain instead of prefix`)
		case p.Level != "verified" && len(p.Names) > 0:
			v.report(key+".names", fmt.Sprintf("means nothing at level %s", p.Level), "remove it, or set level to verified")
		}
		seen[what] = i
		for _, n := range p.Names {
			if !fqdn(strings.TrimPrefix(n, ".")) {
				v.report(key+".names", fmt.Sprintf("%q is not a host name", n), `write it like "mx1.bank.example", or ".bank.example" for all below`)
			}
		}
	}
}
