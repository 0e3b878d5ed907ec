package policy

import "fmt"

// Failure says what becomes of a mail that a plug-in could not be asked about (VIR2).
type Failure uint8

// The ways to go on.
const (
	AsPlugin Failure = iota // as the plug-in's own setting says
	Later                   // 451 4.3.0: the client comes again
	GoOn                    // without that opinion
)

var failureNames = [...]string{"plugin", "defer", "go-on"}

// String returns the setting's name in configuration and API.
func (f Failure) String() string {
	if int(f) < len(failureNames) {
		return failureNames[f]
	}
	return "?"
}

// ParseFailure reads the setting's name.
func ParseFailure(name string) (Failure, error) {
	for i, n := range failureNames {
		if n == name {
			return Failure(i), nil
		}
	}
	return 0, fmt.Errorf("failure %q is unknown; use plugin, defer or go-on", name)
}

// MarshalText returns the setting's name.
func (f Failure) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads the setting's name.
func (f *Failure) UnmarshalText(text []byte) error {
	v, err := ParseFailure(string(text))
	if err == nil {
		*f = v
	}
	return err
}
