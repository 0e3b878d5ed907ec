package main

import (
	"context"
	"net/netip"
	"time"

	"sluice/cmd/internal/api"
)

func (fake) Queued(_ context.Context, q api.QueueQuery) (*api.QueuePage, error) {
	last, next := now.Add(-time.Minute), now.Add(14*time.Minute)
	waits := api.QueuedMail{
		ID: "6rnhgw6s8k26", Message: "k3x9.1", User: "alice", Identity: "bob@customer.example", Client: netip.MustParseAddr("192.0.2.1"), Sender: "bob@customer.example",
		Domain: "example.net", Recipients: []api.QueuedRecipient{{Address: "x@example.net", Host: "mx.example.net", Reply: "450 4.2.1 mailbox busy"}}, Size: 10240,
		Received: now.Add(-20 * time.Minute), Tries: 2, Last: &last, Next: &next, Note: "mailbox busy",
	}
	held := api.QueuedMail{ID: "6rnhgw6s8k2a", User: "alice", Domain: "example.org", Recipients: []api.QueuedRecipient{{Address: "y@example.org"}}, Size: 900,
		Received: now.Add(-time.Hour), Hold: "to be looked at"}
	p := &api.QueuePage{Deliveries: []api.QueuedMail{waits, held}, Total: 812, Held: 1, Bytes: 9 << 20, Next: 2}
	if q.ID != "" {
		p.Deliveries = p.Deliveries[:1]
	}
	return p, nil
}

func (fake) QueueLanes(context.Context) ([]api.QueueLane, error) {
	next := now.Add(2 * time.Minute)
	return []api.QueueLane{{Domain: "dead.example", Site: "mx.dead.example", Waiting: 800, Next: &next, Misses: 3, Why: "the destination 192.0.2.99 refused the connection"},
		{Domain: "example.net", Site: "mx.example.net", Waiting: 12, Active: 2}}, nil
}

func (fake) ChangeQueue(_ context.Context, _ string, c api.QueueChange) (*api.QueueChanged, error) {
	return &api.QueueChanged{Do: c.Do, Count: 3}, nil
}

func (fake) Submit(context.Context, string, api.Submission) (*api.Submitted, error) {
	return &api.Submitted{Message: "op1", Deliveries: []string{"6rnhgw6s8k26"}}, nil
}
