package api

import (
	"context"
	"net/http"
	"net/netip"
	"time"
)

// Pools shows and changes from which addresses mail leaves. Who is the operator's account.
type Pools interface {
	Pools(ctx context.Context) ([]Pool, error)
	CheckPools(ctx context.Context, r PoolRequest) ([]PoolAddress, error)
	SuspendAddress(ctx context.Context, who string, r PoolRequest) (*PoolAddress, error)
	ResumeAddress(ctx context.Context, who string, r PoolRequest) (*PoolAddress, error)
	Relays(ctx context.Context) ([]Relay, error)
}

// Pool is a group of delivery addresses.
type Pool struct {
	Name      string        `json:"name"`
	Own       bool          `json:"own,omitempty" doc:"no addresses: mail leaves from the customers' own"`
	Users     []string      `json:"users,omitempty"`
	Senders   []string      `json:"senders,omitempty"`
	Class     string        `json:"class,omitempty" doc:"bounce or risk"`
	Addresses []PoolAddress `json:"addresses"`
}

// The states of a delivery address.
const (
	InUse   = "in use"
	Failing = "failing" // and in use
	Out     = "out"
)

// PoolAddress is a delivery address and what holds for it.
type PoolAddress struct {
	Address netip.Addr `json:"address"`
	Helo    string     `json:"helo"`
	Weight  int        `json:"weight"`
	State   string     `json:"state" doc:"in use; failing: something is wrong, and it is in use all the same, since too few others would be left; out"`
	Since   *time.Time `json:"since,omitempty"`
	Checked *time.Time `json:"checked,omitempty" doc:"when the DNS last answered"`
	Why     string     `json:"why,omitempty" doc:"what is wrong, or who suspended it"`
	Unsure  string     `json:"unsure,omitempty" doc:"what the last check had no answer to"`
}

// PoolRequest names a delivery address.
type PoolRequest struct {
	Address netip.Addr `json:"address,omitzero" doc:"left out where all may be meant: all"`
	Reason  string     `json:"reason,omitempty" doc:"needed to suspend"`
}

// Relay is a destination that takes mail for domains of others, as smart hosts do.
type Relay struct {
	Address netip.Addr `json:"address"`
	Mails   int        `json:"mails"`
	Last    time.Time  `json:"last"`
	Domain  string     `json:"domain" doc:"of the last recipient"`
}

func (s *Server) poolRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/pools", summary: "delivery addresses by pool, with what holds for them", out: []Pool{},
			serve: func(r *http.Request) (any, error) { return s.back.Pools.Pools(r.Context()) }},
		{method: "POST", path: "/v1/pools/check", summary: "check delivery addresses now", in: PoolRequest{}, out: []PoolAddress{}, serve: s.checkPools},
		{method: "POST", path: "/v1/pools/suspend", summary: "use a delivery address no more until it is resumed", in: PoolRequest{}, out: PoolAddress{}, serve: s.suspendAddress},
		{method: "POST", path: "/v1/pools/resume", summary: "use a suspended delivery address again, once it is good", in: PoolRequest{}, out: PoolAddress{}, serve: s.resumeAddress},
		{method: "GET", path: "/v1/relays", summary: "destinations that were learnt to be relays, to which mail leaves from customers' own addresses by delivery auto", out: []Relay{},
			serve: func(r *http.Request) (any, error) { return s.back.Relays(r.Context()) }},
	}
}

func (s *Server) checkPools(r *http.Request) (any, error) {
	var q PoolRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	return s.back.CheckPools(r.Context(), q)
}

func (s *Server) suspendAddress(r *http.Request) (any, error) {
	var q PoolRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	if q.Reason == "" {
		return nil, invalid("no reason is given", "say why: it stands in the list and in the audit log")
	}
	return s.back.SuspendAddress(r.Context(), who(r.Context()), q)
}

func (s *Server) resumeAddress(r *http.Request) (any, error) {
	var q PoolRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	return s.back.ResumeAddress(r.Context(), who(r.Context()), q)
}
