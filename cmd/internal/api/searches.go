package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"time"
)

// Searches keeps searches of the message log by name. Who is the operator's account.
type Searches interface {
	Searches(ctx context.Context) ([]Search, error)
	SaveSearch(ctx context.Context, who string, s Search) (*Search, error)
	RemoveSearch(ctx context.Context, who, name string) (*Search, error)
}

// Search is a search of the message log with a name.
type Search struct {
	Name  string    `json:"name"`
	Query string    `json:"query" doc:"the parameters of GET /v1/log; a time span as since or until counts from the moment of asking"`
	By    string    `json:"by,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

var searchName = regexp.MustCompile(`^[\pL\pN][\pL\pN ._-]{0,63}$`)

func (s *Server) searchRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/searches", summary: "saved searches of the message log", out: []Search{},
			serve: func(r *http.Request) (any, error) { return s.back.Searches.Searches(r.Context()) }},
		{method: "POST", path: "/v1/searches", summary: "save a search, in the place of one of the same name", in: Search{}, out: Search{}, serve: s.saveSearch},
		{method: "DELETE", path: "/v1/searches/{name}", summary: "remove a saved search", out: Search{},
			serve: func(r *http.Request) (any, error) {
				return s.back.RemoveSearch(r.Context(), who(r.Context()), r.PathValue("name"))
			}},
	}
}

func (s *Server) saveSearch(r *http.Request) (any, error) {
	var n Search
	if err := body(r, &n); err != nil {
		return nil, err
	}
	if !searchName.MatchString(n.Name) {
		return nil, invalid(fmt.Sprintf("%q is no name of a search", n.Name), "use at most 64 letters, digits, blanks, dots and dashes")
	}
	if _, err := readQuery(n.Query); err != nil {
		return nil, err
	}
	v, _ := url.ParseQuery(n.Query) // it was read just now
	n.Query = v.Encode()
	return s.back.SaveSearch(r.Context(), who(r.Context()), n)
}
