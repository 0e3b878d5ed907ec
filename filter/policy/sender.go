package policy

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/idna"
)

// Sender are the rules about who a user may be as the sender of a message, and what his client calls itself (FRM1, FRM2, FRM4, FRM5).
type Sender struct {
	RequireDomain bool         // envelope sender and header From are of Domains
	Domains       *Domains     // his; nil: none
	Mailbox       MailboxRule  // envelope sender and header From are of these mailboxes
	Mailboxes     *Mailboxes   // his; nil: none
	LearnUntil    Day          // the last day on which FoundMailbox lets every mailbox pass; 0: none
	Valid         bool         // the sender's domain takes mail
	DeferUnknown  bool         // where the DNS does not say so in time the client is to try again; else the mail goes on
	RefuseNull    bool         // no mail with the null sender
	DMARC         DMARCOutcome // what becomes of mail that would fail DMARC at its domain's p=reject
	Hello         bool         // a doubtful name in EHLO is said in the log, and counts a little
}

// DMARCOutcome says what becomes of mail of which DMARC's failure is predicted.
type DMARCOutcome uint8

// The outcomes.
const (
	DMARCOff    DMARCOutcome = iota // nobody looks
	DMARCLog                        // it is said in the log
	DMARCRefuse                     // it is refused with the reason
)

var dmarcNames = []string{"off", "log", "refuse"}

// String returns the setting's name.
func (d DMARCOutcome) String() string {
	if int(d) >= len(dmarcNames) {
		return "?"
	}
	return dmarcNames[d]
}

// MarshalText returns the setting's name.
func (d DMARCOutcome) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the setting's name.
func (d *DMARCOutcome) UnmarshalText(text []byte) error {
	i := slices.Index(dmarcNames, string(text))
	if i < 0 {
		return fmt.Errorf("dmarc_prediction %q is unknown; use off, log or refuse", text)
	}
	*d = DMARCOutcome(i)
	return nil
}

// mostDomains bounds the domains of one user.
const mostDomains = 10_000

// Domains are names of domains as A-labels in small letters, sorted. ".customer.example" stands for all below it.
type Domains []string

// ParseDomains reads domains that spaces or commas part.
func ParseDomains(text string) (Domains, error) {
	var all Domains
	for d := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ' ' || r == ',' || r == '|' }) {
		rest, below := strings.CutPrefix(d, ".")
		a, err := ALabel(rest)
		if err != nil {
			return nil, fmt.Errorf("%q is not a domain; write it like customer.example, or .customer.example for all below it", d)
		}
		if below {
			a = "." + a
		}
		all = append(all, a)
	}
	if len(all) > mostDomains {
		return nil, fmt.Errorf("%d domains are more than %d", len(all), mostDomains)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// MarshalText writes the domains as UnmarshalText reads them.
func (d Domains) MarshalText() ([]byte, error) { return []byte(strings.Join(d, " ")), nil }

// UnmarshalText reads domains that spaces or commas part.
func (d *Domains) UnmarshalText(text []byte) error {
	all, err := ParseDomains(string(text))
	if err == nil {
		*d = all
	}
	return err
}

// Has tells whether a domain, in whatever form, is one of them.
func (d *Domains) Has(domain string) bool {
	if d == nil {
		return false
	}
	a, err := ALabel(domain)
	if err != nil {
		return false
	}
	if _, ok := slices.BinarySearch(*d, a); ok {
		return true
	}
	for {
		_, above, ok := strings.Cut(a, ".")
		if !ok {
			return false
		}
		if _, ok := slices.BinarySearch(*d, "."+above); ok {
			return true
		}
		a = above
	}
}

// ALabel is a domain as the DNS has it: A-labels, small letters, no dot at its end (RFC 5890 2.3.2.1).
func ALabel(domain string) (string, error) {
	domain = strings.TrimSuffix(domain, ".")
	plain := domain != ""
	for i := range len(domain) {
		c := domain[i]
		plain = plain && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_')
	}
	if plain && !strings.Contains(domain, "xn--") && !strings.Contains(domain, "..") && domain[0] != '.' {
		return domain, nil
	}
	return idna.Lookup.ToASCII(strings.ToLower(domain))
}
