package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Mode is what happens to new mail connections from a source prefix.
type Mode struct {
	Prefix  string     `json:"prefix,omitempty" doc:"left out: all sources that no other rule names"`
	Mode    string     `json:"mode" doc:"intercept, canary, shadow, observe, pass, reject or drop"`
	Percent int        `json:"percent,omitempty" doc:"of mode canary: the share of users that is intercepted; the others are in shadow"`
	Origin  string     `json:"origin" doc:"run-time, config, user for one that stands in the settings of a user, or default"`
	Reason  string     `json:"reason,omitempty"`
	By      string     `json:"by,omitempty" doc:"who made it"`
	Since   *time.Time `json:"since,omitempty"`
	Until   *time.Time `json:"until,omitempty" doc:"left out: for good"`
	Beaten  bool       `json:"beaten,omitempty" doc:"not in force: a rule made at run time for the same prefix is"`
	Refused string     `json:"refused,omitempty" doc:"not in force: why the configuration does not allow it any more"`
	User    string     `json:"user,omitempty" doc:"who answers for the address that was asked for"`
	Canary  string     `json:"canary,omitempty" doc:"in mode canary, for the address that was asked for: enforced or shadow"`
}

// ModeRequest asks for a rule for a source prefix.
type ModeRequest struct {
	Prefix  string     `json:"prefix" doc:"of sources; an address is the prefix that holds it alone"`
	Mode    string     `json:"mode" doc:"intercept, canary, shadow, observe, pass, reject or drop"`
	Percent int        `json:"percent,omitempty" doc:"of mode canary: 1 to 99"`
	Reason  string     `json:"reason"`
	Until   *time.Time `json:"until,omitempty" doc:"left out: for good"`
}

// Exemption is the mode of connections to a destination, whatever their source's is.
type Exemption struct {
	Prefix  string     `json:"prefix"`
	Port    uint16     `json:"port,omitempty" doc:"left out: every mail port"`
	Mode    string     `json:"mode"`
	Origin  string     `json:"origin" doc:"run-time or config"`
	Reason  string     `json:"reason"`
	By      string     `json:"by,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
	Until   *time.Time `json:"until,omitempty"`
	Beaten  bool       `json:"beaten,omitempty" doc:"not in force: one made at run time for the same prefix and port is"`
	Refused string     `json:"refused,omitempty" doc:"not in force: why the configuration does not allow it any more"`
}

// ExemptRequest asks for an exemption.
type ExemptRequest struct {
	Prefix string     `json:"prefix" doc:"of destinations; an address is the prefix that holds it alone"`
	Port   uint16     `json:"port,omitempty" doc:"left out: every mail port"`
	Mode   string     `json:"mode" doc:"intercept, shadow, observe, pass, reject or drop"`
	Reason string     `json:"reason"`
	Until  *time.Time `json:"until,omitempty" doc:"left out: for good"`
}

// The modes of sources, and of destinations: a canary is a share of sources' users.
var (
	sourceModes      = []string{"intercept", "canary", "shadow", "observe", "pass", "reject", "drop"}
	destinationModes = []string{"intercept", "shadow", "observe", "pass", "reject", "drop"}
)

func (s *Server) holding(r *http.Request) (any, error) {
	p, err := ParsePrefix(r.PathValue("prefix"))
	if err != nil {
		return nil, err
	}
	return s.back.Holding(r.Context(), p)
}

func (s *Server) setMode(r *http.Request) (any, error) {
	var m ModeRequest
	if err := body(r, &m); err != nil {
		return nil, err
	}
	p, err := s.checkRule(m.Prefix, m.Mode, sourceModes, m.Reason, m.Until)
	if err != nil {
		return nil, err
	}
	switch {
	case m.Mode == "canary" && (m.Percent < 1 || m.Percent > 99):
		return nil, invalid("mode canary needs the share of users that it intercepts", "give percent, from 1 to 99; 100 is mode intercept, 0 is shadow")
	case m.Mode != "canary" && m.Percent != 0:
		return nil, invalid("percent belongs to mode canary only", "leave it out, or ask for canary")
	}
	return s.back.SetMode(r.Context(), who(r.Context()), p, m)
}

func (s *Server) removeMode(r *http.Request) (any, error) {
	p, err := ParsePrefix(r.PathValue("prefix"))
	if err != nil {
		return nil, err
	}
	reason := r.URL.Query().Get("reason")
	if err := checkWhy(reason); err != nil {
		return nil, err
	}
	return s.back.RemoveMode(r.Context(), who(r.Context()), p, reason)
}

func (s *Server) exempt(r *http.Request) (any, error) {
	var x ExemptRequest
	if err := body(r, &x); err != nil {
		return nil, err
	}
	if x.Mode == "canary" {
		return nil, invalid("a destination cannot be in mode canary: it is a share of sources' users", "exempt it with mode shadow, or set the mode of sources")
	}
	p, err := s.checkRule(x.Prefix, x.Mode, destinationModes, x.Reason, x.Until)
	if err != nil {
		return nil, err
	}
	return s.back.Exempt(r.Context(), who(r.Context()), p, x)
}

func (s *Server) removeExemption(r *http.Request) (any, error) {
	p, err := ParsePrefix(r.PathValue("prefix"))
	if err != nil {
		return nil, err
	}
	port, err := queryPort(r)
	if err != nil {
		return nil, err
	}
	reason := r.URL.Query().Get("reason")
	if err := checkWhy(reason); err != nil {
		return nil, err
	}
	return s.back.RemoveExemption(r.Context(), who(r.Context()), p, port, reason)
}

// checkRule refuses what no rule can be, whatever is in force.
func (s *Server) checkRule(prefix, mode string, modes []string, reason string, until *time.Time) (p netip.Prefix, err error) {
	if p, err = ParsePrefix(prefix); err != nil {
		return p, err
	}
	if !slices.Contains(modes, mode) {
		return p, invalid(fmt.Sprintf("%q is not a mode", mode), "use one of "+strings.Join(modes, ", "))
	}
	if err := checkReason(reason); err != nil {
		return p, err
	}
	return p, s.checkUntil(until)
}

// checkUntil refuses an end that has passed; nil is for good.
func (s *Server) checkUntil(until *time.Time) error {
	if until != nil && !until.After(s.Now()) {
		return invalid(fmt.Sprintf("the end %s has passed", until.Format(time.RFC3339)), "give a later one, or none")
	}
	return nil
}

// queryPort reads the port of a destination; 0 is every mail port.
func queryPort(r *http.Request) (uint16, error) {
	text := r.URL.Query().Get("port")
	if text == "" {
		return 0, nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, invalid(fmt.Sprintf("port=%q is not a port", text), "give a number, or leave it out for every mail port")
	}
	return uint16(port), nil
}

// maxReason bounds what tables and journals have to show.
const maxReason = 200

// checkWhy is checkReason where none has to be given.
func checkWhy(reason string) error {
	if reason == "" {
		return nil
	}
	return checkReason(reason)
}

func checkReason(reason string) error {
	switch {
	case strings.TrimSpace(reason) == "":
		return invalid("a rule needs a reason", "say why, for whoever looks at it next")
	case len(reason) > maxReason || strings.ContainsFunc(reason, unicode.IsControl):
		return invalid(fmt.Sprintf("the reason is not one line of at most %d bytes", maxReason), "shorten it")
	}
	return nil
}
