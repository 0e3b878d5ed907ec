package api

import (
	"context"
	"net/http"
)

// Suggester proposes limits from a user's own history.
type Suggester interface {
	Suggest(ctx context.Context, user string) (*Suggestion, error)
}

// Suggestion are limits that would not have been met in the last 30 days.
type Suggestion struct {
	User     string           `json:"user"`
	Days     int              `json:"days" doc:"on which he sent mail, within the last 30"`
	Messages int              `json:"messages" doc:"that went out and were not bad"`
	Enough   bool             `json:"enough" doc:"false: a history of fewer than 7 days says little"`
	Limits   []SuggestedLimit `json:"limits"`
}

// SuggestedLimit is one of them.
type SuggestedLimit struct {
	Limit     string `json:"limit" doc:"name of the setting"`
	Busiest   int64  `json:"busiest" doc:"in one hour or day of the clock"`
	Usual     int64  `json:"usual" doc:"the median of those in which he sent anything"`
	Now       int64  `json:"now" doc:"the limit in force; 0: none"`
	Suggested int64  `json:"suggested" doc:"twice the busiest, rounded up"`
}

func (s *Server) suggestRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/suggest", summary: "limits for a user from his own history of 30 days", out: Suggestion{}, query: []param{{"user", "name of a user, or an address whose user is meant"}},
			serve: func(r *http.Request) (any, error) {
				user := r.URL.Query().Get("user")
				if user == "" {
					return nil, invalid("limits are suggested for one user", "name him: /v1/suggest?user=alice")
				}
				return s.back.Suggest(r.Context(), user)
			}},
	}
}
