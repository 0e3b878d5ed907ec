// Package reputation asks lists by DNS about customers' addresses, sender domains and the domains that messages link to.
package reputation

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"sluice/filter"
	"sluice/filter/policy"
)

// Phases are the phases at which lists are asked. At mail the questions about source and sender are only begun, so that
// their answers are there at the end of the message.
var Phases = []filter.Phase{filter.Mail, filter.Data}

// Subject is what a list has.
type Subject string

// The subjects.
const (
	Source Subject = "source" // addresses
	Sender Subject = "sender" // domains of the envelope sender and the From field
	Link   Subject = "link"   // domains that messages link to
)

// Options are one list.
type Options struct {
	Name          string
	Zone          string // without a dot at its end
	Of            Subject
	Refuse, Note  []netip.Prefix // what answers mean; others mean nothing
	Class         filter.Class   // of what is refused
	Says          string         // "": a sentence with the list's name
	Failure       policy.Failure // Later or GoOn
	Timeout       time.Duration  // for all questions about one message
	Exempt        []netip.Prefix // sources that are never looked up
	ExemptDomains []string       // as A-labels
	Numeric       bool           // links to addresses are looked up, too
	Listed        string         // what the list has to have, before the zone
	Unlisted      string         // what it must not have
}

// Resolver looks up addresses, and remembers answers for a while. That there is none is a *net.DNSError with IsNotFound.
type Resolver interface {
	LookupA(ctx context.Context, name string) ([]netip.Addr, error)
}

// The answers that lists give (RFC 5782 2.1), and those by which they agree to tell that a question was not answered: asked
// too much, by an open resolver, for an unknown zone.
var (
	answers = netip.MustParsePrefix("127.0.0.0/8")
	refusal = netip.MustParsePrefix("127.255.255.0/24")
)

// internal are networks that are not of the internet: no list can know them.
var internal = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
}

func inside(a netip.Addr, all []netip.Prefix) bool {
	for _, p := range all {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func notFound(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}
