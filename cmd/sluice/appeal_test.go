package main

import (
	"context"
	"time"

	"sluice/cmd/internal/api"
)

func dayAppeal() *api.Appeal {
	return &api.Appeal{ID: "ak3f9a9-1", Time: now.Add(-time.Hour), Message: "k3f9a9.1", User: "alice", Code: "SPAM", Text: "minutes of\x1b our club", From: "192.0.2.3", Held: "q7k2m9xa40bc1", State: "open",
		Evidence: &api.Message{From: "a@customer.example", Time: now.Add(-2 * time.Hour), To: []api.Recipient{{Address: "b@dest.example"}}, Hits: []api.Hit{{Check: "learned", Code: "SPAM", Class: "spam", Action: "reject", Points: 0.99, Evidence: "probability 0.9912"}}}}
}

func (fake) Appeals(_ context.Context, state string, _ int) ([]api.Appeal, error) {
	if state == "denied" {
		return []api.Appeal{}, nil
	}
	return []api.Appeal{*dayAppeal()}, nil
}

func (fake) Appeal(_ context.Context, id string) (*api.Appeal, error) {
	if id != dayAppeal().ID {
		return nil, &api.Problem{Status: 404, Code: "no-such-appeal", What: `there is no appeal "` + id + `"`, Remedy: "`sluice appeal list` shows them"}
	}
	return dayAppeal(), nil
}

func (fake) DecideAppeal(_ context.Context, who, _ string, d api.AppealDecision) (*api.Appeal, error) {
	a := dayAppeal()
	a.State, a.By = "denied", who
	if d.Approve {
		a.State, a.Did = "approved", "released q7k2m9xa40bc1, 1 learnt"
	}
	return a, nil
}
