package config

import (
	"fmt"
	"strconv"
	"strings"
)

// content looks at what only makes sense together: thresholds, and what becomes of mail with what has to be there for that.
func (v *validator) content(c *Config) {
	k := &c.Content
	v.contentOf(c, "content", &UserContent{Unsure: k.Unsure, Spam: k.Spam, OnSpam: k.OnSpam, OnUnsure: k.OnUnsure})
	for i := range c.User {
		v.contentOf(c, fmt.Sprintf("user[%d].content", i), &c.User[i].Content)
	}
	for _, a := range c.Reports.Traps {
		if a = strings.ToLower(a); !Mailbox(a) && !fqdn(a) {
			v.report("reports.traps", strconv.Quote(a)+" is neither an address nor a domain", "write it like old.box@example.net or trap.example.net")
		}
	}
}

func (v *validator) contentOf(c *Config, key string, u *UserContent) {
	if u.Unsure > u.Spam {
		v.report(key+".unsure", fmt.Sprintf("%g is above the threshold of spam, %g", u.Unsure, u.Spam), "lower it, or raise "+key+".spam")
	}
	if u.OnSpam == "discard" && !c.Content.Discard {
		v.report(key+".on_spam", "content.discard does not allow to discard mail", "use quarantine, or set content.discard = true: its sender then believes that it went out, and nobody has a copy")
	}
	if (u.OnSpam == "high-risk" || u.OnUnsure == "high-risk") && !c.Delivery.HasRiskPool() {
		v.report(key, "there is no delivery pool of class risk, by which high-risk mail would leave", `add [[delivery.pool]] with class = "risk" and addresses of its own`)
	}
}

// HasRiskPool tells whether there is a pool for mail that is not to leave beside the usual mail.
func (d *Delivery) HasRiskPool() bool {
	for i := range d.Pool {
		if d.Pool[i].Class == "risk" {
			return true
		}
	}
	return false
}
