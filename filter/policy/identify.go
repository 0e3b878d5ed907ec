package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// IdentifyBy says what tells the finer senders behind one user apart (ATT4).
type IdentifyBy uint8

// The methods.
const (
	ByNothing  IdentifyBy = iota // the user is one sender
	BySender                     // the envelope sender
	ByLogin                      // who logged in at the smarthost
	ByHeader                     // a header field that the user's own servers write
	identifyBy                   // how many there are
)

var identifyNames = [...]string{"none", "sender", "login", "header"}

// String returns the method's name in configuration and API.
func (i IdentifyBy) String() string {
	if i >= identifyBy {
		return "?"
	}
	return identifyNames[i]
}

// MarshalText returns the method's name.
func (i IdentifyBy) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText reads the method's name.
func (i *IdentifyBy) UnmarshalText(text []byte) error {
	n := slices.Index(identifyNames[:], string(text))
	if n < 0 {
		return fmt.Errorf("identity method %q is unknown; use none, sender, login or header", text)
	}
	*i = IdentifyBy(n)
	return nil
}

// Bounds of Identify.
const (
	MaxIdentifyHeaders = 16
	maxIdentifyHosts   = 64
	maxHeaderRule      = 500
)

// Identify says how the identities of a user are found. It is not changed once it is in settings.
type Identify struct {
	Method  IdentifyBy   `json:"method"`            // "none", "sender", "login" or "header"
	Headers []HeaderRule `json:"headers,omitempty"` // of method header: those the user trusts, tried in order
	Hosts   []string     `json:"hosts,omitempty"`   // names of his own servers in Received fields; empty: the name in HELO
	Remove  bool         `json:"remove,omitempty"`  // the field that told is not sent on, unless a signature covers it
}

// HeaderRule is one header field that tells the identity: by the ready-made form for the name or its whole value where
// Pattern is nil, else by what its one group captures.
type HeaderRule struct {
	Name    string
	Pattern *regexp.Regexp
}

// MarshalText writes the rule as UnmarshalText reads it.
func (h HeaderRule) MarshalText() ([]byte, error) {
	if h.Pattern == nil {
		return []byte(h.Name), nil
	}
	return []byte(h.Name + ": " + h.Pattern.String()), nil
}

// UnmarshalText reads "X-AuthUser", or with a regular expression that has one capturing group "X-Source-Dir: ^([^:]+)".
func (h *HeaderRule) UnmarshalText(text []byte) error {
	name, pattern, has := strings.Cut(string(text), ":")
	if len(text) > maxHeaderRule {
		return fmt.Errorf("header rule %.40q… is longer than %d bytes; shorten it", text, maxHeaderRule)
	}
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%q is not the name of a header field; write X-AuthUser, or X-Source-Dir: ^([^:]+)", name)
	}
	*h = HeaderRule{Name: name}
	if !has {
		return nil
	}
	re, err := regexp.Compile(strings.TrimSpace(pattern))
	if err != nil {
		return fmt.Errorf("header rule %q: %w; correct the regular expression", text, err)
	}
	if re.NumSubexp() != 1 {
		return fmt.Errorf("header rule %q has %d capturing groups, want one; write (?:…) for those that only group", text, re.NumSubexp())
	}
	h.Pattern = re
	return nil
}

func (i *Identify) validate() error {
	switch {
	case i == nil:
		return nil
	case i.Method >= identifyBy:
		return fmt.Errorf("identity method is %d, want none, sender, login or header", i.Method)
	case i.Method == ByHeader && len(i.Headers) == 0:
		return errors.New("identity method header has no headers; name those that the user's servers write")
	case len(i.Headers) > MaxIdentifyHeaders:
		return fmt.Errorf("identity has %d headers, want at most %d", len(i.Headers), MaxIdentifyHeaders)
	case len(i.Hosts) > maxIdentifyHosts:
		return fmt.Errorf("identity has %d hosts, want at most %d", len(i.Hosts), maxIdentifyHosts)
	}
	return nil
}
