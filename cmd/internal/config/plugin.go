package config

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// Plugin is a program beside the gateway that is asked for its opinion of messages.
type Plugin struct {
	Name     string   `toml:"name" required:"true" doc:"In log and status."`
	Kind     string   `toml:"kind" required:"true" enum:"clamd|rspamd|spamd|milter" doc:"clamd: ClamAV's daemon. rspamd: Rspamd's worker for scans, by HTTP. spamd: SpamAssassin's daemon. milter: any milter; it hears the dialogue from its beginning once the message is there, a refusal of one recipient is one of the message, and what it wants to change is said in the log and not done."`
	Address  []string `toml:"address" required:"true" doc:"Where it listens: 127.0.0.1:3310, scanner.provider.example:3310 or unix:/run/clamav/clamd.ctl. Of several, which are instances of the same program, the next one is asked where one does not answer."`
	Action   string   `toml:"action" default:"refuse" enum:"refuse|weigh|note" doc:"refuse: what it objects to is refused; of what it calls spam or phishing content.on_spam says what becomes. weigh: nothing is refused because it says so. The points of Rspamd and SpamAssassin count, with what was learnt and the rules, in the one probability that content.unsure and content.spam are about. note: it is only said in the log, also where it cannot be asked."`
	Failure  string   `toml:"failure" default:"defer" enum:"defer|go-on" doc:"What becomes of a message about which no instance can be asked in time. defer: 451 4.3.0. go-on: without this opinion."`
	Timeout  Duration `toml:"timeout" default:"10s" min:"100ms" max:"2m" doc:"For one message, all instances together. After five failures in a row no message waits for an instance any more, until it answers a ping."`
	MaxSize  Size     `toml:"max_size" default:"25MiB" min:"64KiB" max:"1GiB" doc:"How much of a message it is shown. The program's own limit must not be lower. Of kind spamd 512KiB where it is left out: SpamAssassin takes many seconds for large ones."`
	Oversize string   `toml:"oversize" default:"begin" enum:"begin|pass|refuse" doc:"What becomes of larger messages. begin: it is shown their beginning. pass: it is not asked. refuse: 552 5.3.4. The log says so in any case."`
	AtOnce   int      `toml:"at_once" default:"16" min:"1" max:"1000" doc:"Messages that it is asked about at the same time; others wait, within the time-out."`
	Trusted  []string `toml:"trusted" doc:"Of kind clamd: patterns of names, such as \"Provider.*\", of signatures that are not ClamAV's own and certain all the same. What other foreign signatures and heuristics find is refused and counts towards no lock."`
	Class    string   `toml:"class" default:"policy" enum:"policy|spam|phish|virus" doc:"Of kind milter: what its refusals mean. policy: a rule, which counts towards no lock. spam and phish: content.on_spam says what becomes of the message."`
	Marks    []string `toml:"marks" doc:"Of kind milter: fields by which it marks bad mail, such as \"X-Spam-Flag: YES\". Adding one counts as a refusal."`
}

// DNSList is a list that is asked by DNS (RFC 5782).
type DNSList struct {
	Name          string   `toml:"name" required:"true" doc:"In log, status and replies."`
	Zone          string   `toml:"zone" required:"true" doc:"Where it is asked, such as zen.dnslist.example."`
	Of            string   `toml:"of" required:"true" enum:"source|sender|link" doc:"What is looked up. source: addresses of customers. sender: domains of the envelope sender and the From field. link: domains that a message links to."`
	Refuse        []Prefix `toml:"refuse" doc:"Answers for which mail is refused, such as 127.0.0.2 or 127.0.0.0/28."`
	Note          []Prefix `toml:"note" doc:"Answers that are only said in the log. Others mean nothing. Answers outside of 127.0.0.0/8 and those in 127.255.255.0/24 are errors of the list."`
	Class         string   `toml:"class" enum:"policy|spam|phish" doc:"What a refusal means. policy: a rule, which counts towards no lock. spam and phish: content.on_spam says what becomes of the message. Left out: spam for links, policy for sources and senders."`
	Says          string   `toml:"says" doc:"What the client reads, in place of a sentence with the name of the list."`
	Failure       string   `toml:"failure" default:"go-on" enum:"defer|go-on" doc:"What becomes of mail while the list does not answer or has been taken out. go-on: without this opinion. defer: 451 4.3.0."`
	Timeout       Duration `toml:"timeout" default:"3s" min:"100ms" max:"30s" doc:"For all questions about one message."`
	Exempt        []Prefix `toml:"exempt" doc:"Of source: networks that are never looked up, beside those that are not of the internet (private, loopback, link-local, shared)."`
	ExemptDomains []string `toml:"exempt_domains" doc:"Of sender and link: domains that are never looked up, with all below them."`
	Numeric       bool     `toml:"numeric" doc:"Of link: look up links to bare addresses, too. Not every list knows any."`
	Listed        string   `toml:"listed" doc:"What the list has to have, as it stands before the zone; a list that has not is dead and is taken out. Left out: 2.0.0.127, of domains test (RFC 5782 5)."`
	Unlisted      string   `toml:"unlisted" doc:"What it must not have; one that has it lists everything and is taken out. Left out: 1.0.0.127, of domains invalid."`
}

