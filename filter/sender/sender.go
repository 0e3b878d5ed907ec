// Package sender checks who a message says that it is from, and what its client calls itself.
package sender

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"sluice/filter"
	"sluice/filter/message"
)

// Phases are the phases at which Syntax is asked.
var Phases = []filter.Phase{filter.Mail}

// Syntax refuses senders that are no mailbox by RFC 5321 4.1.2, and non-ASCII ones without SMTPUTF8 (RFC 6531). The null
// reverse-path is always right.
type Syntax struct{}

// New returns the check.
func New() Syntax { return Syntax{} }

// Check implements filter.Check in phase mail.
func (Syntax) Check(_ context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	if p != filter.Mail || m.Envelope.From == "" {
		return hits
	}
	err := Valid(m.Envelope.From, m.Envelope.SMTPUTF8)
	if err == nil {
		return hits
	}
	h := filter.Hit{
		Code: "SENDER-SYNTAX", Class: filter.Policy, Action: filter.Reject, SMTP: 553, Enhanced: "5.1.7",
		Text: "sender address is not valid: " + err.Error(), Evidence: fmt.Sprintf("%.300q", string(m.Envelope.From)),
	}
	if errors.Is(err, ErrUTF8) {
		h.Code, h.Enhanced = "SENDER-UTF8", "5.6.7" // RFC 6531 3.5
	}
	return append(hits, h)
}

// ErrUTF8 says that an address needs SMTPUTF8.
var ErrUTF8 = errors.New("it is not ASCII and SMTPUTF8 was not asked for")

// Valid returns why a is no mailbox (RFC 5321 4.1.2), or nil. With utf8 it may hold non-ASCII text (RFC 6531 3.3).
func Valid(a message.Address, utf8ok bool) error {
	if usual(string(a)) {
		return nil
	}
	return valid(string(a), utf8ok)
}

// valid looks at every kind of address.
func valid(s string, utf8ok bool) error {
	if !utf8ok && !ascii(s) {
		return ErrUTF8
	}
	if !utf8.ValidString(s) {
		return errors.New("it is not valid UTF-8")
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return errors.New("it has no @ and domain")
	}
	if err := local(s[:at]); err != nil {
		return err
	}
	return domain(s[at+1:])
}

// What may stand in an address of the usual form.
const (
	inLocal  = 1 << iota // before the @, beside dots
	inDomain             // behind it, beside dots
	inNumber
)

var usualBytes = func() (all [256]uint8) {
	for c := range all {
		switch c := byte(c); {
		case '0' <= c && c <= '9':
			all[c] = inLocal | inDomain | inNumber
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '-', c == '_':
			all[c] = inLocal | inDomain
		case c == '+', c == '=':
			all[c] = inLocal
		}
	}
	return all
}()

// usual tells of nearly every address in one pass that it is a mailbox: it is short, and of letters, digits and few marks. Others
// are looked at closer.
func usual(s string) bool {
	at, dot := 0, true // a dot may not come now
	for ; at < len(s) && s[at] != '@'; at++ {
		if isDot := s[at] == '.'; isDot && dot || !isDot && usualBytes[s[at]]&inLocal == 0 {
			return false
		}
		dot = s[at] == '.'
	}
	if dot || at > 64 || len(s)-at > 254 {
		return false
	}
	label, number := at+1, true
	for i := at + 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '.':
			if !hostPart(s[label:i]) {
				return false
			}
			label, number = i+1, true
		case usualBytes[c]&inDomain == 0:
			return false
		case c == '-' && s[i-1] == '-': // it may be punycode
			return false
		default:
			number = number && usualBytes[c]&inNumber != 0
		}
	}
	return label <= len(s) && hostPart(s[label:]) && !number
}

// hostPart tells of a label of the right characters whether it may stand in a domain.
func hostPart(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-'
}

// longestLocal is beyond the 64 octets that every server has to take (RFC 5321 4.5.3.1.1): rewritten senders (SRS, BATV, VERP) are
// longer, and the destinations take them.
const longestLocal = 512

// local checks a local part: Dot-string or Quoted-string.
func local(s string) error {
	switch {
	case s == "":
		return errors.New("nothing stands before the @")
	case len(s) > longestLocal:
		return fmt.Errorf("more than %d bytes stand before the @", longestLocal)
	case s[0] == '"':
		return quoted(s)
	}
	dot := true // a dot may not come now
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.' && dot:
			return errors.New("a dot stands first or after another")
		case c == '.':
			dot = true
		case atext(c):
			dot = false
		default:
			return errors.New("a character before the @ needs quotes or is not allowed")
		}
	}
	if dot {
		return errors.New("a dot stands last before the @")
	}
	return nil
}

func quoted(s string) error {
	if len(s) < 2 || s[len(s)-1] != '"' {
		return errors.New("its quotes do not close")
	}
	for s = s[1 : len(s)-1]; s != ""; s = s[1:] {
		switch c := s[0]; {
		case c == '\\':
			if s = s[1:]; s == "" || s[0] < ' ' || s[0] > '~' {
				return errors.New("nothing that may be quoted follows a backslash")
			}
		case c == '"' || c < ' ' || c == 0x7f:
			return errors.New("a character inside its quotes is not allowed")
		}
	}
	return nil
}

// atext reports whether c may stand in an atom (RFC 5322 3.2.3), or is part of a non-ASCII character.
func atext(c byte) bool {
	switch {
	case c >= 0x80, c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// domain checks a domain name or an address literal.
func domain(s string) error {
	switch {
	case s == "":
		return errors.New("nothing stands after the @")
	case s[0] == '[':
		return literal(s)
	case len(s) > 255:
		return errors.New("its domain is longer than 255 bytes")
	}
	hard := !ascii(s) // punycode needs a closer look
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if err := hostLabel(label); err != nil {
			return err
		}
		hard = hard || len(label) >= 4 && strings.EqualFold(label[:4], "xn--")
		last = label
	}
	if digits(last) {
		return errors.New("its domain ends in a number; an IP address needs brackets")
	}
	if !hard {
		return nil
	}
	if a, err := idna.Lookup.ToASCII(s); err != nil || len(a) > 253 {
		return errors.New("its domain is no valid international domain name")
	}
	return nil
}

// hostLabel checks one label of a domain. The underscore is no host name's but is met in names that exist in the DNS.
func hostLabel(s string) error {
	switch {
	case s == "":
		return errors.New("a part of its domain is empty")
	case len(s) > 63 && ascii(s):
		return errors.New("a part of its domain is longer than 63 bytes")
	case s[0] == '-' || s[len(s)-1] == '-':
		return errors.New("a part of its domain starts or ends with a hyphen")
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 0x80 || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return errors.New("its domain has a character that no domain has")
		}
	}
	return nil
}

// literal checks an address literal (RFC 5321 4.1.3).
func literal(s string) error {
	wrong := errors.New("its address in brackets is not an IP address")
	if s[len(s)-1] != ']' {
		return errors.New("the bracket of its address does not close")
	}
	s = s[1 : len(s)-1]
	six := len(s) > 5 && strings.EqualFold(s[:5], "IPv6:")
	if six {
		s = s[5:]
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is4() == six || a.Zone() != "" {
		return wrong
	}
	return nil
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
