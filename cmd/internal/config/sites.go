package config

import (
	"fmt"
	"strings"
)

// Site is a group of destinations with bounds of its own.
type Site struct {
	Name       string   `toml:"name" required:"true" doc:"Name in the queue's list."`
	Domains    []string `toml:"domains" doc:"Domains of recipients; with a dot before it, every domain below."`
	Exchangers []string `toml:"exchangers" doc:"Names of mail exchangers, of which a domain's first counts; with a dot before it, every name below, such as .mail.protection.outlook.com."`
	PerSite    int      `toml:"sessions" min:"0" max:"1000" doc:"Deliveries at once to all of these together. 0: spool.sessions_per_site."`
	PerSession int      `toml:"messages_per_session" min:"0" max:"10000" doc:"Messages after which a connection ends. 0: spool.messages_per_session."`
	PerHour    int      `toml:"messages_per_hour" min:"0" doc:"Messages to all of these together in any 60 minutes. 0: spool.messages_per_site_and_hour."`
}

// sites checks the groups of destinations, and writes their names as the queue compares them.
func (v *validator) sites(s *Spool) {
	named, taken := map[string]bool{}, map[string]string{}
	for i := range s.Site {
		one := &s.Site[i]
		key := fmt.Sprintf("spool.site[%d]", i)
		if named[one.Name] {
			v.report(key+".name", fmt.Sprintf("%q is there twice", one.Name), "give each site a name of its own")
		}
		named[one.Name] = true
		if len(one.Domains)+len(one.Exchangers) == 0 {
			v.report(key, "names no destination", "add domains or exchangers")
		}
		for what, list := range map[string][]string{"domains": one.Domains, "exchangers": one.Exchangers} {
			for k, name := range list {
				list[k] = strings.ToLower(strings.TrimSuffix(name, "."))
				if !fqdn(strings.TrimPrefix(list[k], ".")) {
					v.report(key+"."+what, fmt.Sprintf("%q is not a name", name), `write it like "shop.example", or ".shop.example" for all below`)
				}
				if before, ok := taken[what+list[k]]; ok && before != one.Name {
					v.report(key+"."+what, fmt.Sprintf("%q is of the site %q already", name, before), "name it in one of them")
				}
				taken[what+list[k]] = one.Name
			}
		}
	}
}
