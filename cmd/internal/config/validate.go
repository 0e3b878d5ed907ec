package config

import (
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// validator looks at what single values cannot tell.
type validator struct {
	doc  *document
	errs Errors
}

func (v *validator) report(key, what, remedy string) {
	v.errs = append(v.errs, Error{File: v.doc.file, Line: v.doc.line(key), Key: key, What: what, Remedy: remedy})
}

func validate(c *Config, doc *document) Errors {
	v := &validator{doc: doc}
	v.required(reflect.ValueOf(c).Elem(), schema(reflect.TypeFor[Config]()), "")
	v.gateway(&c.Gateway)
	v.intercept(&c.Intercept)
	v.delivery(&c.Delivery)
	v.protect(&c.Delivery)
	v.pools(c)
	v.users(c)
	v.modes(c)
	v.exempt(c.Exempt)
	v.shadow(c)
	v.smarthost(&c.Smarthost)
	v.sites(&c.Spool)
	v.connectors(c)
	v.paths(c)
	v.tls(c)
	v.content(c)
	v.identities(c)
	v.dkim(c)
	v.limits(c)
	v.plugins(c)
	v.dnsLists(c)
	v.public(c)
	v.notices(c)
	if n := c.Delivery.Stream; n > 0 && n < 1<<20 {
		v.report("delivery.stream", n.String()+" is too little to judge a message by", "give 1MiB or more, or 0B for none")
	}
	if c.SMTP.BodyMemory > c.SMTP.BodyMemoryTotal {
		v.report("smtp.body_memory", "one message may not have more memory than all together", "raise body_memory_total")
	}
	return v.errs.sorted()
}

// required reports keys without which nothing works.
func (v *validator) required(s reflect.Value, fields []*field, here string) {
	for _, f := range fields {
		key, fv := join(here, f.name), s.Field(f.index)
		switch {
		case f.list:
			for i := range fv.Len() {
				v.required(fv.Index(i), f.children, key+"["+strconv.Itoa(i)+"]")
			}
		case f.children != nil:
			v.required(fv, f.children, key)
		case f.tag.Get("required") != "" && (fv.IsZero() || fv.Kind() == reflect.Slice && fv.Len() == 0):
			v.report(key, "is missing", "add "+f.name+" = …: "+f.tag.Get("doc"))
		}
	}
}

func (v *validator) gateway(g *Gateway) {
	if g.Name != "" && !fqdn(g.Name) {
		v.report("gateway.name", strconv.Quote(g.Name)+" is not a fully qualified host name", `write it like "gw1.provider.example"`)
	}
	if u, err := url.Parse(g.HelpURL); g.HelpURL != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		v.report("gateway.help_url", strconv.Quote(g.HelpURL)+" is not a web address", `write it like "https://help.provider.example/mail/"`)
	}
	v.oneLine("gateway.contact", g.Contact)
	if g.AdminAddress != "" && !Mailbox(g.AdminAddress) {
		v.report("gateway.admin_address", strconv.Quote(g.AdminAddress)+" is not a mailbox", `write it like "postmaster@provider.example"`)
	}
}

// oneLine refuses text that could break an SMTP reply apart.
func (v *validator) oneLine(key, s string) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) || len(s) > 200 {
		v.report(key, "stands in SMTP replies and must be one line of at most 200 printable ASCII characters", "shorten or rewrite it")
	}
}

func (v *validator) intercept(i *Intercept) {
	for _, p := range i.CustomerInterfaces {
		v.pattern("intercept.customer_interfaces", p)
	}
	for _, p := range i.Uplinks {
		v.pattern("intercept.uplinks", p)
		if slices.Contains(i.CustomerInterfaces, p) {
			v.report("intercept.uplinks", strconv.Quote(p)+" is a customer interface too", "an interface is either one or the other")
		}
	}
	for _, p := range i.Ports {
		if p == 465 || p == 587 || p == 0 {
			v.report("intercept.ports", fmt.Sprintf("port %d cannot be intercepted", p), "only ports where mail servers speak plain SMTP to each other: 25, 2525")
		}
	}
	v.ports(i)
	for key, mark := range map[string]uint32{"intercept.mark": i.Mark, "intercept.judged_mark": i.JudgedMark} {
		if bits.OnesCount32(mark) != 1 {
			v.report(key, fmt.Sprintf("%#x is not exactly one bit", mark), "choose one that nothing else on this host uses, like 0x02000000")
		}
	}
	if i.Mark == i.JudgedMark {
		v.report("intercept.judged_mark", "is the same bit as mark", "choose another bit")
	}
	if slices.Contains([]uint32{253, 254, 255}, i.Table) {
		v.report("intercept.table", fmt.Sprintf("table %d belongs to the kernel", i.Table), "choose a number that no other program uses, like 5325")
	}
}

