package config

import (
	"regexp"
	"strconv"
)

// DKIM is what holds for the keys of all domains.
type DKIM struct {
	Domain string   `toml:"domain" doc:"Domain of the provider, which signs what a user's setting wants signed and his own domains cannot sign: mail with another's From, or of a domain without a key. It needs a key of its own. Empty: such mail is not signed."`
	Keep   Duration `toml:"keep" default:"7d" min:"1d" max:"90d" doc:"How long the record of a replaced key stays needed in the DNS, for mail that it signed and that is still on its way."`
}

// selector is one or several labels of the DNS (RFC 6376 3.1).
var selector = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)

func (v *validator) dkim(c *Config) {
	if c.DKIM.Domain != "" && !fqdn(c.DKIM.Domain) {
		v.report("dkim.domain", strconv.Quote(c.DKIM.Domain)+" is not a domain", `write it like "provider.example"`)
	}
}

func (v *validator) selector(key, s string) {
	if s != "" && (len(s) > 63 || !selector.MatchString(s)) {
		v.report(key, strconv.Quote(s)+" is no name in the DNS", `write it like "s2027", in small letters`)
	}
}
