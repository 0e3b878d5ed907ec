package api

import (
	"context"
	"net/http"
	"time"
)

// Identities lists and changes the finer senders inside users. Who is the operator's account.
type Identities interface {
	Identities(ctx context.Context, user string, limit int) ([]Identity, error)
	ResetIdentity(ctx context.Context, who string, r IdentityRequest) (*Identity, error)
	SuggestIdentities(ctx context.Context, user string) (*IdentitySuggestion, error)
}

// IdentitySuggestion is what a user's own mail tells of the senders inside him, and the rule that would tell most.
type IdentitySuggestion struct {
	User     string            `json:"user"`
	Messages int               `json:"messages" doc:"that were looked at, halved now and then, so that what is sent now counts most"`
	Choices  []IdentityChoice  `json:"choices" doc:"all that tells anybody"`
	Settings map[string]string `json:"settings,omitempty" doc:"of the user, that make the rule; left out: nothing tells the senders of this mail apart"`
	Coverage float64           `json:"coverage" doc:"the share of the messages in which the rule tells somebody, 0 to 1"`
}

// IdentityChoice is one way to tell identities.
type IdentityChoice struct {
	Name       string  `json:"name" doc:"of the header field; login or sender"`
	Coverage   float64 `json:"coverage" doc:"the share of the messages in which it tells somebody, 0 to 1"`
	Identities int     `json:"identities" doc:"about how many it tells apart, at most 300"`
	Example    string  `json:"example"`
}

// Identity is one finer sender inside a user.
type Identity struct {
	User       string     `json:"user"`
	Identity   string     `json:"identity" doc:"as envelope, login or header told it; other: those that came when the user had more than 50 new ones within an hour"`
	First      time.Time  `json:"first"`
	Last       time.Time  `json:"last"`
	Messages   uint64     `json:"messages" doc:"judged since first, or since it was reset"`
	Recipients uint64     `json:"recipients" doc:"that got them"`
	Refused    uint64     `json:"refused" doc:"messages, for whatever reason"`
	Bad        uint64     `json:"bad" doc:"of them, those that are bad by themselves"`
	Code       string     `json:"code,omitempty" doc:"public code of the last refusal"`
	Score      int        `json:"score" doc:"reputation, 0 to 100; 100 is worst"`
	Factors    []Factor   `json:"factors,omitempty" doc:"what the score is made of"`
	Locked     string     `json:"locked,omitempty" doc:"the ticket of a lock that stops it"`
	Reason     string     `json:"reason,omitempty" doc:"of that lock"`
	Standing   string     `json:"standing" doc:"good, or how far it is from a lock"`
	Reset      *time.Time `json:"reset,omitempty" doc:"when it began anew by hand"`
}

// IdentityRequest names an identity.
type IdentityRequest struct {
	User     string `json:"user"`
	Identity string `json:"identity"`
	Reason   string `json:"reason"`
}

func (s *Server) identityRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/identities", summary: "the finer senders inside a user, or all, the worst first", out: []Identity{},
			query: []param{{"user", "name of a user, or an address whose user is meant"}, {"limit", "100 unless told"}},
			serve: func(r *http.Request) (any, error) {
				limit, err := number(r.URL.Query(), "limit", 100)
				if err != nil {
					return nil, err
				}
				return s.back.Identities.Identities(r.Context(), r.URL.Query().Get("user"), limit)
			}},
		{method: "GET", path: "/v1/identities/suggest", summary: "the rule that would tell most about the senders inside a user, by his own mail", out: IdentitySuggestion{},
			query: []param{{"user", "name of a user, or an address whose user is meant"}},
			serve: func(r *http.Request) (any, error) {
				user := r.URL.Query().Get("user")
				if user == "" {
					return nil, invalid("nobody is named", "ask with ?user=alice")
				}
				return s.back.SuggestIdentities(r.Context(), user)
			}},
		{method: "POST", path: "/v1/identities/reset", summary: "let an identity begin anew", in: IdentityRequest{}, out: Identity{}, serve: s.resetIdentity},
	}
}

func (s *Server) resetIdentity(r *http.Request) (any, error) {
	var q IdentityRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	if q.User == "" || q.Identity == "" {
		return nil, invalid("no identity is named", `send {"user": "alice", "identity": "shop", "reason": "…"}`)
	}
	return s.back.ResetIdentity(r.Context(), who(r.Context()), q)
}
