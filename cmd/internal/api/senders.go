package api

import (
	"context"
	"net/http"
	"time"
)

// Senders tells which mailboxes users have as senders, and takes some into their lists. Who is the operator's account.
type Senders interface {
	Senders(ctx context.Context, user string) (*SenderMailboxes, error)
	TakeSenders(ctx context.Context, who string, r SendersRequest) (*SenderMailboxes, error)
}

// SenderMailboxes are a user's.
type SenderMailboxes struct {
	User       string          `json:"user"`
	Rule       string          `json:"rule" doc:"require_from_mailbox: off, listed or found"`
	LearnUntil string          `json:"learn_until,omitempty" doc:"from_mailboxes_learnt_until: the last day on which rule found lets every mailbox pass"`
	Mailboxes  []SenderMailbox `json:"mailboxes"`
	Taken      int             `json:"taken,omitempty" doc:"mailboxes that this request put into from_mailboxes"`
}

// SenderMailbox is one that is listed, or was used in good, delivered mail.
type SenderMailbox struct {
	Mailbox  string     `json:"mailbox" doc:"in small letters, without what follows a +"`
	Listed   bool       `json:"listed" doc:"in from_mailboxes"`
	Found    bool       `json:"found" doc:"used on three days, at least 20 hours apart"`
	Days     int        `json:"days" doc:"on which it was used, at least 20 hours apart"`
	Messages int        `json:"messages"`
	First    *time.Time `json:"first,omitempty" doc:"left out: it was not met"`
	Last     *time.Time `json:"last,omitempty"`
}

// SendersRequest names mailboxes for a user's list.
type SendersRequest struct {
	User      string   `json:"user"`
	Mailboxes []string `json:"mailboxes,omitempty" doc:"that were met, found or not; left out: all that were found"`
	Reason    string   `json:"reason,omitempty"`
}

func (s *Server) senderRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/senders", summary: "the mailboxes that a user has as senders: listed ones, and those that were met in his good mail", out: SenderMailboxes{},
			query: []param{{"user", "name of a user, or an address whose user is meant"}},
			serve: func(r *http.Request) (any, error) {
				user := r.URL.Query().Get("user")
				if user == "" {
					return nil, invalid("nobody is named", "ask with ?user=alice")
				}
				return s.back.Senders.Senders(r.Context(), user)
			}},
		{method: "POST", path: "/v1/senders", summary: "take mailboxes that were found, or those that are named, into a user's from_mailboxes", in: SendersRequest{}, out: SenderMailboxes{},
			serve: func(r *http.Request) (any, error) {
				var q SendersRequest
				if err := body(r, &q); err != nil {
					return nil, err
				}
				if q.User == "" {
					return nil, invalid("nobody is named", `send {"user": "alice"}, or {"user": "alice", "mailboxes": ["office@customer.example"]}`)
				}
				return s.back.TakeSenders(r.Context(), who(r.Context()), q)
			}},
	}
}
