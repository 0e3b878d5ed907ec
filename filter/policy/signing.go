package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Signing says whether a user's mail is signed on its way out (DKIM, SIG1), and by which keys.
type Signing struct {
	DKIM     DKIM
	Selector string // of his domains' keys; "": each domain's current ones
}

// DKIM says which of a user's mail is signed.
type DKIM uint8

// The answers.
const (
	DKIMOff      DKIM = iota // none
	DKIMUnsigned             // what carries no valid signature of its author's domain
	DKIMAlways               // all
)

var dkimNames = []string{"off", "unsigned", "always"}

// String returns the setting's name.
func (d DKIM) String() string {
	if int(d) >= len(dkimNames) {
		return "?"
	}
	return dkimNames[d]
}

// MarshalText returns the setting's name.
func (d DKIM) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the setting's name.
func (d *DKIM) UnmarshalText(text []byte) error {
	i := slices.Index(dkimNames, string(text))
	if i < 0 {
		return fmt.Errorf("dkim %q is unknown; use off, unsigned or always", text)
	}
	*d = DKIM(i)
	return nil
}

// CheckSelector tells what is wrong with the name of a selector: it is one or several labels of the DNS in small letters (RFC 6376 3.1).
func CheckSelector(s string) error {
	for label := range strings.SplitSeq(s, ".") {
		odd := strings.ContainsFunc(label, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' })
		if label == "" || len(s) > 63 || odd || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("the selector %q is no name in the DNS; write it like s2027 in small letters, 63 characters at most", s)
		}
	}
	return nil
}