// maxExtraPorts is the room of the kernel's table of ports beside 25.
const maxExtraPorts = 8

func (v *validator) ports(i *Intercept) {
	type place struct {
		port    uint16
		pattern string
	}
	all, seen := map[uint16]bool{}, map[place]bool{}
	for _, p := range i.Ports {
		all[p], seen[place{p, ""}] = true, true
	}
	for n, p := range i.Port {
		key := fmt.Sprintf("intercept.port[%d]", n)
		switch {
		case p.Port == 25:
			v.report(key+".port", "port 25 is a mail port on every customer interface, by the mode of the source", "change the mode of the source, or name another port")
		case p.Port == 0: // reported as missing
		case (p.Port == 465 || p.Port == 587) && p.Mode == "intercept":
			v.report(key+".mode", fmt.Sprintf("port %d is submission to third parties, which is never opened", p.Port), `write mode = "pass" or mode = "reject"`)
		}
		all[p.Port] = true
		patterns := p.Interfaces
		if len(patterns) == 0 {
			patterns = []string{""}
		}
		for _, at := range patterns {
			if at != "" || len(p.Interfaces) > 0 {
				v.pattern(key+".interfaces", at)
			}
			if seen[place{p.Port, at}] {
				v.report(key+".port", fmt.Sprintf("port %d has a rule for these interfaces already", p.Port), "one rule for a port and interface; remove one")
			}
			seen[place{p.Port, at}] = true
		}
	}
	delete(all, 25)
	if len(all) > maxExtraPorts {
		v.report("intercept.port", fmt.Sprintf("%d mail ports beside 25 are more than the %d that there is room for", len(all), maxExtraPorts), "remove some")
	}
}

// pattern refuses what can match no interface (IFNAMSIZ is 16 with the final zero) or everything.
func (v *validator) pattern(key, p string) {
	_, err := path.Match(p, "x")
	switch {
	case err != nil:
		v.report(key, strconv.Quote(p)+" is not a shell pattern", "close its brackets")
	case p == "" || len(p) > 15 && !strings.ContainsAny(p, "*?["):
		v.report(key, strconv.Quote(p)+" names no interface", "interface names have 1 to 15 characters; see `ip link`")
	case strings.Trim(p, "*") == "":
		v.report(key, strconv.Quote(p)+" matches every interface", `name them by what they have in common, like "cust*" or "vlan*"`)
	}
}

// shadow holds that what is only watched can also go on: connections from customers' own addresses are made to port 25
// alone.
func (v *validator) shadow(c *Config) {
	if !slices.ContainsFunc(c.Intercept.MailPorts(), func(p uint16) bool { return p != 25 }) {
		return
	}
	modes := map[string]string{"intercept.default_mode": c.Intercept.DefaultMode}
	for i := range c.Exempt {
		modes[fmt.Sprintf("exempt[%d].mode", i)] = c.Exempt[i].Mode
	}
	for i := range c.User {
		modes[fmt.Sprintf("user[%d].mode", i)] = c.User[i].Mode
	}
	for i := range c.Mode {
		modes[fmt.Sprintf("mode[%d].mode", i)] = c.Mode[i].Mode
	}
	for key, mode := range modes {
		if mode == "shadow" || mode == "canary" {
			v.report(key, mode+" goes on to port 25 only, and intercept.ports has others", "write ports = [25], or another mode")
		}
	}
}

