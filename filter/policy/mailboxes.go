package policy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MailboxRule says which mailboxes a user may be as the sender of a message.
type MailboxRule uint8

// The rules.
const (
	AnyMailbox    MailboxRule = iota // nobody looks
	ListedMailbox                    // those of his list
	FoundMailbox                     // and those that were found in his own good mail; until the end of the learning time all
)

var mailboxRules = []string{"off", "listed", "found"}

// String returns the setting's name.
func (r MailboxRule) String() string {
	if int(r) >= len(mailboxRules) {
		return "?"
	}
	return mailboxRules[r]
}

// MarshalText returns the setting's name.
func (r MailboxRule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the setting's name.
func (r *MailboxRule) UnmarshalText(text []byte) error {
	i := slices.Index(mailboxRules, string(text))
	if i < 0 {
		return fmt.Errorf("require_from_mailbox %q is unknown; use off, listed or found", text)
	}
	*r = MailboxRule(i)
	return nil
}

// Day is a date, in days since 1970 (UTC). 0 is none.
type Day int

// Before tells whether the day is over at t.
func (d Day) Before(t time.Time) bool { return t.Unix() >= (int64(d)+1)*86400 }

// String writes the day like 2027-01-31, none as nothing.
func (d Day) String() string {
	if d == 0 {
		return ""
	}
	return time.Unix(int64(d)*86400, 0).UTC().Format(time.DateOnly)
}

// MarshalText writes the day as UnmarshalText reads it.
func (d Day) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a day like 2027-01-31.
func (d *Day) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = 0
		return nil
	}
	t, err := time.Parse(time.DateOnly, string(text))
	if err != nil || t.Unix() <= 0 {
		return fmt.Errorf("%q is not a day; write it like 2027-01-31", text)
	}
	*d = Day(t.Unix() / 86400)
	return nil
}

// mostMailboxes bounds the mailboxes of one user.
const mostMailboxes = 2000

// Mailboxes are mailboxes in the form of AppendMailbox, sorted.
type Mailboxes []string

// ParseMailboxes reads mailboxes that spaces or commas part.
func ParseMailboxes(text string) (Mailboxes, error) {
	var all Mailboxes
	for one := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ' ' || r == ',' || r == '|' }) {
		m, ok := AppendMailbox(nil, one)
		if !ok {
			return nil, fmt.Errorf("%.300q is not a mailbox; write it like office@customer.example", one)
		}
		all = append(all, string(m))
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) > mostMailboxes {
		return nil, fmt.Errorf("%d mailboxes are more than %d; name the domains in from_domains instead", len(all), mostMailboxes)
	}
	return all, nil
}

// MarshalText writes the mailboxes as UnmarshalText reads them.
func (l Mailboxes) MarshalText() ([]byte, error) { return []byte(strings.Join(l, " ")), nil }

// UnmarshalText reads mailboxes that spaces or commas part.
func (l *Mailboxes) UnmarshalText(text []byte) error {
	all, err := ParseMailboxes(string(text))
	if err == nil {
		*l = all
	}
	return err
}

// Has tells whether a mailbox, in the form of AppendMailbox, is one of them.
func (l *Mailboxes) Has(mailbox []byte) bool {
	if l == nil {
		return false
	}
	_, ok := slices.BinarySearchFunc(*l, mailbox, func(a string, b []byte) int { return strings.Compare(a, string(b)) })
	return ok
}

// longestMailbox is the length of the longest path without its brackets (RFC 5321 4.5.3.1.3).
const longestMailbox = 254

// AppendMailbox appends an address in the form in which mailboxes are compared: small letters, the domain as A-labels, and of
// the local part neither what follows a + nor a tag before it that proves who sent it (prvs=). It is false for what is no
// mailbox, has quotes, or could not stand in one line.
func AppendMailbox[T string | []byte](dst []byte, address T) ([]byte, bool) {
	at := lastAt(address)
	if at < 1 || at > 64+len("prvs=0123456789=") || len(address) > longestMailbox {
		return dst, false
	}
	begin, hard := len(dst), false
	for i := range at {
		c := address[i]
		if c == '+' && len(dst) > begin {
			break
		}
		if !plainLocal(c) && c < utf8.RuneSelf {
			return dst[:begin], false
		}
		hard = hard || c >= utf8.RuneSelf
		dst = append(dst, small(c))
	}
	if hard {
		raw := string(dst[begin:])
		local := strings.ToLower(raw)
		if !utf8.ValidString(raw) || strings.ContainsFunc(local, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return dst[:begin], false
		}
		dst = append(dst[:begin], local...)
	}
	dst, ok := appendDomain(append(untagged(dst, begin), '@'), begin, address[at+1:])
	if len(dst)-begin > longestMailbox { // A-labels may be longer
		return dst[:begin], false
	}
	return dst, ok
}

// appendDomain appends a domain as A-labels, or gives dst back to begin.
func appendDomain[T string | []byte](dst []byte, begin int, domain T) ([]byte, bool) {
	from, dots, easy, hyphens := len(dst), 0, len(domain) > 0, false
	for i := range len(domain) {
		c := small(domain[i])
		hyphens = hyphens || c == '-' && i > 0 && domain[i-1] == '-'
		easy = easy && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' && i > 0 && domain[i-1] != '.')
		if c == '.' {
			dots++
		}
		dst = append(dst, c)
	}
	if d := dst[from:]; easy && dots > 0 && d[len(d)-1] != '.' && !(hyphens && bytes.Contains(d, []byte("xn--"))) {
		return dst, true
	}
	a, err := ALabel(string(domain))
	if err != nil || !strings.Contains(a, ".") || strings.Contains(a, "..") || strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(",|<>\"", r) }) {
		return dst[:begin], false
	}
	return append(dst[:from], a...), true
}

// untagged takes away what stands before a local part to prove who sent it, prvs=tag=local (BATV).
func untagged(dst []byte, begin int) []byte {
	rest, ok := bytes.CutPrefix(dst[begin:], []byte("prvs="))
	if !ok {
		return dst
	}
	if _, local, ok := bytes.Cut(rest, []byte("=")); ok && len(local) > 0 {
		return append(dst[:begin], local...)
	}
	return dst
}

func lastAt[T string | []byte](s T) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '@' {
			return i
		}
	}
	return -1
}

func small(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// plainLocal tells whether c may stand in an atom or between two (RFC 5322 3.2.3), and in a list of mailboxes.
func plainLocal(c byte) bool {
	c = small(c)
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-/=?^_`{}~.", c) >= 0
}
