package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Tokens lists, makes and ends what programs show to use the API, and tells what one may do. Who is the operator's account.
type Tokens interface {
	Tokens(ctx context.Context) ([]Token, error)
	AddToken(ctx context.Context, who string, t NewToken) (*MadeToken, error)
	RevokeToken(ctx context.Context, who, id, reason string) (*Token, error)
	// Bearer returns the token that secret is; the error is a *Problem where it is none.
	Bearer(ctx context.Context, secret string) (*Token, error)
}

// Token is what a program shows to use the API, without its secret.
type Token struct {
	ID      string     `json:"id"`
	Name    string     `json:"name" doc:"what it is for"`
	Scopes  []string   `json:"scopes" doc:"what it may do"`
	By      string     `json:"by"`
	Created time.Time  `json:"created"`
	Until   *time.Time `json:"until,omitempty" doc:"left out: for good"`
	Used    *time.Time `json:"used,omitempty" doc:"last, to the minute; left out: never"`
	Revoked *time.Time `json:"revoked,omitempty"`
}

// NewToken asks for a token.
type NewToken struct {
	Name   string     `json:"name" doc:"what it is for"`
	Scopes []string   `json:"scopes" doc:"read: figures, users, settings and locks; log: the message log and held messages; locks: lock and unlock; users: users, their settings, accounts, logins and lists; mail: queue and quarantine; all: everything"`
	Until  *time.Time `json:"until,omitempty" doc:"left out: for good"`
}

// MadeToken is a new token with its secret.
type MadeToken struct {
	Token
	Secret string `json:"secret" doc:"to be sent as Authorization: Bearer; it is shown this once and kept as a hash"`
}

// The scopes of tokens.
const (
	ScopeRead  = "read"
	ScopeLog   = "log"
	ScopeLocks = "locks"
	ScopeUsers = "users"
	ScopeMail  = "mail"
	ScopeAll   = "all"
)

// Scopes are all scopes.
var Scopes = []string{ScopeRead, ScopeLog, ScopeLocks, ScopeUsers, ScopeMail, ScopeAll}

// areas tell the scope of a request by the beginning of its path: for questions, and for changes. The first that fits
// counts. What is in none needs read for questions and all for changes.
var areas = []struct{ path, ask, change string }{
	{"/v1/tokens", ScopeAll, ScopeAll},
	{"/v1/backup", ScopeAll, ScopeAll},
	{"/v1/log", ScopeLog, ScopeAll},
	{"/v1/searches", ScopeLog, ScopeLog},
	{"/v1/why", ScopeLog, ScopeAll},
	{"/v1/quarantine", ScopeLog, ScopeMail},
	{"/v1/queue", ScopeLog, ScopeMail},
	{"/v1/lock", ScopeRead, ScopeLocks},
	{"/v1/unlock", ScopeRead, ScopeLocks},
	{"/v1/undo", ScopeRead, ScopeLocks},
	{"/v1/replay", ScopeRead, ScopeRead}, // changes nothing
	{"/v1/identities", ScopeRead, ScopeLocks},
	{"/v1/users", ScopeRead, ScopeUsers},
	{"/v1/import", ScopeRead, ScopeUsers},
	{"/v1/settings", ScopeRead, ScopeUsers},
	{"/v1/groups", ScopeRead, ScopeUsers},
	{"/v1/logins", ScopeRead, ScopeUsers},
	{"/v1/guessers", ScopeRead, ScopeUsers},
	{"/v1/addresses", ScopeRead, ScopeUsers},
	{"/v1/senders", ScopeRead, ScopeUsers},
	{"/v1/holders", ScopeRead, ScopeUsers},
	{"/v1/reports", ScopeMail, ScopeMail},
}

// scopeOf tells which scope a request needs.
func scopeOf(method, path string) string {
	asks := method == http.MethodGet || method == http.MethodHead
	for _, a := range areas {
		if rest, ok := strings.CutPrefix(path, a.path); !ok || rest != "" && rest[0] != '/' && !(rest == "s") {
			continue
		}
		if asks {
			return a.ask
		}
		return a.change
	}
	if asks {
		return ScopeRead
	}
	return ScopeAll
}

func (s *Server) tokenRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/tokens", summary: "what programs show to use the API, also what was revoked", out: []Token{},
			serve: func(r *http.Request) (any, error) { return s.back.Tokens.Tokens(r.Context()) }},
		{method: "POST", path: "/v1/tokens", summary: "make a token", in: NewToken{}, out: MadeToken{}, serve: s.addToken},
		{method: "DELETE", path: "/v1/tokens/{id}", summary: "revoke a token for good", out: Token{}, query: []param{{"reason", "why"}},
			serve: func(r *http.Request) (any, error) {
				return s.back.RevokeToken(r.Context(), who(r.Context()), r.PathValue("id"), r.URL.Query().Get("reason"))
			}},
	}
}

func (s *Server) addToken(r *http.Request) (any, error) {
	var t NewToken
	if err := body(r, &t); err != nil {
		return nil, err
	}
	if t.Name = strings.TrimSpace(t.Name); t.Name == "" || len(t.Name) > 100 || strings.ContainsAny(t.Name, "\r\n\x00") {
		return nil, invalid("a token needs a name of at most 100 bytes in one line", `send {"name": "monitoring", "scopes": ["read"]}`)
	}
	if len(t.Scopes) == 0 {
		return nil, invalid("a token without a scope may do nothing", "name some of "+strings.Join(Scopes, ", "))
	}
	for _, one := range t.Scopes {
		if !slices.Contains(Scopes, one) {
			return nil, invalid(fmt.Sprintf("%q is no scope", one), "use some of "+strings.Join(Scopes, ", "))
		}
	}
	if t.Until != nil && !t.Until.After(s.Now()) {
		return nil, invalid("until is over already", "give a moment to come")
	}
	return s.back.AddToken(r.Context(), who(r.Context()), t)
}

// admit lets in who may make a request: whoever could open the unix socket, and who shows a token that has the scope.
// Who shows a token on the unix socket may do no more than it allows.
func (s *Server) admit(scope string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, local := r.Context().Value(peerKey{}).(string)
		head := r.Header.Get("Authorization")
		if head == "" && local {
			next.ServeHTTP(w, r)
			return
		}
		secret, ok := strings.CutPrefix(head, "Bearer ")
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="sluice"`)
			tell(w, &Problem{Status: http.StatusUnauthorized, Code: "no-token", What: "the request shows no token", Remedy: "send Authorization: Bearer and a token; `sluice token add` makes one"})
			return
		}
		t, err := s.back.Bearer(r.Context(), secret)
		if err != nil {
			tell(w, err)
			return
		}
		if !slices.Contains(t.Scopes, scope) && !slices.Contains(t.Scopes, ScopeAll) {
			tell(w, &Problem{Status: http.StatusForbidden, Code: "scope", What: fmt.Sprintf("the token %s has no scope %s", t.Name, scope),
				Remedy: "it has " + strings.Join(t.Scopes, ", ") + "; `sluice token add` makes another one"})
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, "token "+t.Name)))
	})
}

// ListenTCP opens an address on loopback for programs that show a token. A successor may open it while this one drains.
func ListenTCP(ctx context.Context, addr string) (net.Listener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		failed := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(failed, err)
	}}
	l, err := c.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("could not open the API's address %s: %w; correct api.listen", addr, err)
	}
	return l, nil
}
