package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Holders tells who held an address, and when, and takes what the provider's records know. Who is the operator's account.
type Holders interface {
	Holders(ctx context.Context, a netip.Addr) ([]Holding, error)
	TellHolding(ctx context.Context, who string, h HoldingRequest) (*Holding, error)
	ForgetHolding(ctx context.Context, who string, id int64, reason string) (*Holding, error)
}

// Holding is a time in which somebody held a prefix.
type Holding struct {
	ID     int64      `json:"id,omitempty" doc:"of what was told; it can be removed by that"`
	Prefix string     `json:"prefix"`
	Holder string     `json:"holder" doc:"name of the user, or who held it before there was one"`
	Since  *time.Time `json:"since,omitempty" doc:"left out: from the beginning"`
	Until  *time.Time `json:"until,omitempty" doc:"left out: it goes on"`
	By     string     `json:"by,omitempty" doc:"who told; left out: it was noted by itself when the user got the prefix"`
}

// HoldingRequest tells who held a prefix.
type HoldingRequest struct {
	Prefix string     `json:"prefix"`
	Holder string     `json:"holder" doc:"name of a user, or of whoever held it"`
	Since  *time.Time `json:"since,omitempty" doc:"left out: from the beginning"`
	Until  *time.Time `json:"until,omitempty" doc:"left out: it goes on"`
	Reason string     `json:"reason,omitempty"`
}

func (s *Server) holderRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/holders", summary: "who held an address: the first that was in force at a moment says who it was then", out: []Holding{},
			query: []param{{"address", "whose history it is"}, {"at", "only who held it at this moment"}}, serve: s.holders},
		{method: "POST", path: "/v1/holders", summary: "tell who held a prefix, from when until when; it comes before what was noted by itself", in: HoldingRequest{}, out: Holding{}, serve: s.tellHolding},
		{method: "DELETE", path: "/v1/holders/{id}", summary: "remove what was told", out: Holding{}, query: []param{{"reason", "why"}},
			serve: func(r *http.Request) (any, error) {
				id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
				if err != nil {
					return nil, invalid(fmt.Sprintf("%q is not the number of a holding", r.PathValue("id")), "GET /v1/holders tells them")
				}
				return s.back.ForgetHolding(r.Context(), who(r.Context()), id, r.URL.Query().Get("reason"))
			}},
	}
}

func (s *Server) holders(r *http.Request) (any, error) {
	q := r.URL.Query()
	a, err := netip.ParseAddr(q.Get("address"))
	if err != nil {
		return nil, invalid(fmt.Sprintf("%q is not an address", q.Get("address")), "ask with ?address=192.0.2.7")
	}
	all, err := s.back.Holders.Holders(r.Context(), a)
	if err != nil || q.Get("at") == "" {
		return all, err
	}
	at, err := time.Parse(time.RFC3339, q.Get("at"))
	if err != nil {
		return nil, invalid(fmt.Sprintf("at=%q is not a time", q.Get("at")), "write it like 2027-01-31T12:00:00Z")
	}
	some := []Holding{}
	for _, h := range all {
		if len(some) == 0 && (h.Since == nil || !at.Before(*h.Since)) && (h.Until == nil || at.Before(*h.Until)) {
			some = append(some, h)
		}
	}
	return some, nil
}

func (s *Server) tellHolding(r *http.Request) (any, error) {
	var h HoldingRequest
	if err := body(r, &h); err != nil {
		return nil, err
	}
	if _, err := ParsePrefix(h.Prefix); err != nil {
		return nil, err
	}
	switch h.Holder = strings.TrimSpace(h.Holder); {
	case h.Holder == "" || len(h.Holder) > 200 || strings.ContainsAny(h.Holder, "\r\n\x00"):
		return nil, invalid("a holder has a name of at most 200 bytes in one line", `send {"prefix": "192.0.2.0/29", "holder": "alice", "since": "2027-01-01T00:00:00Z"}`)
	case h.Since != nil && h.Until != nil && !h.Since.Before(*h.Until):
		return nil, invalid("it ends before it begins", "correct since or until")
	}
	return s.back.TellHolding(r.Context(), who(r.Context()), h)
}
