package config

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// mostHeaders bounds the fields that tell an identity.
const mostHeaders = 16

func (v *validator) identities(c *Config) {
	v.identity("identity", &c.Identity)
	v.sender("sender", &c.Sender)
	for i := range c.User {
		v.sender(fmt.Sprintf("user[%d].sender", i), &c.User[i].Sender)
		v.identity(fmt.Sprintf("user[%d].identity", i), &c.User[i].Identity)
	}
}

func (v *validator) identity(key string, id *Identity) {
	if id.Method == "header" && len(id.Headers) == 0 {
		v.report(key+".headers", "is missing", `name the fields that the user's servers write, like headers = ["X-AuthUser", "X-PHP-Originating-Script", "Received"]`)
	}
	if len(id.Headers) > mostHeaders {
		v.report(key+".headers", fmt.Sprintf("%d fields are more than %d", len(id.Headers), mostHeaders), "keep those that are met")
	}
	for _, h := range id.Headers {
		name, pattern, _ := strings.Cut(h, ":")
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			v.report(key+".headers", fmt.Sprintf("%q is not the name of a header field", name), `write it like "X-AuthUser" or "X-Source-Dir: ^([^:]+)"`)
		}
		if re, err := regexp.Compile(strings.TrimSpace(pattern)); err != nil {
			v.report(key+".headers", fmt.Sprintf("%q: %v", h, err), "correct the regular expression")
		} else if pattern != "" && re.NumSubexp() != 1 {
			v.report(key+".headers", fmt.Sprintf("%q has %d capturing groups, want one", h, re.NumSubexp()), "write (?:…) for those that only group")
		}
	}
}

func (v *validator) sender(key string, s *Sender) {
	v.selector(key+".dkim_selector", s.DKIMSelector)
	if s.RequireDomain && len(s.Domains) == 0 && key != "sender" {
		v.report(key+".from_domains", "is missing: nothing could be sent", `name the user's domains, like from_domains = ["customer.example"]`)
	}
	if s.Mailbox == "listed" && len(s.Mailboxes) == 0 && key != "sender" {
		v.report(key+".from_mailboxes", "is missing: nothing could be sent", `name the user's mailboxes, like from_mailboxes = ["office@customer.example"]`)
	}
	for _, m := range s.Mailboxes {
		local, domain, _ := strings.Cut(m, "@")
		if local == "" || strings.ContainsAny(m, " ,|\"") || !strings.Contains(domain, ".") || strings.Contains(domain, "@") {
			v.report(key+".from_mailboxes", fmt.Sprintf("%q is not a mailbox", m), `write it like "office@customer.example"`)
		}
	}
	if _, err := time.Parse(time.DateOnly, s.Learn); s.Learn != "" && err != nil {
		v.report(key+".from_mailboxes_learnt_until", fmt.Sprintf("%q is not a day", s.Learn), `write it like "2027-01-31"`)
	}
	for _, d := range s.Domains {
		if strings.ContainsAny(d, " ,|@") || !strings.Contains(strings.TrimPrefix(d, "."), ".") {
			v.report(key+".from_domains", fmt.Sprintf("%q is not a domain", d), `write it like "customer.example", or ".customer.example" for all below it`)
		}
	}
}
