package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Unread counts what passed encrypted between clients and destinations since sluiced started: nobody here read it.
type Unread struct {
	Flows    int   `json:"flows" doc:"connections that have ended"`
	BytesOut int64 `json:"bytes_out" doc:"from clients"`
	BytesIn  int64 `json:"bytes_in" doc:"from destinations"`
}

// TLSRule is what becomes of STARTTLS: of all, of a user's clients, or towards destinations, which is the strongest.
type TLSRule struct {
	User   string     `json:"user,omitempty" doc:"whose setting it is"`
	Prefix string     `json:"prefix,omitempty" doc:"of destinations; without user and prefix it is the default"`
	Port   uint16     `json:"port,omitempty" doc:"left out: every mail port"`
	Policy string     `json:"policy" doc:"terminate, pass or strip"`
	Origin string     `json:"origin" doc:"run-time or config"`
	Reason string     `json:"reason,omitempty"`
	By     string     `json:"by,omitempty"`
	Since  *time.Time `json:"since,omitempty"`
	Until  *time.Time `json:"until,omitempty" doc:"left out: for good"`
	Beaten bool       `json:"beaten,omitempty" doc:"not in force: one made at run time for the same prefix and port is"`
}

// TLSRequest asks for such a rule: of a user or towards destinations.
type TLSRequest struct {
	User   string     `json:"user,omitempty" doc:"name of a user, or an address whose user is meant"`
	Prefix string     `json:"prefix,omitempty" doc:"of destinations; an address is the prefix that holds it alone"`
	Port   uint16     `json:"port,omitempty" doc:"of destinations; left out: every mail port"`
	Policy string     `json:"policy" doc:"terminate, pass or strip"`
	Reason string     `json:"reason"`
	Until  *time.Time `json:"until,omitempty" doc:"towards destinations; left out: for good"`
}

// Refusal is a source for which the gateway's certificate does not do at a destination, or for which STARTTLS passes unread.
type Refusal struct {
	Source      string         `json:"source" doc:"IPv4 address, or IPv6 /64"`
	Target      netip.AddrPort `json:"target"`
	User        string         `json:"user"`
	Alerts      int            `json:"alerts" doc:"handshakes that the client ended with an alert about the certificate"`
	Shakes      int            `json:"shakes" doc:"connections that ended within the handshake"`
	Lefts       int            `json:"lefts" doc:"connections whose client left without mail after the handshake"`
	Wanted      int            `json:"wanted,omitempty" doc:"times that the destination asked for a certificate and refused who had none"`
	Text        string         `json:"text,omitempty" doc:"how the last one went"`
	First       time.Time      `json:"first"`
	Last        time.Time      `json:"last"`
	Allowed     bool           `json:"allowed" doc:"STARTTLS passes unread"`
	By          string         `json:"by,omitempty" doc:"who allowed it; left out: what the destination publishes or wants did"`
	Why         string         `json:"why,omitempty"`
	Until       *time.Time     `json:"until,omitempty"`
	Connections int            `json:"connections" doc:"that may still pass in this hour from the source"`
	Bytes       int            `json:"bytes" doc:"that may still pass in this hour from the source, both ways"`
}

// RefusalRequest asks for STARTTLS of a source to a destination to pass unread.
type RefusalRequest struct {
	Source string     `json:"source" doc:"address of the client"`
	Target string     `json:"target" doc:"destination's address, with a port where that is not 25"`
	Reason string     `json:"reason"`
	Until  *time.Time `json:"until,omitempty" doc:"at most a week from now, which it is when left out"`
}

// Authority is who certifies the names that clients ask for, where the gateway has such a one.
type Authority struct {
	Domains     []string  `json:"domains" doc:"inside of which it may certify; its certificate says so"`
	Fingerprint string    `json:"fingerprint" doc:"SHA-256 of its certificate, in hexadecimal digits"`
	NotAfter    time.Time `json:"not_after"`
	Leaves      int       `json:"leaves" doc:"certificates that it made and that are in memory"`
	PEM         string    `json:"pem" doc:"its certificate, for clients to trust"`
}

// StartTLS tells and changes what becomes of clients' STARTTLS. Who is the operator's account.
type StartTLS interface {
	TLSRules(ctx context.Context) ([]TLSRule, error)
	SetTLS(ctx context.Context, who string, p netip.Prefix, r TLSRequest) (*TLSRule, error)
	RemoveTLS(ctx context.Context, who string, p netip.Prefix, r TLSRequest) (*TLSRule, error)
	Authority(ctx context.Context) (*Authority, error)
}

