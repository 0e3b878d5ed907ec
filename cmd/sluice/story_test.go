package main

import (
	"context"

	"sluice/cmd/internal/api"
)

func (f fake) Why(ctx context.Context, id string) (*api.Story, error) {
	l := lock()
	page := api.CodePage{Code: "GTUBE", Title: "the message contains the test text for spam", URL: "https://mail-help.provider.example/GTUBE"}
	switch id {
	case l.Ticket:
		return &api.Story{Locks: []api.Lock{l}, Codes: []api.CodePage{page}, Acts: []api.Act{{At: l.Since, Who: "sluiced", What: "lock locked", Subject: l.User, Detail: l.Ticket + " GTUBE 5 bad messages"}}}, nil
	case "k3f9a9.1":
		t := &api.Story{Messages: dayLog()[:1], Locks: []api.Lock{l}, Codes: []api.CodePage{page}, Appeals: []api.Appeal{*dayAppeal()}}
		held, err := f.HeldMail(ctx, api.HeldQuery{Limit: 1})
		t.Held = held
		return t, err
	}
	return nil, &api.Problem{Status: 404, Code: "unknown", What: `nothing is known of "` + id + `"`, Remedy: "give the id of a message"}
}

func (fake) ActOnHits(_ context.Context, _ string, q api.Query, a api.HitAction) (*api.HitsActed, error) {
	return &api.HitsActed{Do: a.Do, Lines: q.Limit, Done: []string{"alice, identity \x1bshop"}, Refused: []string{"bob: user bob is not locked"}}, nil
}