func (v *validator) delivery(d *Delivery) {
	seen := map[netip.Addr]bool{}
	for i, a := range d.Address {
		key := fmt.Sprintf("delivery.address[%d]", i)
		if a.Address.IsValid() {
			v.deliveryAddress(key+".address", a.Address, seen)
		}
		if a.Helo != "" && !fqdn(a.Helo) {
			v.report(key+".helo", strconv.Quote(a.Helo)+" is not a fully qualified host name", `write the name of the address's PTR record, like "out1.provider.example"`)
		}
	}
	usable := slices.ContainsFunc(d.Address, func(a Address) bool { return a.Weight > 0 })
	if d.Mode == "managed" && !usable {
		v.report("delivery.mode", `"managed" needs a delivery address with weight`, `add [[delivery.address]], or write mode = "own"`)
	}
}

func (v *validator) deliveryAddress(key string, a netip.Addr, seen map[netip.Addr]bool) {
	switch {
	case seen[a]:
		v.report(key, a.String()+" stands twice", "remove one, or raise its weight")
	case a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast():
		v.report(key, a.String()+" cannot send mail", "give a global unicast address")
	}
	seen[a] = true
}

func (v *validator) users(c *Config) {
	named := map[string]int{}
	held := map[netip.Prefix]string{}
	usable := slices.ContainsFunc(c.Delivery.Address, func(a Address) bool { return a.Weight > 0 })
	for i, u := range c.User {
		key := fmt.Sprintf("user[%d]", i)
		if first, ok := named[u.Name]; ok && u.Name != "" {
			v.report(key+".name", strconv.Quote(u.Name)+fmt.Sprintf(" stands on line %d already", v.doc.line(fmt.Sprintf("user[%d].name", first))), "give each user a name of his own")
		}
		named[u.Name] = i
		if err := CheckUserName(u.Name); u.Name != "" && err != nil {
			what, remedy, _ := strings.Cut(err.Error(), "; ")
			v.report(key+".name", what, remedy)
		}
		for _, p := range u.Prefixes {
			if other, ok := held[p.Prefix]; ok {
				v.report(key+".prefixes", p.String()+" belongs to user "+strconv.Quote(other)+" already", "an address has one user; narrow one of the two")
			}
			held[p.Prefix] = u.Name
		}
		v.binds(key, &u)
		if u.Contact != "" && !Mailbox(u.Contact) {
			v.report(key+".contact", strconv.Quote(u.Contact)+" is not a mailbox", `write it like "alice@customer.example"`)
		}
		if u.Delivery == "managed" && c.Delivery.Mode != "managed" && !usable {
			v.report(key+".delivery", `"managed" needs a delivery address`, "add [[delivery.address]]")
		}
	}
}

// modes holds that each prefix has one mode in the file.
func (v *validator) modes(c *Config) {
	held := map[netip.Prefix]string{}
	for _, u := range c.User {
		for _, p := range u.Prefixes {
			if u.ModeSet {
				held[p.Prefix] = "user " + strconv.Quote(u.Name)
			}
		}
	}
	for i, m := range c.Mode {
		key := fmt.Sprintf("mode[%d]", i)
		if other, ok := held[m.Prefix.Prefix]; ok {
			v.report(key+".prefix", m.Prefix.String()+" has a mode from "+other+" already", "remove one of the two")
		}
		held[m.Prefix.Prefix] = fmt.Sprintf("line %d", v.doc.line(key))
		if m.Mode == "canary" && m.Percent == 0 {
			v.report(key+".percent", "is missing: canary needs the share of users that it intercepts", "add percent = 1, or up to 99")
		}
		if m.Mode != "canary" && m.Percent != 0 {
			v.report(key+".percent", "belongs to mode canary only", "remove it, or write mode = \"canary\"")
		}
	}
}

// exempt holds that a destination has one exemption for a port.
func (v *validator) exempt(list []Exempt) {
	for i, x := range list {
		for j, y := range list[:i] {
			if x.Prefix == y.Prefix && x.Port == y.Port {
				v.report(fmt.Sprintf("exempt[%d].prefix", i), x.Prefix.String()+fmt.Sprintf(" has an exemption on line %d already", v.doc.line(fmt.Sprintf("exempt[%d]", j))), "remove one of the two, or give them different ports")
			}
		}
	}
}

