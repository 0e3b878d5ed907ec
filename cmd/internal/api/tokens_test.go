package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// keys is who may use the API by token: each scope's name is its secret.
type keys struct{ *fake }

func (keys) Tokens(context.Context) ([]Token, error) {
	return []Token{{ID: "a", Name: "monitoring", Scopes: []string{ScopeRead}}}, nil
}
func (keys) AddToken(_ context.Context, who string, t NewToken) (*MadeToken, error) {
	return &MadeToken{Token: Token{ID: "b", Name: t.Name, Scopes: t.Scopes, By: who, Until: t.Until}, Secret: "sluice_b_x"}, nil
}
func (keys) RevokeToken(_ context.Context, who, id, _ string) (*Token, error) {
	return &Token{ID: id, By: who}, nil
}
func (keys) Bearer(_ context.Context, secret string) (*Token, error) {
	if !slices.Contains(Scopes, secret) {
		return nil, &Problem{Status: http.StatusUnauthorized, Code: "bad-token", What: "the token is not known"}
	}
	return &Token{Name: secret, Scopes: []string{secret}}, nil
}

// TestTokens: over TCP nothing goes without a token, and each token does what its scopes say.
func TestTokens(t *testing.T) {
	t.Parallel()
	f := &fake{}
	s := NewServer(Backend{Overview: f, Users: f, UserEditor: f, Locks: f, Locker: f, Log: f, Quarantine: f, Tokens: keys{f}}, slog.New(slog.DiscardHandler))
	l, err := ListenTCP(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second, err := ListenTCP(context.Background(), l.Addr().String())
	if err != nil {
		t.Errorf("a successor cannot open the address: %v", err)
	} else if err := second.Close(); err != nil {
		t.Error(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	ask := func(method, path, head, in string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+l.Addr().String()+path, strings.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		if head != "" {
			req.Header.Set("Authorization", head)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	const lock = `{"user": "bob", "reason": "spam"}`
	for _, c := range []struct {
		method, path, head, in string
		status                 int
		want                   string
	}{
		{"GET", "/v1/status", "", "", 401, "shows no token"},
		{"GET", "/v1/status", "Basic cm9vdDpyb290", "", 401, "shows no token"},
		{"GET", "/v1/status", "Bearer nobody", "", 401, "not known"},
		{"GET", "/v1/status", "Bearer read", "", 200, "gw.example"},
		{"POST", "/v1/lock", "Bearer read", lock, 403, "the token read has no scope locks"},
		{"POST", "/v1/lock", "Bearer users", lock, 403, "has no scope locks"},
		{"POST", "/v1/lock", "Bearer locks", lock, 200, `"by":"token locks"`},
		{"POST", "/v1/lock", "Bearer all", lock, 200, `"by":"token all"`},
		{"GET", "/v1/log", "Bearer read", "", 403, "has no scope log"},
		{"GET", "/v1/log", "Bearer log", "", 200, "[]"},
		{"GET", "/v1/tokens", "Bearer read", "", 403, "has no scope all"},
		{"GET", "/v1/tokens", "Bearer all", "", 200, "monitoring"},
		{"POST", "/v1/users", "Bearer users", `{"name": "x", "prefixes": ["192.0.2.0/29"]}`, 200, `"name":"x"`},
		{"GET", "/v1/backup", "Bearer users", "", 403, "has no scope all"},
		{"GET", "/v1/backup", "Bearer all", "", 403, "become root on the gateway; no token is enough"},
		{"GET", "/v1/no-such", "", "", 404, "there is no GET"},
	} {
		if status, got := ask(c.method, c.path, c.head, c.in); status != c.status || !strings.Contains(got, c.want) {
			t.Errorf("%s %s as %q: %d %s; want %d and %q", c.method, c.path, c.head, status, got, c.status, c.want)
		}
	}
}

// TestNewTokens: what makes no token is refused with a remedy, and a token on the unix socket narrows what may be done there.
func TestNewTokens(t *testing.T) {
	t.Parallel()
	c := serve(t, &fake{})
	past := time.Now().Add(-time.Minute)
	for want, in := range map[string]NewToken{
		"needs a name":             {Scopes: []string{ScopeRead}},
		"may do nothing":           {Name: "x"},
		`"root" is no scope`:       {Name: "x", Scopes: []string{"root"}},
		"until is over already":    {Name: "x", Scopes: []string{ScopeRead}, Until: &past},
		"at most 100 bytes in one": {Name: "two\nlines", Scopes: []string{ScopeRead}},
	} {
		if err := c.Do(context.Background(), "POST", "/v1/tokens", in, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", in, err, want)
		}
	}
	c.Token = "read"
	if err := c.Do(context.Background(), "GET", "/v1/status", nil, nil); err != nil {
		t.Errorf("with scope read: %v", err)
	}
	if err := c.Do(context.Background(), "POST", "/v1/lock", LockRequest{User: "bob", Reason: "x"}, nil); err == nil || !strings.Contains(err.Error(), "has no scope locks") {
		t.Errorf("locked with scope read: %v", err)
	}
}

// TestEveryRouteHasAScope: changes never pass with a scope that only asks, and every area is a route's.
func TestEveryRouteHasAScope(t *testing.T) {
	t.Parallel()
	s := &Server{}
	used := map[string]bool{}
	for _, r := range s.routes() {
		scope := scopeOf(r.method, r.path)
		if !slices.Contains(Scopes, scope) {
			t.Errorf("%s %s has the scope %q", r.method, r.path, scope)
		}
		if r.method != "GET" && (scope == ScopeRead && r.path != "/v1/replay") {
			t.Errorf("%s %s changes something with the scope %s", r.method, r.path, scope)
		}
		for _, a := range areas {
			if strings.HasPrefix(r.path, a.path) {
				used[a.path] = true
			}
		}
	}
	for _, a := range areas {
		if !used[a.path] {
			t.Errorf("no route begins with %s", a.path)
		}
	}
}
