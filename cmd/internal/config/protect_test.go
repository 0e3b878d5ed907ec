package config

import (
	"strings"
	"testing"
)

func TestRulesOfTheOnwardLeg(t *testing.T) {
	t.Parallel()
	good := `
[[delivery.protect]]
domain = ".bank.example"
level = "verified"
reason = "contract"
[[delivery.protect]]
host = "mx.partner.example"
level = "required"
reason = "contract"
[[delivery.protect]]
prefix = "198.51.100.0/24"
level = "verified"
names = ["mx.a.example", ".b.example"]
reason = "contract"
[dns]
servers = ["192.0.2.53", "2001:db8::53"]
dnssec = "trust"
`
	c, err := Parse("p.toml", []byte(minimal+good))
	if err != nil || len(c.Delivery.Protect) != 3 || len(c.DNS.Servers) != 2 || !c.DNS.Report || c.Delivery.TLS != "opportunistic" {
		t.Fatalf("%v, %+v", err, c)
	}
	for text, want := range map[string]string{
		`level = "required"`: "exactly one of",
		"domain = \"a.example\"\nhost = \"mx.a.example\"\nlevel = \"required\"":    "exactly one of",
		"domain = \"a b.example\"\nlevel = \"required\"":                           "is not a domain",
		"host = \"mx\"\nlevel = \"required\"":                                      "not a fully qualified",
		"prefix = \"192.0.2.1\"\nlevel = \"verified\"":                             "no name to verify",
		"domain = \"a.example\"\nlevel = \"required\"\nnames = [\"mx.a.example\"]": "means nothing",
		"domain = \"a.example\"\nlevel = \"verified\"\nnames = [\"*.a.example\"]":  "is not a host name",
		"domain = \"a.example\"\nlevel = \"always\"":                               "is not known",
		"domain = \".bank.example\"\nlevel = \"required\"":                         "already",
	} {
		_, err := Parse("p.toml", []byte(minimal+good+"[[delivery.protect]]\nreason = \"x\"\n"+text+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