func (v *validator) binds(user string, u *User) {
	seen := map[netip.Prefix]bool{}
	for i, b := range u.Bind {
		key := fmt.Sprintf("%s.bind[%d]", user, i)
		if b.Interface == "" && b.MAC == "" {
			v.report(key, "binds to nothing", "give interface, mac, or both")
		}
		if len(b.Interface) > 15 || strings.ContainsAny(b.Interface, "*?[/ ") {
			v.report(key+".interface", strconv.Quote(b.Interface)+" is not the name of one interface", "names have 1 to 15 characters and are no patterns here; see `ip link`")
		}
		if mac, err := net.ParseMAC(b.MAC); b.MAC != "" && (err != nil || len(mac) != 6 || mac[0]&1 != 0) {
			v.report(key+".mac", strconv.Quote(b.MAC)+" is not the Ethernet address of one device", "write it like 02:00:5e:10:00:07; see `ip neigh`")
		}
		if b.Prefix.IsValid() && !slices.ContainsFunc(u.Prefixes, func(p Prefix) bool { return p.Prefix == b.Prefix.Prefix }) {
			v.report(key+".prefix", b.Prefix.String()+" is none of the user's prefixes", "add it to prefixes, so that it is a source of its own, or write one that stands there")
		}
		if seen[b.Prefix.Prefix] {
			v.report(key+".prefix", "is bound twice", "one bind for each prefix, and one for the others")
		}
		seen[b.Prefix.Prefix] = true
	}
}

// CheckUserName refuses names that a command line or a table could not show, and those that made users have. The error
// reads "what; remedy".
func CheckUserName(name string) error {
	bad := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune(`/"'`, r) }
	if name == "" || strings.ContainsFunc(name, bad) || len(name) > 64 {
		return fmt.Errorf("%q cannot be a name; use at most 64 letters, digits, dots, dashes, @: no blanks, quotes or slashes (names with a slash are made for unknown sources)", name)
	}
	return nil
}

func (v *validator) paths(c *Config) {
	if l := c.API.Listen; l != "" {
		if a, err := netip.ParseAddrPort(l); err != nil || !a.Addr().IsLoopback() || a.Port() == 0 {
			v.report("api.listen", strconv.Quote(l)+" is not an address and port on loopback", "write it like 127.0.0.1:8460 or [::1]:8460; a TLS proxy in front serves other hosts")
		}
	}
	for key, p := range map[string]string{
		"intercept.pin_dir": c.Intercept.PinDir, "intercept.state_dir": c.Intercept.StateDir,
		"intercept.control_socket": c.Intercept.ControlSocket, "smtp.spill_dir": c.SMTP.SpillDir,
		"store.dir": c.Store.Dir, "log.dir": c.Log.Dir, "api.socket": c.API.Socket,
		"tls.certificate": c.TLS.Certificate, "tls.key": c.TLS.Key, "reports.folder": c.Reports.Folder,
	} {
		switch {
		case p == "" && (strings.HasPrefix(key, "tls.") || key == "reports.folder"):
		case !filepath.IsAbs(p):
			v.report(key, strconv.Quote(p)+" is not an absolute path", "begin it with a slash")
		case strings.HasSuffix(key, "socket") && len(p) > 107:
			v.report(key, "is longer than the 107 bytes a socket's path may have", "choose a shorter one")
		}
	}
}

// fqdn reports whether s is a host name of at least two labels (RFC 1123 2.1, RFC 5321 4.1.2).
func fqdn(s string) bool {
	labels := strings.Split(s, ".")
	for _, l := range labels {
		ok := l != "" && len(l) <= 63 && l[0] != '-' && l[len(l)-1] != '-' &&
			!strings.ContainsFunc(l, func(r rune) bool {
				return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-')
			})
		if !ok {
			return false
		}
	}
	return len(labels) >= 2 && len(s) <= 253
}

// Mailbox reports whether s looks like local@domain with nothing that could break a reply or header apart.
func Mailbox(s string) bool {
	i := strings.LastIndexByte(s, '@')
	return i > 0 && fqdn(s[i+1:]) && !strings.ContainsFunc(s[:i], func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`<>()",;:\[]@`, r) })
}
