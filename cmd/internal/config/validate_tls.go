package config

import (
	"fmt"
	"strconv"
	"strings"
)

// tls looks at the client's leg. What takes encryption from customers has to say why, so that it is never an accident.
func (v *validator) tls(c *Config) {
	if (c.TLS.Certificate == "") != (c.TLS.Key == "") {
		v.report("tls.certificate", "certificate and key belong together", "give both, or neither for a self-made certificate")
	}
	v.strips("tls", c.TLS.StartTLS, c.TLS.StartTLSReason)
	for i := range c.User {
		if key := fmt.Sprintf("user[%d]", i); v.doc.has(key + ".starttls") {
			v.strips(key, c.User[i].StartTLS, c.User[i].StartTLSReason)
		}
	}
	for i, x := range c.TLS.Destination {
		for j, y := range c.TLS.Destination[:i] {
			if x.Prefix == y.Prefix && x.Port == y.Port {
				v.report(fmt.Sprintf("tls.destination[%d].prefix", i), x.Prefix.String()+fmt.Sprintf(" has a rule on line %d already", v.doc.line(fmt.Sprintf("tls.destination[%d]", j))), "remove one of the two, or give them different ports")
			}
		}
		v.oneLine(fmt.Sprintf("tls.destination[%d].reason", i), x.Reason)
	}
	for _, d := range c.TLS.CADomains {
		if d != strings.ToLower(d) || !fqdn(d) {
			v.report("tls.ca_domains", strconv.Quote(d)+" is not a domain", `write it like "customers.provider.example", in small letters`)
		}
	}
}

func (v *validator) strips(table, how, why string) {
	if how == "strip" && strings.TrimSpace(why) == "" {
		v.report(table+".starttls", "takes encryption from clients who ask for it", `say why: starttls_reason = "…", or write "terminate"`)
	}
	v.oneLine(table+".starttls_reason", why)
}