// plugins refuses what no program could be found at.
func (v *validator) plugins(c *Config) {
	seen := map[string]bool{}
	for i := range c.Plugin {
		p := &c.Plugin[i]
		key := fmt.Sprintf("plugin[%d].", i)
		v.label(key+"name", p.Name, seen)
		for _, a := range p.Address {
			v.meetingPoint(key+"address", a)
		}
		if p.Kind == "spamd" && !v.doc.has(key+"max_size") {
			p.MaxSize = 512 << 10
		}
		if p.Kind != "clamd" && len(p.Trusted) > 0 {
			v.report(key+"trusted", "belongs to kind clamd", "remove it")
		}
		for _, t := range p.Trusted {
			if _, err := path.Match(t, ""); err != nil {
				v.report(key+"trusted", strconv.Quote(t)+" is no pattern", `write it like "Provider.*"`)
			}
		}
		if p.Kind != "milter" {
			if len(p.Marks) > 0 {
				v.report(key+"marks", "belongs to kind milter", "remove it")
			}
			if v.doc.has(key + "class") {
				v.report(key+"class", "belongs to kind milter", "remove it")
			}
		}
		for _, m := range p.Marks {
			if name, _, ok := strings.Cut(m, ":"); !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
				v.report(key+"marks", strconv.Quote(m)+" is no header field", `write it like "X-Spam-Flag: YES"`)
			}
		}
		if t := c.SMTP.FilterTimeout; p.Timeout > t {
			v.report(key+"timeout", fmt.Sprintf("%s is longer than all checks together may take, %s", p.Timeout, t), "lower it, or raise smtp.filter_timeout")
		}
	}
}

// label refuses names that cannot stand in a log line, or stand twice.
func (v *validator) label(key, name string, seen map[string]bool) {
	if seen[name] {
		v.report(key, strconv.Quote(name)+" stands there twice", "give each a name of its own")
	}
	seen[name] = true
	if len(name) > 40 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"'/:`, r) }) {
		v.report(key, strconv.Quote(name)+" cannot be a name", "use at most 40 letters, digits, dots and dashes")
	}
}

// meetingPoint refuses what is neither a socket's path nor a host with a port.
func (v *validator) meetingPoint(key, a string) {
	if p, ok := strings.CutPrefix(a, "unix:"); ok {
		if !filepath.IsAbs(p) || len(p) > 107 {
			v.report(key, strconv.Quote(a)+" names no socket", "write it like unix:/run/clamav/clamd.ctl, with at most 107 bytes behind the colon")
		}
		return
	}
	host, port, err := net.SplitHostPort(a)
	n, err2 := strconv.ParseUint(port, 10, 16)
	if err != nil || err2 != nil || n == 0 || host == "" || strings.ContainsAny(host, " /@") {
		v.report(key, strconv.Quote(a)+" is no address with a port", "write it like 127.0.0.1:3310, [2001:db8::1]:3310 or unix:/run/clamav/clamd.ctl")
	}
}

// dnsLists fills in what is usual for the kind of list.
func (v *validator) dnsLists(c *Config) {
	seen := map[string]bool{}
	for i := range c.DNSList {
		l := &c.DNSList[i]
		key := fmt.Sprintf("dnslist[%d].", i)
		v.label(key+"name", l.Name, seen)
		l.Zone = strings.ToLower(strings.TrimSuffix(l.Zone, "."))
		if l.Zone != "" && !fqdn(l.Zone) {
			v.report(key+"zone", strconv.Quote(l.Zone)+" is not a domain", "write it like zen.dnslist.example")
		}
		if len(l.Refuse)+len(l.Note) == 0 {
			v.report(key+"refuse", "nothing is said of what an answer means", "give refuse or note, such as refuse = [\"127.0.0.2\"]; the list's operators say which answers there are")
		}
		if slices.ContainsFunc(slices.Concat(l.Refuse, l.Note), func(p Prefix) bool { return !loopback.Contains(p.Addr()) || p.Bits() < loopback.Bits() }) {
			v.report(key+"refuse", "answers of lists are in 127.0.0.0/8", "correct it: any other answer is a mistake of the list, such as that of a zone that was sold")
		}
		v.oneLine(key+"says", l.Says)
		for j, d := range l.ExemptDomains {
			ascii, err := idna.Lookup.ToASCII(strings.ToLower(strings.TrimSuffix(d, ".")))
			if err != nil || ascii == "" {
				v.report(key+"exempt_domains", strconv.Quote(d)+" is not a domain", "write it like customer.example")
				continue
			}
			l.ExemptDomains[j] = ascii
		}
		if l.Of != "source" && len(l.Exempt) > 0 {
			v.report(key+"exempt", "belongs to lists of sources", "remove it, or use exempt_domains")
		}
		usual(&l.Class, map[string]string{"link": "spam"}[l.Of], "policy")
		usual(&l.Listed, map[string]string{"source": "2.0.0.127"}[l.Of], "test")
		usual(&l.Unlisted, map[string]string{"source": "1.0.0.127"}[l.Of], "invalid")
	}
}

// loopback holds all answers of lists (RFC 5782 2.1).
var loopback = netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)

// usual gives s the first of two values that is one, where it has none.
func usual(s *string, first, second string) {
	switch {
	case *s != "":
	case first != "":
		*s = first
	default:
		*s = second
	}
}
