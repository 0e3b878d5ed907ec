package main

import (
	"context"

	"sluice/cmd/internal/api"
)

func (fake) Suggest(_ context.Context, user string) (*api.Suggestion, error) {
	g := &api.Suggestion{User: user, Days: 2, Messages: 9}
	if user == "alice" {
		g.Days, g.Messages, g.Enough = 22, 4711, true
		g.Limits = []api.SuggestedLimit{{Limit: "messages_per_hour", Busiest: 62, Usual: 3, Now: 500, Suggested: 130}, {Limit: "recipients_per_day", Busiest: 616, Usual: 6, Suggested: 1300}}
	}
	return g, nil
}
