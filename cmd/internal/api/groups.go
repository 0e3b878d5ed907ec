package api

import (
	"context"
	"net/http"
)

// Groups lists and changes accounts, plans and the network: what their users inherit and share. Who is the operator's
// account.
type Groups interface {
	Groups(ctx context.Context) ([]Group, error)
	PutGroup(ctx context.Context, who string, g GroupRequest) (*GroupPlan, error)
	RemoveGroup(ctx context.Context, who, kind, name, reason string) (*Group, error)
	Join(ctx context.Context, who string, j JoinRequest) (*Explained, error)
}

// Group is an account, a plan, or the network.
type Group struct {
	Kind     string            `json:"kind" doc:"account, plan or network"`
	Name     string            `json:"name"`
	Parent   string            `json:"parent,omitempty" doc:"of an account: the account around it"`
	Plan     string            `json:"plan,omitempty" doc:"of an account"`
	Settings map[string]string `json:"settings,omitempty" doc:"what its users inherit"`
	Budget   map[string]string `json:"budget,omitempty" doc:"limits of what they send together"`
	Most     int               `json:"most,omitempty" doc:"of a plan: how many users an account may have; left out: any number"`
	Contact  string            `json:"contact,omitempty" doc:"who is told of locks of its users"`
	Users    int               `json:"users" doc:"members, those of accounts inside it counted"`
}

// GroupRequest makes a group, or changes the one of the kind and name. What is left out stays.
type GroupRequest struct {
	Kind   string  `json:"kind"`
	Name   string  `json:"name,omitempty" doc:"left out for the network"`
	Parent *string `json:"parent,omitempty" doc:"empty: none"`
	Plan   *string `json:"plan,omitempty" doc:"empty: none"`
	// Contact is told of locks.
	Contact *string           `json:"contact,omitempty" doc:"of an account: mailbox of who is told of locks of users without a contact; empty: none"`
	Set     map[string]string `json:"set,omitempty" doc:"settings of its users; empty: they are inherited again"`
	Budget  map[string]string `json:"budget,omitempty" doc:"limits of what they send together; empty: none"`
	Most    *int              `json:"most,omitempty" doc:"of a plan: how many users an account may have, those of accounts inside it counted; 0: any number"`
	Reason  string            `json:"reason,omitempty"`
	Dry     bool              `json:"dry,omitempty" doc:"change nothing, say whom it would hit"`
}

// GroupPlan is what a change of a group does, or would.
type GroupPlan struct {
	Group Group    `json:"group"`
	Hit   int      `json:"hit" doc:"users for whom something changes"`
	Users []string `json:"users,omitempty" doc:"the first hundred of them"`
	Done  bool     `json:"done"`
}

// JoinRequest moves a user.
type JoinRequest struct {
	User    string `json:"user"`
	Account string `json:"account" doc:"empty: none"`
	Reason  string `json:"reason,omitempty"`
}

func (s *Server) groupRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/groups", summary: "accounts, plans and the network", out: []Group{},
			serve: func(r *http.Request) (any, error) { return s.back.Groups.Groups(r.Context()) }},
		{method: "POST", path: "/v1/groups", summary: "make or change an account, a plan, or the network's budget", in: GroupRequest{}, out: GroupPlan{},
			serve: func(r *http.Request) (any, error) {
				var g GroupRequest
				if err := body(r, &g); err != nil {
					return nil, err
				}
				if (g.Name == "") != (g.Kind == "network") {
					return nil, invalid("accounts and plans have a name, the network has none", `send {"kind": "account", "name": "house"}`)
				}
				return s.back.PutGroup(r.Context(), who(r.Context()), g)
			}},
		{method: "DELETE", path: "/v1/groups", summary: "remove an account or plan to which nobody belongs", out: Group{},
			query: []param{{"kind", "account, plan or network"}, {"name", "of it"}, {"reason", "why"}},
			serve: func(r *http.Request) (any, error) {
				q := r.URL.Query()
				return s.back.RemoveGroup(r.Context(), who(r.Context()), q.Get("kind"), q.Get("name"), q.Get("reason"))
			}},
		{method: "POST", path: "/v1/groups/join", summary: "make a user a member of an account, or of none", in: JoinRequest{}, out: Explained{},
			serve: func(r *http.Request) (any, error) {
				var j JoinRequest
				if err := body(r, &j); err != nil {
					return nil, err
				}
				return s.back.Join(r.Context(), who(r.Context()), j)
			}},
	}
}
