package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Logins lists and changes who may log in on the smarthost ports, and shows who guesses there. Who is the operator's
// account.
type Logins interface {
	Logins(ctx context.Context) ([]Login, error)
	PutLogin(ctx context.Context, who string, l NewLogin) (*MadeLogin, error)
	RemoveLogin(ctx context.Context, who, name string) (*Login, error)
	Guessers(ctx context.Context) ([]Guesser, error)
	Forgive(ctx context.Context, who string, a netip.Addr) error
}

// Login is a name by which somebody logs in on the smarthost ports.
type Login struct {
	Name    string    `json:"name" doc:"a domain, or a mailbox"`
	Kind    string    `json:"kind" doc:"domain or mailbox"`
	User    string    `json:"user" doc:"who answers for what is sent"`
	Own     string    `json:"own,omitempty" doc:"the customer's own server, host:port, that is asked for the password; left out: the password is kept here, as a hash"`
	OwnTLS  string    `json:"own_tls,omitempty" doc:"of that server: starttls or implicit"`
	Unset   bool      `json:"unset,omitempty" doc:"it has no password yet, and lets nobody in: it was made for a user's domain"`
	Servers []string  `json:"servers" doc:"what the customer enters in his mail program: names and ports"`
	Created time.Time `json:"created"`
	Changed time.Time `json:"changed"`
}

// Guesser is an address, or an IPv6 /64, that tries wrong passwords.
type Guesser struct {
	Place  netip.Prefix `json:"place"`
	Until  *time.Time   `json:"until,omitempty" doc:"left out: it is slowed down, not shut out"`
	Wrong  int          `json:"wrong" doc:"different wrong pairs of login and password, lately"`
	Times  int          `json:"times" doc:"how often it was shut out"`
	Last   time.Time    `json:"last"`
	Login  string       `json:"login" doc:"the last that was tried"`
	Exempt bool         `json:"exempt,omitempty" doc:"good logins come from there, too: it is never shut out"`
}

// NewLogin asks for a login, in the place of one of the same name.
type NewLogin struct {
	Name     string `json:"name" doc:"a domain, or a mailbox"`
	User     string `json:"user,omitempty" doc:"name of an outgoing user; left out: the one that the login has"`
	Password string `json:"password,omitempty" doc:"8 to 256 bytes; left out: one is made, unless own is given"`
	Own      string `json:"own,omitempty" doc:"the customer's own server, host:port, that is asked for the password"`
	OwnTLS   string `json:"own_tls,omitempty" doc:"of that server: starttls, the default, or implicit"`
}

// MadeLogin is what a customer needs to send by the smarthost.
type MadeLogin struct {
	Login
	Password string `json:"password,omitempty" doc:"the one that was made; it is shown this once"`
}

func (s *Server) loginRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/logins", summary: "who may log in on the smarthost ports", out: []Login{},
			serve: func(r *http.Request) (any, error) { return s.back.Logins.Logins(r.Context()) }},
		{method: "POST", path: "/v1/logins", summary: "make a login, or replace its password", in: NewLogin{}, out: MadeLogin{}, serve: s.putLogin},
		{method: "DELETE", path: "/v1/logins/{name}", summary: "remove a login", out: Login{},
			serve: func(r *http.Request) (any, error) {
				return s.back.RemoveLogin(r.Context(), who(r.Context()), r.PathValue("name"))
			}},
		{method: "GET", path: "/v1/guessers", summary: "addresses that guess passwords and are slowed down or shut out", out: []Guesser{},
			serve: func(r *http.Request) (any, error) { return s.back.Guessers(r.Context()) }},
		{method: "DELETE", path: "/v1/guessers/{address}", summary: "let an address try again", out: Done{}, serve: s.forgive},
	}
}

// Done answers a request that has nothing else to tell.
type Done struct {
	Done string `json:"done"`
}

func (s *Server) putLogin(r *http.Request) (any, error) {
	var l NewLogin
	if err := body(r, &l); err != nil {
		return nil, err
	}
	if l.Own != "" {
		if host, port, err := net.SplitHostPort(l.Own); err != nil || host == "" || port == "" {
			return nil, invalid(fmt.Sprintf("%q is not a host and a port", l.Own), "write it like mail.customer.example:587")
		}
		if l.Password != "" {
			return nil, invalid("a login has a password here or a server of its own", "give one of both")
		}
	}
	switch l.OwnTLS {
	case "", "starttls", "implicit":
	default:
		return nil, invalid(fmt.Sprintf("%q is no way to encrypt", l.OwnTLS), "use starttls or implicit")
	}
	if strings.TrimSpace(l.Name) == "" {
		return nil, invalid("a login needs a name", "give a domain, or a mailbox")
	}
	return s.back.PutLogin(r.Context(), who(r.Context()), l)
}

func (s *Server) forgive(r *http.Request) (any, error) {
	text := r.PathValue("address")
	a, err := netip.ParseAddr(text)
	if err != nil {
		return nil, invalid(fmt.Sprintf("%q is not an address", text), "GET /v1/guessers lists those that are slowed down or shut out")
	}
	if err := s.back.Forgive(r.Context(), who(r.Context()), a); err != nil {
		return nil, err
	}
	return Done{text + " may try again"}, nil
}
