package policy

import "fmt"

// StartTLS says what becomes of a client's STARTTLS (DEL7).
type StartTLS uint8

// The ways to treat it.
const (
	Terminate StartTLS = iota // offered with the gateway's certificate where the onward leg is encrypted, and read
	Pass                      // left to client and destination: metered, attributed, not read
	Strip                     // never offered
)

var startTLSNames = [...]string{"terminate", "pass", "strip"}

// String returns the setting's name in configuration and API.
func (s StartTLS) String() string {
	if int(s) < len(startTLSNames) {
		return startTLSNames[s]
	}
	return "?"
}

// ParseStartTLS reads the setting's name.
func ParseStartTLS(name string) (StartTLS, error) {
	for i, n := range startTLSNames {
		if n == name {
			return StartTLS(i), nil
		}
	}
	return 0, fmt.Errorf("starttls %q is unknown; use terminate, pass or strip", name)
}

// MarshalText returns the setting's name.
func (s StartTLS) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the setting's name.
func (s *StartTLS) UnmarshalText(text []byte) error {
	v, err := ParseStartTLS(string(text))
	if err == nil {
		*s = v
	}
	return err
}
