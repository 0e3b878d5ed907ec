package tlspolicy

import (
	"context"
	"net/netip"
	"time"
)

// Kind is what the DNS is asked for.
type Kind uint8

// The kinds.
const (
	MXs       Kind = iota // mail exchangers of a domain
	Addresses             // of a host, both families
	Aliases               // the alias at a name itself, not what it leads to
	Records               // TLSA
	Texts                 // TXT
	Pointers              // names of an address, which stands in place of the name
)

// Answer is what the DNS says of a name. One without records is an answer, too.
type Answer struct {
	// Secure: a validating resolver that is trusted vouches for all of it by DNSSEC, aliases on the way and the absence of
	// records included (RFC 7672 2.1.1).
	Secure bool
	Name   string        // where aliases led to, in lower case, without a last dot; the name itself where there is none
	TTL    time.Duration // of the shortest-lived part
	MX     []MX          // in the DNS's order
	Addrs  []netip.Addr
	TLSA   []TLSA
	Texts  []string // each with its parts joined
	Names  []string // of an address
}

// MX is one mail exchanger.
type MX struct {
	Host       string // in lower case, without a last dot; "" is that of a domain which takes no mail (RFC 7505)
	Preference uint16
}

// DNS asks the DNS. An error says that there was no answer: nobody answered in time, or the resolver failed, as it does
// where DNSSEC finds an answer forged. It never says that there is no such record.
type DNS interface {
	Look(ctx context.Context, name string, kind Kind) (Answer, error)
}
