package main

import (
	"slices"
	"testing"
	"time"

	"sluice/cmd/internal/api"
	"sluice/filter"
	mail "sluice/filter/message"
	"sluice/intercept/flow"
)

// TestSendersAreTaken: all that were found go into the user's list, or those that are named; nobody else.
func TestSendersAreTaken(t *testing.T) {
	t.Parallel()
	g := newGateway(t, user)
	g.start()
	defer g.end()
	b, ctx := backend{g.daemon}, t.Context()
	m, err := b.find("alice")
	if err != nil {
		t.Fatal(err)
	}
	rules := g.daemon.senderRules()
	for day, from := range [][]string{{"old@customer.example", "new@customer.example"}, {"old@customer.example"}, {"old@customer.example"}} {
		for _, a := range from {
			rules.Settle(&mail.Message{Flow: &flow.Flow{User: flow.User{ID: m.ID}}, Received: time.Now().AddDate(0, 0, day-4), Envelope: mail.Envelope{From: mail.Address(a)},
				Data: []byte("From: " + a + "\r\n\r\n")}, filter.Outcome{Accepted: 1, Verdict: &filter.Verdict{Cause: -1}})
		}
	}
	listed := func(s *api.SenderMailboxes) (all []string) {
		for _, x := range s.Mailboxes {
			if x.Listed {
				all = append(all, x.Mailbox)
			}
		}
		return all
	}
	take := func(want []string, boxes ...string) {
		t.Helper()
		s, err := b.TakeSenders(ctx, "test", api.SendersRequest{User: "alice", Mailboxes: boxes, Reason: "test"})
		if err != nil || !slices.Equal(listed(s), want) || len(s.Mailboxes) != 2 {
			t.Errorf("%v: %+v, %v", boxes, s, err)
		}
	}
	if s, err := b.Senders(ctx, "alice"); err != nil || len(s.Mailboxes) != 2 || s.Mailboxes[0].Found || !s.Mailboxes[1].Found || len(listed(s)) != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := b.TakeSenders(ctx, "test", api.SendersRequest{User: "alice", Mailboxes: []string{"new@customer.example", "ceo@bank.example"}}); err == nil {
		t.Error("what was not met is taken")
	}
	take([]string{"old@customer.example"})
	take([]string{"old@customer.example"})
	take([]string{"new@customer.example", "old@customer.example"}, "New@customer.example")
	if set := g.daemon.policy.Settings(m.ID).Sender.Mailboxes; set == nil || len(*set) != 2 {
		t.Errorf("in force are %v", set)
	}
}
