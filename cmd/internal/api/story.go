package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// Stories tell everything that is known of a message, a flow or a lock.
type Stories interface {
	Why(ctx context.Context, id string) (*Story, error)
}

// Story is what became of a message, a flow or a lock, and why.
type Story struct {
	Messages []*Message   `json:"messages" doc:"of the log: the message, all of a flow, or what a lock answered"`
	Locks    []Lock       `json:"locks" doc:"that answered it, or that it led to"`
	Codes    []CodePage   `json:"codes,omitempty" doc:"the pages of the codes that occur"`
	Held     []HeldMail   `json:"held,omitempty" doc:"copies in quarantine"`
	Queued   []QueuedMail `json:"queued,omitempty" doc:"what still waits for delivery"`
	Appeals  []Appeal     `json:"appeals,omitempty"`
	Acts     []Act        `json:"acts,omitempty" doc:"what was done about it by people and by the program, oldest first"`
}

// CodePage is the page of a public code.
type CodePage struct {
	Code  string `json:"code"`
	Title string `json:"title"`
	URL   string `json:"url,omitempty"`
}

// HitActor does something about everything that a search of the log finds. Who is the operator's account.
type HitActor interface {
	ActOnHits(ctx context.Context, who string, q Query, a HitAction) (*HitsActed, error)
}

// HitAction asks for something to be done about everything that a search of the log finds.
type HitAction struct {
	Query  string `json:"query" doc:"the parameters of GET /v1/log; the newest lines are meant, 100 unless limit says otherwise"`
	Do     string `json:"do" doc:"lock, unlock: users or identities of the lines; release, delete: copies in quarantine and mail in the queue; block, allow: senders, for mail of their user, allow without the check that stopped the message; spam, good: teach the filter, from what is kept of the messages"`
	Reason string `json:"reason"`
	Plan   bool   `json:"plan,omitempty" doc:"only tell what would be done"`
}

// HitsActed tells what was done, or would be.
type HitsActed struct {
	Do      string   `json:"do"`
	Lines   int      `json:"lines" doc:"that the search found"`
	Done    []string `json:"done" doc:"about what or whom it was done, or would be"`
	Refused []string `json:"refused,omitempty" doc:"about what or whom it could not be done, each with the reason"`
}

// HitActions are what can be done about lines of the log.
var HitActions = []string{"lock", "unlock", "release", "delete", "block", "allow", "spam", "good"}

func (s *Server) storyRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/why/{id}", summary: "everything that is known of a message, a flow or a lock: by its id, that in its trace field (Received), or its ticket", out: Story{},
			serve: func(r *http.Request) (any, error) { return s.back.Why(r.Context(), r.PathValue("id")) }},
		{method: "POST", path: "/v1/log/act", summary: "do something about everything that a search of the log finds", in: HitAction{}, out: HitsActed{}, serve: s.actOnHits},
	}
}

func (s *Server) actOnHits(r *http.Request) (any, error) {
	var a HitAction
	if err := body(r, &a); err != nil {
		return nil, err
	}
	q, err := readQuery(a.Query)
	switch {
	case err != nil:
		return nil, err
	case !slices.Contains(HitActions, a.Do):
		return nil, invalid(fmt.Sprintf("cannot %q what is found", a.Do), fmt.Sprintf("do is one of %q", HitActions))
	case a.Query == "":
		return nil, invalid("the search has no condition", "name some, like user=alice&since=2h")
	case a.Reason == "" || len(a.Reason) > 100 || !printable(a.Reason):
		return nil, invalid("it needs a reason of at most 100 printable ASCII characters", "say why: it stands in the audit log, and blocked clients read it")
	}
	return s.back.ActOnHits(r.Context(), who(r.Context()), q, a)
}

// readQuery reads the parameters of a search that are kept as one text.
func readQuery(text string) (Query, error) {
	v, err := url.ParseQuery(text)
	if err == nil {
		err = route{query: logParams}.unknown(v)
	}
	if err != nil {
		return Query{}, err
	}
	return query(v)
}
