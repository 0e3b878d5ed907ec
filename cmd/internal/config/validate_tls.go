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
	v.acme(c)
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

// acme refuses what no authority would take, or what would leave two certificates.
func (v *validator) acme(c *Config) {
	a := &c.TLS.ACME
	if len(a.Listen) == 0 {
		return
	}
	if len(a.Names) == 0 {
		a.Names = []string{c.Smarthost.Name}
	}
	for i, n := range a.Names {
		if a.Names[i] = strings.ToLower(n); !fqdn(n) {
			v.report("tls.acme.names", strconv.Quote(n)+" is not a fully qualified host name", `write it like "smtp.provider.example"`)
		}
	}
	for _, l := range a.Listen {
		if l.Addr().IsUnspecified() || l.Port() != 80 && l.Port() != 443 {
			v.report("tls.acme.listen", l.String()+" is not port 80 or 443 of one address", "authorities look nowhere else")
		}
	}
	switch {
	case !a.Agree:
		v.report("tls.acme.agree", "the authority's terms of service are not agreed to", "read them, then write agree = true")
	case c.TLS.Certificate != "":
		v.report("tls.certificate", "tls.acme gets one, too", "remove one of both")
	case (a.Account == "") != (a.Key == ""):
		v.report("tls.acme.account", "account and account_key_file belong together", "give both, as the authority gave them, or neither")
	case a.Contact != "" && !Mailbox(a.Contact):
		v.report("tls.acme.contact", strconv.Quote(a.Contact)+" is not a mailbox", `write it like "hostmaster@provider.example"`)
	}
}

func (v *validator) strips(table, how, why string) {
	if how == "strip" && strings.TrimSpace(why) == "" {
		v.report(table+".starttls", "takes encryption from clients who ask for it", `say why: starttls_reason = "…", or write "terminate"`)
	}
	v.oneLine(table+".starttls_reason", why)
}