// Refusals tells who refuses the certificate, and what of them passes. Who is the operator's account.
type Refusals interface {
	ListRefusals(ctx context.Context) ([]Refusal, error)
	AllowRefusal(ctx context.Context, who string, source netip.Addr, target netip.AddrPort, r RefusalRequest) (*Refusal, error)
	ForgetRefusal(ctx context.Context, who string, source netip.Addr, target netip.AddrPort, reason string) (*Refusal, error)
}

var tlsPolicies = []string{"terminate", "pass", "strip"}

// one demands a user or a prefix.
func (r *TLSRequest) one() (p netip.Prefix, err error) {
	if (r.User == "") == (r.Prefix == "") {
		return p, invalid("a rule for STARTTLS is for one user or one prefix of destinations", "give either of the two")
	}
	if r.Prefix != "" {
		p, err = ParsePrefix(r.Prefix)
	} else if r.Port != 0 {
		err = invalid("a port belongs to a destination", "leave it out for a user")
	}
	return p, err
}

func (s *Server) setTLS(r *http.Request) (any, error) {
	var t TLSRequest
	if err := body(r, &t); err != nil {
		return nil, err
	}
	p, err := t.one()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(tlsPolicies, t.Policy) {
		return nil, invalid(fmt.Sprintf("%q is not a policy for STARTTLS", t.Policy), "use one of "+strings.Join(tlsPolicies, ", "))
	}
	if err := checkReason(t.Reason); err != nil {
		return nil, err
	}
	if t.Until != nil && t.User != "" {
		return nil, invalid("a user's setting has no end", "leave until out, or make a rule for the destination")
	}
	if err := s.checkUntil(t.Until); err != nil {
		return nil, err
	}
	return s.back.SetTLS(r.Context(), who(r.Context()), p, t)
}

func (s *Server) removeTLS(r *http.Request) (any, error) {
	q := r.URL.Query()
	t := TLSRequest{User: q.Get("user"), Prefix: q.Get("prefix"), Reason: q.Get("reason")}
	var err error
	if t.Port, err = queryPort(r); err != nil {
		return nil, err
	}
	p, err := t.one()
	if err == nil {
		err = checkWhy(t.Reason)
	}
	if err != nil {
		return nil, err
	}
	return s.back.RemoveTLS(r.Context(), who(r.Context()), p, t)
}

// mailPort is the port of a destination that is written without one.
const mailPort = 25

// pair reads a source and a destination.
func pair(source, target string) (a netip.Addr, t netip.AddrPort, err error) {
	if a, err = netip.ParseAddr(source); err != nil || a.Zone() != "" {
		return a, t, invalid(fmt.Sprintf("%q is not the address of a source", source), `write it like "192.0.2.7" or "2001:db8:1::7"`)
	}
	a = a.Unmap()
	if one, err := netip.ParseAddr(target); err == nil && one.Zone() == "" {
		return a, netip.AddrPortFrom(one.Unmap(), mailPort), nil
	}
	if t, err = netip.ParseAddrPort(target); err != nil || t.Addr().Zone() != "" || t.Port() == 0 {
		return a, t, invalid(fmt.Sprintf("%q is not the address of a destination", target), `write it like "198.51.100.7", or "198.51.100.7:2525"`)
	}
	return a, netip.AddrPortFrom(t.Addr().Unmap(), t.Port()), nil
}

func (s *Server) allowRefusal(r *http.Request) (any, error) {
	var q RefusalRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	source, target, err := pair(q.Source, q.Target)
	if err == nil {
		err = checkReason(q.Reason)
	}
	if err == nil {
		err = s.checkUntil(q.Until)
	}
	if err != nil {
		return nil, err
	}
	return s.back.AllowRefusal(r.Context(), who(r.Context()), source, target, q)
}

func (s *Server) forgetRefusal(r *http.Request) (any, error) {
	q := r.URL.Query()
	source, target, err := pair(q.Get("source"), q.Get("target"))
	if err == nil {
		err = checkWhy(q.Get("reason"))
	}
	if err != nil {
		return nil, err
	}
	return s.back.ForgetRefusal(r.Context(), who(r.Context()), source, target, q.Get("reason"))
}
