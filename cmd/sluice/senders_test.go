package main

import (
	"context"
	"time"

	"sluice/cmd/internal/api"
)

func (fake) Senders(_ context.Context, user string) (*api.SenderMailboxes, error) {
	s := &api.SenderMailboxes{User: user, Rule: "off"}
	if user == "alice" {
		at := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
		s.Rule, s.LearnUntil = "found", "2027-02-28"
		s.Mailboxes = []api.SenderMailbox{
			{Mailbox: "ceo@bank.example", Days: 1, Messages: 70, First: &at, Last: &at},
			{Mailbox: "office@alice.example", Found: true, Days: 12, Messages: 340, First: &at, Last: &at},
			{Mailbox: "old@alice.example", Listed: true},
		}
	}
	return s, nil
}

func (f fake) TakeSenders(ctx context.Context, _ string, r api.SendersRequest) (*api.SenderMailboxes, error) {
	s, err := f.Senders(ctx, r.User)
	if s.Taken = len(r.Mailboxes); s.Taken == 0 && len(s.Mailboxes) > 0 {
		s.Taken = 1
	}
	return s, err
}
