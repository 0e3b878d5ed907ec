package main

import (
	"context"
	"io"

	"sluice/cmd/internal/api"
)

func (fake) LockHits(_ context.Context, account, user string) ([]api.LockHit, error) {
	if account == "" {
		return []api.LockHit{{User: user, Flows: 2, Identities: []string{"shop", "web1\x1b"}}}, nil
	}
	return []api.LockHit{{User: "alice", Flows: 2, Identities: []string{"shop"}}, {User: "bob", Ticket: "K7QX-2M4T"}, {User: "carol", Never: true}}, nil
}

func (fake) LockAccount(_ context.Context, _ string, r api.AccountLock) (*api.AccountLocked, error) {
	return &api.AccountLocked{Account: r.Account, Locks: []api.Lock{{User: "alice", Ticket: "0123-4567"}}, Left: []string{"carol: the user is never to be locked"}}, nil
}

func (fake) UnlockAccount(_ context.Context, _ string, r api.AccountLock) (*api.AccountLocked, error) {
	return &api.AccountLocked{Account: r.Account, Locks: []api.Lock{{User: "alice", Ticket: "0123-4567"}}}, nil
}

func (fake) Bundle(_ context.Context, _, ticket string, begin func(string) io.Writer) error {
	if ticket != "K7QX-2M4T" {
		return &api.Problem{Status: 404, Code: "no-such-ticket", What: `there is no lock "` + ticket + `"`, Remedy: "`sluice locks --history` lists them"}
	}
	_, err := io.WriteString(begin(ticket+".tar.gz"), "an archive\n")
	return err
}
