package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Pool is one group of delivery addresses.
type Pool struct {
	Name      string       `toml:"name" required:"true" doc:"Name in log and commands. primary: that of all who have no other; left out, it has the addresses that no pool names."`
	Addresses []netip.Addr `toml:"addresses" doc:"Addresses of [[delivery.address]]. One may stand in several pools."`
	Own       bool         `toml:"own" default:"false" doc:"No addresses: mail leaves from the customer's own."`
	Users     []string     `toml:"users" doc:"Users whose mail leaves through it."`
	Senders   []string     `toml:"senders" doc:"Domains of senders whose mail leaves through it, before users are looked at; with a dot before it, every domain below."`
	Class     string       `toml:"class" enum:"|bounce|risk|forwarded" doc:"bounce: mail with a null sender, whoever sends it. risk: mail that the filter does not let leave beside the usual mail, instead of putting it off. forwarded: mail that came from elsewhere and that the user only passes on; on an intercepted connection the destination is mostly given the envelope anew from there, and what cannot leave that way leaves as his other mail."`
}

// BlockList is a DNS list of bad senders.
type BlockList struct {
	Zone  string   `toml:"zone" required:"true" doc:"Where addresses are looked up, such as bl.example."`
	Codes []string `toml:"codes" required:"true" doc:"Answers that mean a listing: addresses, or ranges such as 127.0.0.2-127.0.0.11. Any other answer is an error of the list, never a listing."`
}

// Range reads one of the codes.
func (b *BlockList) Range(code string) (r [2]netip.Addr, err error) {
	low, high, ok := strings.Cut(code, "-")
	if !ok {
		high = low
	}
	for i, text := range []string{low, high} {
		if r[i], err = netip.ParseAddr(strings.TrimSpace(text)); err != nil || !r[i].Is4() {
			return r, fmt.Errorf("%q is not an IPv4 address; lists answer 127.0.0.2 and the like", text)
		}
	}
	if r[1].Less(r[0]) {
		return r, fmt.Errorf("%q ends before it begins; write the lower address first", code)
	}
	return r, nil
}

// pools checks pools and lists.
func (v *validator) pools(c *Config) {
	d := &c.Delivery
	named, classes := map[string]bool{}, map[string]bool{}
	for i, p := range d.Pool {
		key := fmt.Sprintf("delivery.pool[%d]", i)
		switch {
		case named[p.Name]:
			v.report(key+".name", fmt.Sprintf("%q is there twice", p.Name), "give each pool a name of its own")
		case p.Own == (len(p.Addresses) > 0):
			v.report(key, "has not exactly one of addresses and own = true", "say from where its mail leaves")
		case p.Name != "primary" && len(p.Users)+len(p.Senders) == 0 && p.Class == "":
			v.report(key, "is used by nobody", "add users, senders or class, or name it primary")
		case p.Class != "" && classes[p.Class]:
			v.report(key+".class", fmt.Sprintf("class %s has a pool already", p.Class), "one pool for a class")
		case p.Class == "risk" && p.Own:
			v.report(key, "risky mail cannot leave from customers' own addresses apart from their other mail", "give it addresses")
		}
		named[p.Name] = true
		classes[p.Class] = true
		for _, a := range p.Addresses {
			if !slices.ContainsFunc(d.Address, func(x Address) bool { return x.Address == a && x.Weight > 0 }) {
				v.report(key+".addresses", a.String()+" is no delivery address with weight", "add it as [[delivery.address]]")
			}
		}
		for _, u := range p.Users {
			v.poolUser(key+".users", u, d.Pool[:i])
		}
		for _, s := range p.Senders {
			if !fqdn(strings.TrimPrefix(s, ".")) {
				v.report(key+".senders", fmt.Sprintf("%q is not a domain", s), `write it like "shop.example", or ".shop.example" for all below`)
			}
		}
	}
	for _, n := range d.WarmUp {
		if n < 0 {
			v.report("delivery.warm_up", fmt.Sprintf("%d is no number of messages", n), "write 0 or more for each day")
		}
	}
	for i := range d.List {
		l := &d.List[i]
		if l.Zone != "" && !fqdn(l.Zone) {
			v.report(fmt.Sprintf("delivery.list[%d].zone", i), fmt.Sprintf("%q is not a name", l.Zone), "write it like bl.example")
		}
		for _, code := range l.Codes {
			if _, err := l.Range(code); err != nil {
				what, remedy, _ := strings.Cut(err.Error(), "; ")
				v.report(fmt.Sprintf("delivery.list[%d].codes", i), what, remedy)
			}
		}
	}
}

// poolUser holds that a user has one pool.
func (v *validator) poolUser(key, user string, before []Pool) {
	for _, p := range before {
		if slices.Contains(p.Users, user) {
			v.report(key, fmt.Sprintf("user %q has the pool %q already", user, p.Name), "name him in one of them")
		}
	}
}
