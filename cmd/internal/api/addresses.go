package api

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// Addresses lists and changes which senders and recipients are allowed or blocked. Who is the operator's account.
type Addresses interface {
	Addresses(ctx context.Context) ([]ListedAddress, error)
	PutAddress(ctx context.Context, who string, a ListedAddress) (*ListedAddress, error)
	RemoveAddress(ctx context.Context, who string, id int64, reason string) (*ListedAddress, error)
}

// ListedAddress is one entry of an allow or block list.
type ListedAddress struct {
	ID      int64      `json:"id,omitempty"`
	List    string     `json:"list" doc:"sender or recipient"`
	Action  string     `json:"action" doc:"block: 550; allow: some checks are not asked"`
	Pattern string     `json:"pattern" doc:"info@customer.example, customer.example, .customer.example for all below it, or an expression between slashes, of the whole address"`
	User    string     `json:"user,omitempty" doc:"only for mail of this user"`
	Account string     `json:"account,omitempty" doc:"only for mail of users of this account"`
	Skips   []string   `json:"skips,omitempty" doc:"of allow: names of checks"`
	Reason  string     `json:"reason" doc:"a blocked client reads it"`
	By      string     `json:"by,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
	Until   *time.Time `json:"until,omitempty" doc:"left out: it never ends"`
}

func (s *Server) addressRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/addresses", summary: "senders and recipients that are allowed or blocked", out: []ListedAddress{},
			serve: func(r *http.Request) (any, error) { return s.back.Addresses.Addresses(r.Context()) }},
		{method: "POST", path: "/v1/addresses", summary: "allow or block a sender or recipient", in: ListedAddress{}, out: ListedAddress{}, serve: s.putAddress},
		{method: "DELETE", path: "/v1/addresses/{id}", summary: "remove an entry", out: ListedAddress{}, query: []param{{"reason", "why"}},
			serve: func(r *http.Request) (any, error) {
				id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
				if err != nil {
					return nil, invalid(strconv.Quote(r.PathValue("id"))+" is not the number of an entry", "GET /v1/addresses lists all")
				}
				return s.back.RemoveAddress(r.Context(), who(r.Context()), id, r.URL.Query().Get("reason"))
			}},
	}
}

func (s *Server) putAddress(r *http.Request) (any, error) {
	var a ListedAddress
	if err := body(r, &a); err != nil {
		return nil, err
	}
	switch {
	case a.List != "sender" && a.List != "recipient":
		return nil, invalid(strconv.Quote(a.List)+" is not a list", "use sender or recipient")
	case a.Action != "allow" && a.Action != "block":
		return nil, invalid(strconv.Quote(a.Action)+" is not what an entry can do", "use allow or block")
	case a.User != "" && a.Account != "":
		return nil, invalid("an entry is of a user, of an account, or of all", "name one of both")
	case a.Reason == "" || len(a.Reason) > 100 || !printable(a.Reason):
		return nil, invalid("an entry needs a reason of at most 100 printable ASCII characters", "say why")
	case a.Until != nil && !a.Until.After(s.Now()):
		return nil, invalid("until is over already", "give a moment to come")
	}
	return s.back.PutAddress(r.Context(), who(r.Context()), a)
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
