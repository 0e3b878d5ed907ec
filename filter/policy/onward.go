package policy

import "fmt"

// OnwardTLS says how the leg to a destination must be protected, where the destination has no rule of its own (DEL6).
type OnwardTLS uint8

// The levels.
const (
	Opportunistic OnwardTLS = iota // encrypted where the destination can, with any certificate
	RequireTLS                     // encrypted, with any certificate, or the recipient is deferred
	VerifyTLS                      // encrypted, with a trusted certificate for an exchanger of the recipient's domain
)

var onwardNames = [...]string{"opportunistic", "required", "verified"}

// String returns the setting's name in configuration and API.
func (o OnwardTLS) String() string {
	if int(o) < len(onwardNames) {
		return onwardNames[o]
	}
	return "?"
}

// ParseOnwardTLS reads the setting's name.
func ParseOnwardTLS(name string) (OnwardTLS, error) {
	for i, n := range onwardNames {
		if n == name {
			return OnwardTLS(i), nil
		}
	}
	return 0, fmt.Errorf("tls %q is unknown; use opportunistic, required or verified", name)
}

// MarshalText returns the setting's name.
func (o OnwardTLS) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads the setting's name.
func (o *OnwardTLS) UnmarshalText(text []byte) error {
	v, err := ParseOnwardTLS(string(text))
	if err == nil {
		*o = v
	}
	return err
}
