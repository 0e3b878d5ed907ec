package api

import (
	"context"
	"net/http"
	"slices"
	"time"
)

// Appeals lists and decides what people say of refusals. Who is the operator's account.
type Appeals interface {
	Appeals(ctx context.Context, state string, limit int) ([]Appeal, error)
	Appeal(ctx context.Context, id string) (*Appeal, error)
	DecideAppeal(ctx context.Context, who, id string, d AppealDecision) (*Appeal, error)
}

// Appeal says that a message was no spam.
type Appeal struct {
	ID       string     `json:"id"`
	Time     time.Time  `json:"time"`
	Message  string     `json:"message" doc:"id of the message"`
	User     string     `json:"user"`
	Code     string     `json:"code" doc:"public code of the refusal"`
	Text     string     `json:"text,omitempty" doc:"what the sender says; a stranger's words"`
	From     string     `json:"from" doc:"address from which it came"`
	Held     string     `json:"held,omitempty" doc:"number of the held copy"`
	State    string     `json:"state" doc:"open, approved or denied"`
	By       string     `json:"by,omitempty" doc:"who decided"`
	Why      string     `json:"why,omitempty"`
	Done     *time.Time `json:"done,omitempty"`
	Did      string     `json:"did,omitempty" doc:"what followed from it"`
	Evidence *Message   `json:"evidence,omitempty" doc:"the log's line of the message, as it was when the appeal came"`
}

// AppealDecision decides one.
type AppealDecision struct {
	Approve bool   `json:"approve" doc:"true: the message was good. A held copy is released, and learnt; else its sender may send again for three days without the check that refused it. false: it was refused rightly"`
	Reason  string `json:"reason"`
}

// FalsePositives tells how much of what was stopped was found to be good.
type FalsePositives struct {
	Days    int     `json:"days"`
	Stopped uint64  `json:"stopped" doc:"messages that were kept from their recipients as bad in these days"`
	Wrong   uint64  `json:"wrong" doc:"of them, those whose appeal was approved"`
	Rate    float64 `json:"rate" doc:"share of them"`
	Open    int     `json:"open" doc:"appeals that wait"`
}

var appealStates = []string{"", "open", "approved", "denied"}

func (s *Server) appealRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/appeals", summary: "what people say of refusals, newest first", out: []Appeal{},
			query: []param{{"state", "open, approved or denied; left out: all"}, {"limit", "100 unless told"}},
			serve: func(r *http.Request) (any, error) {
				state := r.URL.Query().Get("state")
				if !slices.Contains(appealStates, state) {
					return nil, invalid("there is no state "+state, "use open, approved or denied")
				}
				limit, err := number(r.URL.Query(), "limit", 100)
				if err != nil {
					return nil, err
				}
				return s.back.Appeals.Appeals(r.Context(), state, limit)
			}},
		{method: "GET", path: "/v1/appeals/{id}", summary: "one appeal with its evidence", out: Appeal{},
			serve: func(r *http.Request) (any, error) { return s.back.Appeal(r.Context(), r.PathValue("id")) }},
		{method: "POST", path: "/v1/appeals/{id}", summary: "approve or deny an appeal", in: AppealDecision{}, out: Appeal{},
			serve: func(r *http.Request) (any, error) {
				var d AppealDecision
				if err := body(r, &d); err != nil {
					return nil, err
				}
				if d.Reason == "" {
					return nil, invalid("a decision needs a reason", `say why: {"approve": true, "reason": "…"}`)
				}
				return s.back.DecideAppeal(r.Context(), who(r.Context()), r.PathValue("id"), d)
			}},
	}
}
