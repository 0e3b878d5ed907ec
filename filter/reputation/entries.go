package reputation

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"sluice/filter/content/view"
	"sluice/filter/message"
)

// maxDomains bounds the domains of one message that are looked up: the first and the last ones, as a text of many harmless
// links could hide a bad one on either side.
const maxDomains = 24

const hexDigits = "0123456789abcdef"

// reversed is an address as lists of addresses have it (RFC 5782 2.1, 2.4).
func reversed(a netip.Addr) string {
	var b []byte
	if a.Is4() {
		for _, octet := range slices.Backward(a.AsSlice()) {
			b = append(b, netip.AddrFrom4([4]byte{octet}).String()...)
			b = append(b[:len(b)-len(".0.0.0")], '.')
		}
		return string(b[:len(b)-1])
	}
	for _, octet := range slices.Backward(a.AsSlice()) {
		b = append(b, hexDigits[octet&15], '.', hexDigits[octet>>4], '.')
	}
	return string(b[:len(b)-1])
}

// domainEntry is a host as lists of domains have it: the registered part of its name, as A-labels. "" where it is none.
func domainEntry(host string, exempt []string) string {
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 || !strings.Contains(host, ".") {
		return ""
	}
	ascii, err := idna.Lookup.ToASCII(host)
	if err != nil {
		if ascii = plain(host); ascii == "" { // names with an underscore are no host names, and exist
			return ""
		}
	}
	for _, e := range exempt {
		if ascii == e || strings.HasSuffix(ascii, "."+e) {
			return ""
		}
	}
	registered, err := publicsuffix.EffectiveTLDPlusOne(ascii)
	if err != nil {
		return ""
	}
	return registered
}

// plain is a name in small letters, "" where it is not ASCII or has what would break the question.
func plain(host string) string {
	host = strings.ToLower(host)
	if strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || strings.Contains(host, "..") || host[0] == '.' {
		return ""
	}
	return host
}

// senders are the domains that a message says to be from.
func senders(m *message.Message, exempt []string) (entries []string) {
	add := func(domain string) {
		if e := domainEntry(strings.ToLower(domain), exempt); e != "" && !slices.Contains(entries, e) {
			entries = append(entries, e)
		}
	}
	add(m.Envelope.From.Domain())
	if len(m.Data) > 0 {
		authors, _ := message.Authors(m.Data) // whom nobody can read no list knows
		for _, a := range authors[:min(len(authors), 4)] {
			add(a.Domain())
		}
	}
	return entries
}

// links are the domains, and addresses where wanted, that a message links to.
func links(v *view.View, o *Options) (entries []string) {
	for i := range v.Links {
		host := v.Links[i].Host()
		entry := ""
		if a, err := netip.ParseAddr(host); err == nil {
			if a = a.Unmap(); o.Numeric && a.Is4() && !inside(a, internal) {
				entry = reversed(a)
			}
		} else {
			entry = domainEntry(host, o.ExemptDomains)
		}
		if entry != "" && !slices.Contains(entries, entry) {
			entries = append(entries, entry)
		}
	}
	if n := len(entries); n > maxDomains {
		entries = append(entries[:maxDomains/2:maxDomains/2], entries[n-maxDomains/2:]...)
	}
	return entries
}
