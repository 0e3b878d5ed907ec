package api

import (
	"context"
	"net/http"
	"time"
)

// DKIM makes, shows and removes keys that sign mail. Private keys never leave the gateway. Who is the operator's account.
type DKIM interface {
	DKIMKeys(ctx context.Context) ([]DKIMKey, error)
	// DKIMDomain tells of one domain's keys, with what the DNS has of them now.
	DKIMDomain(ctx context.Context, who, domain string) ([]DKIMKey, error)
	MakeDKIM(ctx context.Context, who string, r DKIMRequest) ([]DKIMKey, error)
	RemoveDKIM(ctx context.Context, who, domain, selector, reason string) ([]DKIMKey, error)
}

// DKIMKey is one key of a domain.
type DKIMKey struct {
	Domain   string     `json:"domain"`
	Selector string     `json:"selector"`
	Type     string     `json:"type,omitempty" doc:"rsa or ed25519"`
	State    string     `json:"state" doc:"waiting: for its record in the DNS; signing; retired: another signs in its place, its record is still needed; unreadable"`
	Made     *time.Time `json:"made,omitempty"`
	Seen     *time.Time `json:"seen,omitempty" doc:"when its record was found for the first time"`
	AtOnce   bool       `json:"at_once,omitempty" doc:"it signs whether or not its record was found"`
	Until    *time.Time `json:"until,omitempty" doc:"of a retired key: how long its record has to stay"`
	Name     string     `json:"name" doc:"of the TXT record, or of a CNAME that leads to it"`
	Record   string     `json:"record,omitempty" doc:"text of the TXT record"`
	DNS      string     `json:"dns,omitempty" doc:"what the DNS said when it was asked last: good, or what is wrong"`
	Asked    *time.Time `json:"asked,omitempty" doc:"when that was"`
	Error    string     `json:"error,omitempty" doc:"why it cannot be read"`
}

// DKIMRequest makes keys.
type DKIMRequest struct {
	Domain   string `json:"domain"`
	Selector string `json:"selector,omitempty" doc:"left out: by the day, like s20270131"`
	Type     string `json:"type,omitempty" doc:"rsa, ed25519 or both, which then adds an e to the selector of the second; left out: rsa, or what the domain has"`
	Rotate   bool   `json:"rotate,omitempty" doc:"in place of the keys that the domain has: they go on until the new record is found"`
	AtOnce   bool   `json:"at_once,omitempty" doc:"sign without waiting for the record"`
	Reason   string `json:"reason,omitempty"`
}

var dkimTypes = map[string]bool{"": true, "rsa": true, "ed25519": true, "both": true}

func (s *Server) dkimRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/dkim", summary: "the keys that sign mail", out: []DKIMKey{},
			serve: func(r *http.Request) (any, error) { return s.back.DKIMKeys(r.Context()) }},
		{method: "GET", path: "/v1/dkim/{domain}", summary: "the keys of a domain, with the records to publish and what the DNS has now", out: []DKIMKey{},
			serve: func(r *http.Request) (any, error) {
				return s.back.DKIMDomain(r.Context(), who(r.Context()), r.PathValue("domain"))
			}},
		{method: "POST", path: "/v1/dkim", summary: "make a key for a domain, or a new one in place of those it has", in: DKIMRequest{}, out: []DKIMKey{}, serve: s.makeDKIM},
		{method: "DELETE", path: "/v1/dkim/{domain}", summary: "remove a key, or all keys of a domain", out: []DKIMKey{}, query: []param{{"selector", "left out: all"}, {"reason", "why"}},
			serve: func(r *http.Request) (any, error) {
				q := r.URL.Query()
				return s.back.RemoveDKIM(r.Context(), who(r.Context()), r.PathValue("domain"), q.Get("selector"), q.Get("reason"))
			}},
	}
}

func (s *Server) makeDKIM(r *http.Request) (any, error) {
	var q DKIMRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	if !dkimTypes[q.Type] {
		return nil, invalid("\""+q.Type+"\" is not a type of key", "use rsa, ed25519 or both")
	}
	return s.back.MakeDKIM(r.Context(), who(r.Context()), q)
}
