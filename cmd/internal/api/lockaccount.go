package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// AccountLocker locks whole accounts, tells beforehand whom that hits, and hands out the evidence of locks. Who is the
// operator's account. Bundle calls begin once, when it knows that there is something to write.
type AccountLocker interface {
	LockHits(ctx context.Context, account, user string) ([]LockHit, error)
	LockAccount(ctx context.Context, who string, r AccountLock) (*AccountLocked, error)
	UnlockAccount(ctx context.Context, who string, r AccountLock) (*AccountLocked, error)
	Bundle(ctx context.Context, who, ticket string, begin func(name string) io.Writer) error
}

// LockHit is one user whom a lock would stop.
type LockHit struct {
	User       string   `json:"user"`
	Flows      int      `json:"flows" doc:"connections open now"`
	Identities []string `json:"identities,omitempty" doc:"who sent inside of the user within a day"`
	Ticket     string   `json:"ticket,omitempty" doc:"of the lock that he has already"`
	Never      bool     `json:"never,omitempty" doc:"he is never to be locked, and would not be"`
}

// AccountLock asks for the lock of an account, or its end.
type AccountLock struct {
	Account string `json:"account"`
	Seconds int    `json:"seconds,omitempty" doc:"how long; 0 until a person unlocks"`
	Reason  string `json:"reason"`
}

// AccountLocked tells what became of its users.
type AccountLocked struct {
	Account string   `json:"account"`
	Locks   []Lock   `json:"locks" doc:"that began, or ended"`
	Left    []string `json:"left,omitempty" doc:"who stays as he is, and why"`
}

func (s *Server) accountLockRoutes() []route {
	asked := func(do func(context.Context, string, AccountLock) (*AccountLocked, error), reason bool) func(r *http.Request) (any, error) {
		return func(r *http.Request) (any, error) {
			var l AccountLock
			if err := body(r, &l); err != nil {
				return nil, err
			}
			switch {
			case l.Account == "" || reason && l.Reason == "":
				return nil, invalid("an account is locked by its name, with a reason", `send {"account": "house", "seconds": 3600, "reason": "…"}`)
			case l.Seconds < 0 || l.Seconds > 7*24*3600:
				return nil, invalid(fmt.Sprintf("%d seconds is no time for a lock", l.Seconds), "give at most a week, or 0 for a lock until somebody unlocks")
			}
			return do(r.Context(), who(r.Context()), l)
		}
	}
	return []route{
		{method: "GET", path: "/v1/lock/hits", summary: "whom a lock of an account or a user would stop", out: []LockHit{}, query: []param{{"account", "name of an account"}, {"user", "or of a user"}},
			serve: func(r *http.Request) (any, error) {
				q := r.URL.Query()
				if (q.Get("account") == "") == (q.Get("user") == "") {
					return nil, invalid("a lock is of one account or of one user", "give one of both")
				}
				return s.back.LockHits(r.Context(), q.Get("account"), q.Get("user"))
			}},
		{method: "POST", path: "/v1/lock/account", summary: "lock all users of an account", in: AccountLock{}, out: AccountLocked{},
			serve: asked(func(ctx context.Context, who string, l AccountLock) (*AccountLocked, error) {
				return s.back.LockAccount(ctx, who, l)
			}, true)},
		{method: "POST", path: "/v1/unlock/account", summary: "lift the locks that an account's lock brought", in: AccountLock{}, out: AccountLocked{},
			serve: asked(func(ctx context.Context, who string, l AccountLock) (*AccountLocked, error) {
				return s.back.UnlockAccount(ctx, who, l)
			}, false)},
		{method: "GET", path: "/v1/locks/{ticket}/evidence", summary: "what a lock rests on, as a compressed tar archive: the lock, connections, the log around it, samples",
			raw: func(w http.ResponseWriter, r *http.Request) error {
				return s.back.Bundle(r.Context(), who(r.Context()), r.PathValue("ticket"), func(name string) io.Writer {
					w.Header().Set("Content-Type", "application/gzip")
					w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
					return w
				})
			}},
	}
}
